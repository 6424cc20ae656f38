"""Reads and writes result files: one per run, written atomically. There is no index. Used by the parent process."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from eflm.errors import DataError, EflmError, UsageError
from eflm.files import write_atomically
from eflm_schemas import RunResult, RunSpec
from eflm_schemas.comparison import (
    COMPARISON_SCHEMA,
    REPEATS_SCHEMA,
    SWEEP_SCHEMA,
    Comparison,
    Repeats,
    Sweep,
)
from eflm_schemas.convert import from_dict, to_json
from eflm_schemas.result import SCHEMA

T = TypeVar("T")

#: The documents about runs that eflm writes, by their schema.
DOCUMENTS: dict[str, type[Any]] = {
    SCHEMA: RunResult,
    REPEATS_SCHEMA: Repeats,
    SWEEP_SCHEMA: Sweep,
    COMPARISON_SCHEMA: Comparison,
}
#: A key or its first characters.
KEY = re.compile(r"[0-9a-f]{4,64}")


def path_of(results: Path, result: RunResult) -> Path:
    """Return the path of `result` in the folder `results`."""
    return results / f"{stem_of(result.spec, result.started, result.key)}.json"


def stem_of(spec: RunSpec, started: str, key: str) -> str:
    """Return the file name of a result without its suffix: time, model, techniques, and first characters of the key."""
    composition = "-".join(spec.techniques.values()) or "baseline"
    # The time has microseconds and no punctuation, so that names sort by time and are unique.
    digits = re.sub(r"[^0-9T]", "", started.partition("+")[0])
    model = Path(spec.model).name or "model"
    label = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{model}-{composition}")[:100]
    return f"{digits}-{label}-{key[:8]}"


def save(results: Path, result: RunResult) -> Path:
    """Write `result` into the folder `results`, which is created if needed, and return its path.

    Raises EflmError if it cannot be written; existing files are then unchanged.
    """
    path = path_of(results, result)
    _write(path, (to_json(result, indent=2) + "\n").encode())
    return path


def save_artifacts(results: Path, stem: str, stage: str, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Write the artifacts of a stage next to its result and return their file names. Raises EflmError as `save`."""
    for name, content in files.items():
        _write(results / f"{stem}.{stage}.{name}", content)
    return tuple(f"{stem}.{stage}.{name}" for name in files)


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise EflmError(
            f"{path} could not be saved: {error.strerror or error}; "
            "earlier results are unchanged; --results DIR chooses another folder"
        ) from error


def check_writable(results: Path, *, what: str = "results", option: str = "--results") -> None:
    """Raise EflmError if no file can be written to `results`. Called before a run, so that its time is not lost."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    except OSError as error:
        raise EflmError(
            f"{what} cannot be saved in {results}: {error.strerror or error}; {option} DIR chooses another folder"
        ) from error


def files_of(word: str, folder: Path) -> list[Path]:
    """Return the result file that `word` is the path of, or all result files in `folder` whose key begins with `word`.

    Raises UsageError if there is none, or if several keys begin with it.
    """
    if Path(word).is_file():
        return [Path(word)]
    if not KEY.fullmatch(word):
        raise UsageError(
            f"{word!r} is neither a file nor a key of a result; give a result file, or at least the first "
            "four characters of a key"
        )
    # A file name ends with the first eight characters of the key.
    candidates = sorted(folder.glob(f"*-{word[:8]}*.json"))
    begun = [(path, run.key) for path in candidates for run in load_runs(path) if run.key.startswith(word)]
    if not begun:
        raise UsageError(f"no result in {folder} has a key that begins with {word}")
    keys = sorted({key for _, key in begun})
    if len(keys) > 1:
        raise UsageError(
            f"more than one key begins with {word}: {', '.join(key[:12] for key in keys)}; give more characters"
        )
    return list(dict.fromkeys(path for path, _ in begun))


def load_document(path: Path) -> RunResult | Repeats | Sweep | Comparison:
    """Return the result, repeats, sweep or comparison in a file. Raises DataError for any other content."""
    document = _read(path)
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or schema not in DOCUMENTS:
        raise DataError(
            f"{path} is not a document that this version of eflm can read: its schema is {schema!r}, "
            f"not one of {', '.join(DOCUMENTS)}"
        )
    found: RunResult | Repeats | Sweep | Comparison = _structured(document, DOCUMENTS[schema], path)
    return found


def load_runs(path: Path) -> tuple[RunResult, ...]:
    """Return the run in a result file, or the runs in a file of repeats. Raises DataError as `load`."""
    document = _read(path)
    if isinstance(document, dict) and document.get("schema") == REPEATS_SCHEMA:
        return _structured(document, Repeats, path).runs
    return (_result(document, path),)


def load(path: Path) -> RunResult:
    """Return the result in a file. Raises DataError if the file cannot be read or is not a result."""
    return _result(_read(path), path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"the result {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is not a result: it is not JSON ({error})") from error


def _result(document: Any, path: Path) -> RunResult:
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise DataError(
            f"{path} is not a result that this version of eflm can read: its schema is {schema!r}, not {SCHEMA!r}"
        )
    return _structured(document, RunResult, path)


def _structured(document: Any, cls: type[T], path: Path) -> T:
    try:
        return from_dict(document, cls)
    except Exception as error:  # cattrs raises a group of the errors of all fields
        from cattrs import transform_error

        faults = "; ".join(transform_error(error)[:3])
        raise DataError(f"{path} has the schema of a result but is damaged: {faults}") from error
