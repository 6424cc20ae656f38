"""Collects the documents of a report: those that were named, or all in a folder. Lists files that it cannot show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import frozen

from eflm.errors import DataError, UsageError
from eflm.results import store
from eflm_schemas import RunResult
from eflm_schemas.comparison import Comparison, Repeats, Sweep


@frozen
class Found:
    """One document and its file."""

    path: Path
    document: RunResult | Repeats | Sweep | Comparison

    @property
    def runs(self) -> tuple[RunResult, ...]:
        """The runs that the document contains. A comparison contains only the keys of its runs."""
        match self.document:
            case RunResult():
                return (self.document,)
            case Repeats():
                return self.document.runs
            case Sweep():
                return tuple(run for point in self.document.points for run in point.runs)
        return ()


@frozen
class LeftOut:
    """A file that the report cannot show, and the reason."""

    name: str
    reason: str


@frozen
class Gathered:
    """The documents in the order of the page, and the files that are not shown."""

    found: tuple[Found, ...]
    left_out: tuple[LeftOut, ...]


def everything(folder: Path, *, besides: Path | None = None) -> Gathered:
    """Collect all documents in a folder. Other files are listed, except `besides` and the artifacts of the runs.

    Raises UsageError if the folder does not exist or contains no document.
    """
    if not folder.is_dir():
        raise UsageError(
            f"the folder {folder} does not exist; eflm bench creates it, and --results DIR chooses another"
        )
    own = None if besides is None else besides.resolve()
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    found, left_out = _read(path for path in files if path.suffix == ".json")
    shown = {
        name
        for document in found
        for run in document.runs
        for stage in run.stages.values()
        for name in stage.artifacts
    }
    left_out += [
        LeftOut(path.name, "not a result and not an artifact of one")
        for path in files
        if path.suffix != ".json" and path.name not in shown and path.resolve() != own
    ]
    if not found:
        raise UsageError(
            f"{folder} contains no result{_reasons(left_out)}; eflm bench saves them, --results DIR chooses another "
            "folder"
        )
    return Gathered(tuple(found), tuple(left_out))


def asked_for(words: Iterable[str], folder: Path) -> Gathered:
    """Collect the documents of these files and keys of results. Raises UsageError for a word that matches nothing."""
    paths = dict.fromkeys(path for word in words for path in store.files_of(word, folder))
    found, left_out = _read(paths)
    if not found:
        raise UsageError(f"none of these files is a result{_reasons(left_out)}")
    return Gathered(tuple(found), tuple(left_out))


def _read(paths: Iterable[Path]) -> tuple[list[Found], list[LeftOut]]:
    found, left_out = [], []
    for path in paths:
        try:
            document = Found(path, store.load_document(path))
        except DataError as error:
            left_out.append(LeftOut(path.name, str(error)))
            continue
        if document.runs or isinstance(document.document, Comparison):
            found.append(document)
        else:
            left_out.append(LeftOut(path.name, "it contains no run"))
    return found, left_out


def _reasons(left_out: Sequence[LeftOut]) -> str:
    return "".join(f"; {file.name}: {file.reason}" for file in left_out[:3])
