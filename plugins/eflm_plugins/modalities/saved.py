"""Locates a saved model in a local folder or on the Hub, and identifies its weights for the result.

All modalities use it. A Hub model is a folder in the cache after it was looked up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from eflm.errors import EflmError, ModelError
from eflm_plugins.modalities import hub

#: Bytes. If the weights are larger, only their headers, names and sizes are hashed.
_HASHED_WHOLE = 1 << 30
_CONFIGS = ("model_index.json", "config.json", "adapter_config.json", "scheduler_config.json")


@frozen(kw_only=True)
class Saved:
    """The folder of a saved model. The `parts` of its methods are subfolders; "" is the folder itself."""

    model: str  #: the model as the user wrote it
    folder: Path
    snapshot: hub.Snapshot | None = None  #: the snapshot of a Hub model; None for a local folder

    @property
    def name(self) -> str:
        """The name of the folder, or of the Hub repository."""
        return self.folder.absolute().name if self.snapshot is None else self.snapshot.name

    def with_weights(self, *parts: str) -> Path:
        """Download the weights of these parts if needed, and return the folder.

        Raises ModelError if the Hub has no weights for a Hub model.
        """
        if self.snapshot is not None:
            self.snapshot.fetch_weights(parts)
        return self.folder

    def facts(self, *parts: str) -> dict[str, Any]:
        """Return what identifies the weights: the Hub commit, or a hash of the configs and weights of these parts."""
        if self.snapshot is not None:
            return {"model_revision": self.snapshot.commit}
        parts = tuple(dict.fromkeys(parts))
        configs = [
            file for part in parts for name in _CONFIGS if (file := self.folder / part / name).is_file()
        ]
        files = [
            file
            for part in parts
            for pattern in ("*.safetensors", "*.bin")
            for file in sorted((self.folder / part).glob(pattern))
        ]
        whole = sum(file.stat().st_size for file in files) <= _HASHED_WHOLE
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in configs))
        for file in files:
            digest.update(f"\0{file.relative_to(self.folder)} {file.stat().st_size}\0".encode())
            _hash_into(digest, file, whole)
        return {
            "model_sha256": digest.hexdigest(),
            "model_sha256_of": "all files" if whole else "headers and sizes",
        }


def locate(model: str, what_works: str) -> Saved:
    """Find the saved model `model`.

    `what_works` says what the user could give instead, as the end of a sentence. Raises ModelError with a message of
    one line if there is no such model.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return Saved(model=model, folder=path)
    if path.exists():
        raise ModelError(f"--model {model} is a file, not a folder; {what_works}")
    if not hub.is_id(model):
        raise ModelError(f"--model {model}: there is no such folder; {what_works}")
    snapshot = hub.find(model, what_works)
    return Saved(model=model, folder=snapshot.folder, snapshot=snapshot)


@contextmanager
def reading(model: str, what_works: str) -> Iterator[None]:
    """Convert the exceptions of transformers, diffusers and their file formats into a ModelError."""
    try:
        yield
    except (EflmError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # configs, tokenizers and weights raise many different exceptions
        raise ModelError(
            f"--model {model} cannot be loaded: {hub.first_line(error)}; {what_works}"
        ) from error


def _hash_into(digest: Any, file: Path, whole: bool) -> None:
    with file.open("rb") as stream:
        if whole:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        elif file.suffix == ".safetensors":
            # The format starts with the length of the header: 8 bytes, little-endian.
            digest.update(stream.read(int.from_bytes(stream.read(8), "little")))
