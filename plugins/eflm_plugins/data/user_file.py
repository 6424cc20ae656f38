"""`--data FILE.txt|.jsonl`: reads the user's own text as a corpus. The language modality calls `load`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eflm.errors import DataError
from eflm_plugins.data.corpus import Corpus, Document, Pair, passages

_FORMAT = 'each row must be {"text": ...} or {"prompt": ..., "completion": ...}'


def load(path: str) -> Corpus:
    """Load a corpus from a .txt file (paragraphs separated by blank lines) or a .jsonl file (one JSON row per line).

    Rows with "text" become documents, rows with "prompt" and "completion" become pairs. Errors are raised as DataError
    with the file and, where possible, the line number.
    """
    file = Path(path).expanduser()
    if file.suffix not in (".txt", ".jsonl"):
        suffix = repr(file.suffix) if file.suffix else "a file without a suffix"
        raise DataError(f"--data {path}: {suffix} is not supported; use a .txt or .jsonl file")
    try:
        content = file.read_text("utf-8")
    except FileNotFoundError:
        raise DataError(f"--data {path}: the file does not exist; check the path") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"--data {path}, line {line}: the text is not valid UTF-8; save the file as UTF-8"
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
    different = len({d.name for d in documents} | {p.document for p in pairs})
    if different < 2:
        unit = "rows" if file.suffix == ".jsonl" else "paragraphs (separated by blank lines)"
        raise DataError(
            f"--data {path}: at least two different {unit} are needed, one for training and one held out,"
            f" but the file has {different}; add more text"
        )
    return Corpus(file.name, tuple(documents), tuple(pairs))


def _rows(path: str, content: str) -> Iterator[Document | Pair]:
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"--data {path}, line {number}: not JSON ({error.msg}); {_FORMAT}") from None
        if not isinstance(row, dict):
            raise DataError(
                f"--data {path}, line {number}: found {type(row).__name__} instead of an object; {_FORMAT}"
            )
        if "text" in row:
            yield _document(_string(path, number, row, "text"))
        elif "prompt" in row and "completion" in row:
            prompt, completion = (_string(path, number, row, key) for key in ("prompt", "completion"))
            yield Pair(_name(f"{prompt}\0{completion}"), prompt, completion)
        else:
            keys = ", ".join(map(repr, row)) or "none"
            raise DataError(f"--data {path}, line {number}: the row has the keys {keys}; {_FORMAT}")


def _string(path: str, number: int, row: dict[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise DataError(
            f"--data {path}, line {number}: {key!r} is {type(value).__name__}, but it must be a string"
        )
    if key != "prompt" and not value.strip():
        raise DataError(f"--data {path}, line {number}: {key!r} is empty; add text or remove the row")
    return value


def _document(text: str) -> Document:
    return Document(_name(text), text)


def _name(content: str) -> str:
    # Named by content, so that equal rows fall into the same part of the split and the order of rows does not matter.
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
