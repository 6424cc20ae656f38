"""Signature → docstring pairs, for fine-tuning on the embedded text. `stdlib_text` calls this for each docstring."""

from __future__ import annotations

import ast

from eflm_plugins.data.corpus import Pair

#: One-word docstrings teach nothing.
_SHORTEST = 16


def pair_of(node: ast.AST, docstring: str, *, document: str) -> Pair | None:
    """A function's signature as prompt and its docstring's first paragraph as completion; None for other nodes.

    The signature is written as one normalised line, whatever the layout and comments of the source.
    """
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    completion = docstring.split("\n\n")[0].strip()
    if len(completion) < _SHORTEST:
        return None
    keyword = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return Pair(document, f"{keyword} {node.name}({ast.unparse(node.args)}){returns}:\n", completion)
