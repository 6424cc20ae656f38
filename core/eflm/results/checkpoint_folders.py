"""Where the checkpoints of a run are: a folder of the run's own, and `checkpoints/` for those that are kept."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from eflm.errors import EflmError

_OWN = re.compile(r"\.run-(\d+)-.*")


class CheckpointFolders:
    """The checkpoints of one run, by the hash that names them. Those that nobody asked to keep are deleted at its end.

    `results` None: the run saves nothing, and checkpoints are in the system's temporary folder.
    """

    def __init__(self, results: Path | None, *, keep: bool = False) -> None:
        self._keep = keep
        self._shared = None if results is None else results / "checkpoints"
        self._own: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def find(self, checkpoint: str) -> Path | None:
        """The folder of a checkpoint that has been written completely."""
        for parent in (self._own, self._shared):
            if parent is not None and any((parent / checkpoint).glob("[!.]*.safetensors")):
                return parent / checkpoint
        return None

    def new(self, checkpoint: str) -> Path:
        """A folder to write a checkpoint to. EflmError if the disk refuses."""
        if self._own is None:
            self._own = self._make()
        return self._own / checkpoint

    def close(self) -> None:
        """Move what is to be kept, and delete the rest."""
        if self._own is None:
            return
        if self._keep and self._shared is not None:
            for folder in self._own.iterdir():
                with suppress(OSError):  # another run kept the same one first
                    folder.rename(self._shared / folder.name)
        shutil.rmtree(self._own, ignore_errors=True)
        self._own = None
        if self._shared is not None:
            with suppress(OSError):  # not empty
                self._shared.rmdir()

    def _make(self) -> Path:
        try:
            if self._shared is None:
                return Path(tempfile.mkdtemp(prefix="eflm-checkpoints-"))
            self._shared.mkdir(parents=True, exist_ok=True)
            self._delete_abandoned()
            return Path(tempfile.mkdtemp(prefix=f".run-{os.getpid()}-", dir=self._shared))
        except OSError as error:
            raise EflmError(
                f"no checkpoint can be written in {self._shared}: {error.strerror or error}; "
                "--results DIR chooses another folder"
            ) from error

    def _delete_abandoned(self) -> None:
        """Delete the folders of runs that were killed."""
        assert self._shared is not None
        for folder in self._shared.iterdir():
            owner = _OWN.fullmatch(folder.name)
            if owner is not None and not psutil.pid_exists(int(owner[1])):
                shutil.rmtree(folder, ignore_errors=True)
