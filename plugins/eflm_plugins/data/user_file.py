"""`--data FILE.txt|.jsonl`: a user's own text, turned into a corpus. The language modality calls `load`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eflm.errors import DataError
from eflm_plugins.data.corpus import Corpus, Document, Pair, passages

_SHAPES = 'a row holds {"text": ...}, or {"prompt": ..., "completion": ...}'


def load(path: str) -> Corpus:
    """The corpus in a .txt file (paragraphs set apart by blank lines) or a .jsonl file (one row a line).

    Rows with "text" become documents, rows with "prompt" and "completion" become pairs.
    Raises DataError that names the file, and the line where there is one.
    """
    file = Path(path).expanduser()
    if file.suffix not in (".txt", ".jsonl"):
        raise DataError(f"--data {path}: only .txt and .jsonl files are read, not {file.suffix or 'this'!r}")
    try:
        content = file.read_text("utf-8")
    except FileNotFoundError:
        raise DataError(f"--data {path}: there is no such file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"--data {path}, line {line}: this is not UTF-8 text; save the file as UTF-8"
        ) from None
    except OSError as error:
        raise DataError(f"--data {path}: the file cannot be read ({error.strerror})") from None

    documents: list[Document] = []
    pairs: list[Pair] = []
    items = _rows(path, content) if file.suffix == ".jsonl" else map(_document, passages(content))
    for item in items:
        if isinstance(item, Pair):
            pairs.append(item)
        else:
            documents.append(item)
    if len({d.name for d in documents} | {p.document for p in pairs}) < 2:
        unit = "rows" if file.suffix == ".jsonl" else "paragraphs (set apart by blank lines)"
        raise DataError(
            f"--data {path}: at least two different {unit} are needed, one to train on and one held out;"
            f" the file has {len(documents) + len(pairs)}"
        )
    return Corpus(file.name, tuple(documents), tuple(pairs))


def _rows(path: str, content: str) -> Iterator[Document | Pair]:
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"--data {path}, line {number}: not JSON ({error.msg}); {_SHAPES}") from None
        if not isinstance(row, dict):
            raise DataError(
                f"--data {path}, line {number}: {type(row).__name__} instead of an object; {_SHAPES}"
            )
        if "text" in row:
            yield _document(_string(path, number, row, "text"))
        elif "prompt" in row and "completion" in row:
            prompt, completion = (_string(path, number, row, key) for key in ("prompt", "completion"))
            yield Pair(_name(f"{prompt}\0{completion}"), prompt, completion)
        else:
            keys = ", ".join(map(repr, row)) or "nothing"
            raise DataError(f"--data {path}, line {number}: the row has {keys}; {_SHAPES}")


def _string(path: str, number: int, row: dict[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise DataError(
            f"--data {path}, line {number}: {key!r} is {type(value).__name__}, it must be a string"
        )
    if key != "prompt" and not value.strip():
        raise DataError(f"--data {path}, line {number}: {key!r} is empty")
    return value


def _document(text: str) -> Document:
    return Document(_name(text), text)


def _name(content: str) -> str:
    # Named by content, so that two equal rows fall on the same side of the split, in whatever order they stand.
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
