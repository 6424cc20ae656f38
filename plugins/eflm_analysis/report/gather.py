"""What a report is made of: the documents of runs that were asked for, or all of a folder, and what is none."""

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
    """One document, and the file that holds it."""

    path: Path
    document: RunResult | Repeats | Sweep | Comparison

    @property
    def runs(self) -> tuple[RunResult, ...]:
        """The runs that stand in it whole; a comparison names its runs by their keys only."""
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
    """A file that the report cannot show, and why."""

    name: str
    reason: str


@frozen
class Gathered:
    """What was found, in the order in which the page shows it, and what was left out."""

    found: tuple[Found, ...]
    left_out: tuple[LeftOut, ...]


def everything(folder: Path, *, besides: Path | None = None) -> Gathered:
    """All documents in the folder. Files that are none are named, `besides` and the runs' own pictures excepted.

    Raises UsageError where there is no document at all.
    """
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder} to report on; eflm bench makes it, and --results DIR chooses another"
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
        LeftOut(path.name, "neither a document of runs nor a picture of one")
        for path in files
        if path.suffix != ".json" and path.name not in shown and path.resolve() != own
    ]
    if not found:
        raise UsageError(
            f"{folder} holds no result{_told(left_out)}; eflm bench saves them, --results DIR chooses another folder"
        )
    return Gathered(tuple(found), tuple(left_out))


def asked_for(words: Iterable[str], folder: Path) -> Gathered:
    """The documents that files and keys of results stand for. Raises UsageError for a word that stands for nothing."""
    paths = dict.fromkeys(path for word in words for path in store.files_of(word, folder))
    found, left_out = _read(paths)
    if not found:
        raise UsageError(f"there is nothing to report on{_told(left_out)}")
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
            left_out.append(LeftOut(path.name, "it holds no run"))
    return found, left_out


def _told(left_out: Sequence[LeftOut]) -> str:
    return "".join(f"; {file.name}: {file.reason}" for file in left_out[:3])
