"""What a stage left to be looked at, as part of the page: pictures and clips to see, other files to take away."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from eflm.cli.render import composition
from eflm_schemas import RunResult

#: How files of pictures begin. What a file is called decides nothing.
BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"\xff\xd8\xff": "image/jpeg",
}
#: A larger file stays where it is: the page would be too large to open.
LARGEST = 32_000_000


@frozen(kw_only=True)
class Exhibit:
    """One file. `uri` holds its content, or is None and `trouble` says why."""

    name: str
    picture: bool = False
    uri: str | None = None
    caption: str
    alternative: str
    trouble: str = ""


def exhibits(run: RunResult, stage: str, folders: Sequence[Path]) -> tuple[Exhibit, ...]:
    """The files of a stage, looked for in each of `folders` in turn."""
    return tuple(_exhibit(run, stage, name, folders) for name in run.stages[stage].artifacts)


def _exhibit(run: RunResult, stage: str, name: str, folders: Sequence[Path]) -> Exhibit:
    short = name.partition(f".{stage}.")[2] or name
    described = run.facts.get("artifacts")
    told = described.get(short) if isinstance(described, Mapping) else None
    shows = told if isinstance(told, str) else short
    by = f"{run.spec.model}, {composition(run.spec.techniques)}"
    caption, alternative = f"After {stage}: {shows}", f"What {by}, gives after {stage}: {shows}"
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
    # A document may come from anyone, and the page go to anyone: it must not carry other files of this machine along.
    if Path(name).name != name:
        return None, "the result names a path here, and only files beside it are shown"
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        return None, f"the file is not in {' or '.join(map(str, folders))}"
    try:
        size = path.stat().st_size
        if size > LARGEST:
            return None, f"{size / 1e6:,.0f} MB are too large for this page; the file is {path}"
        return path.read_bytes(), ""
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror or error}"


def _kind(content: bytes) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in BEGINNINGS.items() if content.startswith(start)), None)
