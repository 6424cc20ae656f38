"""The embedded text: the English documentation that every CPython installation contains.

It consists of `pydoc_data.topics` (the language reference) and the docstrings of the standard library, which are parsed
from the sources without importing them. The language modality uses it if `--data` is not given. The same Python version
gives the same text on every machine.
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from eflm.cache import remember
from eflm.errors import DataError
from eflm_plugins.data.corpus import Corpus, Document, Pair
from eflm_plugins.data.pairs import pair_of

#: Version of the extraction. Increase it when `read` changes, so that an older cached text is not used.
READING = 1

# Tests, and folders that some distributions remove or patch: including them would make the text depend on the packager.
_LEFT_OUT = {
    "__pycache__",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}
_LEFT_OUT_FILES = {"sitecustomize.py", "usercustomize.py"}


def load() -> Corpus:
    """Return the embedded corpus: in a few seconds the first time, in a few hundredths of a second from the cache.

    Raises DataError if this Python has no readable sources (a zipped or stripped installation).
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    files = list(_sources(root))
    key = hashlib.sha256(repr([READING, platform.python_version()]).encode())
    for file in files:
        stat = file.stat()
        key.update(f"{file.relative_to(root).as_posix()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    payload = remember(f"stdlib-text-{key.hexdigest()[:32]}", lambda: _to_json(read(root, files)))
    return _from_json(payload)


def read(root: Path, files: list[Path]) -> Corpus:
    """Build the corpus from the source files under `root`, in the order of `files`."""
    documents: list[Document] = []
    pairs: list[Pair] = []
    for file in files:
        name = file.relative_to(root).as_posix()
        tree = _parse(file)
        if tree is None:
            continue
        if name == "pydoc_data/topics.py":
            documents.extend(_topics(tree))
            continue
        docstrings = []
        for node in _documented(tree):
            text = ast.get_docstring(node)
            if not text:
                continue
            docstrings.append(text)
            pair = pair_of(node, text, document=name)
            if pair is not None:
                pairs.append(pair)
        if docstrings:
            documents.append(Document(name, "\n\n".join(docstrings)))
    if not documents:
        raise DataError(
            f"the embedded text is read from the sources of Python's standard library, but {root} contains none;"
            " provide your own text with --data FILE.txt"
        )
    return Corpus("stdlib", tuple(documents), tuple(pairs))


def _sources(root: Path) -> Iterator[Path]:
    topics = root / "pydoc_data" / "topics.py"
    if topics.is_file():
        yield topics
    yield from _walk(root)


def _walk(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir():
            if entry.name not in _LEFT_OUT and not entry.name.startswith("config-"):
                yield from _walk(entry)
        elif entry.suffix == ".py" and entry.name not in _LEFT_OUT_FILES:
            yield entry


def _parse(file: Path) -> ast.Module | None:
    # Skip files that this Python cannot parse, such as leftovers of a packager.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _documented(
    node: ast.AST,
) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield modules, classes and functions in source order."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield from _documented(child)


def _topics(tree: ast.Module) -> Iterator[Document]:
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            topics = ast.literal_eval(statement.value)
            for name in sorted(topics):
                yield Document(f"topic/{name}", topics[name].strip())


def _to_json(corpus: Corpus) -> bytes:
    rows = {
        "documents": [[d.name, d.text] for d in corpus.documents],
        "pairs": [[p.document, p.prompt, p.completion] for p in corpus.pairs],
    }
    return json.dumps(rows).encode("ascii")


def _from_json(payload: bytes) -> Corpus:
    rows = json.loads(payload)
    return Corpus(
        "stdlib",
        tuple(Document(*row) for row in rows["documents"]),
        tuple(Pair(*row) for row in rows["pairs"]),
    )
