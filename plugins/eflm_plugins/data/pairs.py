"""Signature → docstring pairs for fine-tuning on the embedded text. `stdlib_text` calls this for each docstring."""

from __future__ import annotations

import ast

from eflm_plugins.data.corpus import Pair

#: Characters. Shorter docstrings, such as a single word, are not useful for training.
_SHORTEST = 16


def pair_of(node: ast.AST, docstring: str, *, document: str) -> Pair | None:
    """Return a pair for a function: its signature is the prompt, the first paragraph of its docstring the completion.

    Returns None for other nodes and for very short docstrings. The signature is normalized to one line, independent of
    the layout and comments of the source.
    """
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    completion = docstring.split("\n\n")[0].strip()
    if len(completion) < _SHORTEST:
        return None
    keyword = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return Pair(document, f"{keyword} {node.name}({ast.unparse(node.args)}){returns}:\n", completion)
