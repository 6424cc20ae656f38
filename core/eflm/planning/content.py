"""The identity of a model and of data: a hash of their bytes, never their path. Known before a run; no torch.

Hashes of large files are kept in the user's cache under the file's identity (device, inode, size, times), so that a
checkpoint is read once.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from eflm.cache import Cache
from eflm.errors import DataError, ModelError
from eflm.planning.plan import Plan
from eflm.registry.calls import called

#: Files of a model's folder that decide what it computes. Others, such as a README, do not.
MODEL_FILES = frozenset(
    {".safetensors", ".bin", ".pt", ".gguf", ".json", ".model", ".txt", ".jinja", ".tiktoken"}
)
#: Entries of a config that name a place or a version and decide nothing.
_LABELS = frozenset({"_name_or_path", "transformers_version", "_diffusers_version"})
#: Smaller files are hashed faster than the cache is read.
_WORTH_CACHING = 1 << 20
#: A file can change again without a new change time while the file system's clock has not moved on.
_CLOCK_STEP_NS = 2_000_000_000


def identify(plan: Plan) -> dict[str, str]:
    """What the run's model and data are: `{"model": ..., "data": ...}`. Raises ModelError or DataError."""
    spec, card = plan.spec, plan.modality_card
    found: dict[str, str] = {}
    if card.identity is not None:
        with called(plan.modality.label, "identity"):
            known = card.identity.resolve()(None if plan.preset else spec.model, spec.data)
        found |= {str(name): str(identity) for name, identity in known.items()}
    if "model" not in found:
        found["model"] = f"preset {spec.model}" if plan.preset else of_model(Path(spec.model))
    if "data" not in found:
        found["data"] = default_data() if spec.data is None else of_data(spec.data)
    return found


def default_data() -> str:
    """The data that a modality has built in, which may come with the interpreter."""
    return f"built in, {platform.python_implementation()} {platform.python_version()}"


def of_model(folder: Path) -> str:
    """A hash of the weights and configs of a saved model, a folder or one file. ModelError if it cannot be read."""
    try:
        if folder.is_file():
            return f"sha256 {_hash_of(folder)}"
        if not folder.is_dir():
            return f"name {folder}"
        files = [f for f in sorted(folder.rglob("*")) if f.is_file() and f.suffix in MODEL_FILES]
        return of_files(folder, files)
    except OSError as error:
        raise ModelError(f"--model {folder} cannot be read: {error.strerror or error}") from error


def of_data(data: str) -> str:
    """A hash of a file or of all files of a folder; for anything else, the name of a built-in set."""
    path = Path(data)
    try:
        if path.is_file():
            return f"sha256 {_hash_of(path)}"
        if path.is_dir():
            return of_files(path, [f for f in sorted(path.rglob("*")) if f.is_file()])
    except OSError as error:
        raise DataError(f"--data {data} cannot be read: {error.strerror or error}") from error
    return f"named {data}"


def of_files(folder: Path, files: Iterable[Path]) -> str:
    """One hash of the files' names within `folder` and of their contents."""
    files = list(files)
    with ThreadPoolExecutor(4) as pool:  # hashlib releases the interpreter's lock
        hashes = list(pool.map(_hash_of, files))
    lines = [
        f"{file.relative_to(folder).as_posix()} {digest}" for file, digest in zip(files, hashes, strict=True)
    ]
    return f"sha256 {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def _hash_of(file: Path) -> str:
    if file.suffix == ".json":
        return _hash_of_json(file)
    status = file.stat()
    if status.st_size < _WORTH_CACHING:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    # The change time cannot be set back, unlike the modification time.
    identity = f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    cache = Cache("content-hashes.json")
    known = cache.get(identity)
    if isinstance(known, str):
        return known
    began = time.time_ns()
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if began - status.st_ctime_ns > _CLOCK_STEP_NS:
        cache.put(identity, digest)
    return digest


def _hash_of_json(file: Path) -> str:
    content = file.read_bytes()
    try:
        document = json.loads(content)
    except ValueError:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha256(json.dumps(_without_labels(document), sort_keys=True).encode()).hexdigest()


def _without_labels(document: Any) -> Any:
    """The document without `_LABELS`, which configs of parts (a text and a vision model) have, too."""
    if isinstance(document, Mapping):
        return {name: _without_labels(value) for name, value in document.items() if name not in _LABELS}
    return document
