"""The artifacts of a stage as part of the page: pictures and clips are shown, other files can be downloaded."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from eflm.formatting.headings import composition
from eflm_schemas import RunResult

#: The first bytes of picture files, and their types. The file name is not used.
BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"\xff\xd8\xff": "image/jpeg",
}
#: Larger files are not included, in bytes; the page would be too large to open.
LARGEST = 32_000_000


@frozen(kw_only=True)
class Exhibit:
    """One file. `uri` contains it as a data URI; if it is None, `trouble` says why."""

    name: str
    picture: bool = False
    uri: str | None = None
    caption: str
    alternative: str
    trouble: str = ""


def exhibits(run: RunResult, stage: str, folders: Sequence[Path]) -> tuple[Exhibit, ...]:
    """Return the files of a stage. Each is read from the first of `folders` that has it."""
    return tuple(_exhibit(run, stage, name, folders) for name in run.stages[stage].artifacts)


def _exhibit(run: RunResult, stage: str, name: str, folders: Sequence[Path]) -> Exhibit:
    short = name.partition(f".{stage}.")[2] or name
    described = run.facts.get("artifacts")
    description = described.get(short) if isinstance(described, Mapping) else None
    shows = description if isinstance(description, str) else short
    model = f"{run.spec.model}, {composition(run.spec.techniques)}"
    caption, alternative = f"After {stage}: {shows}", f"Output of {model}, after {stage}: {shows}"
    content, trouble = _content(name, folders)
    if content is None:
        return Exhibit(name=name, caption=caption, alternative=alternative, trouble=trouble)
    kind = _kind(content)
    return Exhibit(
        name=name,
        picture=kind is not None,
        uri=f"data:{kind or 'application/octet-stream'};base64,{b64encode(content).decode()}",
        caption=caption,
        alternative=alternative,
    )


def _content(name: str, folders: Sequence[Path]) -> tuple[bytes | None, str]:
    # A document from someone else must not make the page include other files of this machine.
    if Path(name).name != name:
        return None, "the result names a path, and only files in its own folder are shown"
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        return None, f"the file is not in {' or '.join(map(str, folders))}"
    try:
        size = path.stat().st_size
        if size > LARGEST:
            return None, f"the file is too large for a page ({size / 1e6:,.0f} MB): {path}"
        return path.read_bytes(), ""
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror or error}"


def _kind(content: bytes) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in BEGINNINGS.items() if content.startswith(start)), None)
