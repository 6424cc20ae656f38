"""A model of the Hugging Face Hub at one commit, in the cache that the Hub's own client keeps. `saved` calls it.

What describes a model is fetched when it is looked up, weights when they are to be read: a shape that is trained from
random weights needs none, and what cannot fit is refused before it is waited for. Without network, or with
HF_HUB_OFFLINE, the cache alone is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from attrs import frozen
from huggingface_hub import HfApi, constants, get_session, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from eflm.errors import ModelError

_NAME = r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?"
_ID = re.compile(rf"(?P<name>{_NAME})(?:@(?P<revision>[^\s@]+))?")
#: Configs, vocabularies and templates: all that a model has beside its weights, its code and its pictures.
_DESCRIPTION = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
#: What transformers and diffusers call weights, and eflm those of a transformer with techniques in it. Beside them lie
#: narrower copies, other frameworks' and authors' own files, often as large again.
_WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|model)(\.eflm)?(-\d+-of-\d+)?\.(safetensors|bin)"
)


@frozen(kw_only=True)
class Asked:
    """What was asked of the Hub, and whether it is there to be asked."""

    model: str  #: as the user wrote it
    what_works: str  #: what a user could give instead, as the end of a sentence
    name: str  #: of the repository
    revision: str | None  #: a branch, a tag or a commit; None: what is newest
    offline: bool


@frozen(kw_only=True)
class Snapshot:
    """A repository at one commit, of which `folder` holds what was fetched so far."""

    asked: Asked
    folder: Path

    @property
    def name(self) -> str:
        """Of the repository."""
        return self.asked.name

    @property
    def commit(self) -> str:
        """Forty hex digits."""
        return self.folder.name

    def fetch_weights(self, parts: Iterable[str]) -> None:
        """Have the weights of these subfolders in `folder` ("": its own). ModelError where there are none."""
        asked = self.asked
        with _sentences(asked):
            chosen = weights_among(self._files(), parts)
            if chosen and not asked.offline:
                snapshot_download(asked.name, revision=self.commit, allow_patterns=chosen)
        if not chosen:
            where = "the Hub's cache" if asked.offline else "the repository"
            raise ModelError(
                f"--model {asked.model}: {where} holds no weights that transformers or diffusers would read; "
                f"{asked.what_works}"
            )

    def _files(self) -> list[str]:
        if self.asked.offline:
            return [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")]
        return HfApi().list_repo_files(self.asked.name, revision=self.commit)


def is_id(model: str) -> bool:
    """Whether this could be a Hub id: NAME or ORGANISATION/NAME, with @ and a branch, a tag or a commit if need be."""
    return _ID.fullmatch(model) is not None


def find(model: str, what_works: str) -> Snapshot:
    """The model of that id, without its weights. ModelError in one sentence where it cannot be had."""
    parts = _ID.fullmatch(model)
    assert parts is not None, "ask is_id first"
    asked = Asked(
        model=model,
        what_works=what_works,
        name=parts["name"],
        revision=parts["revision"],
        offline=not _answers(),
    )
    with _sentences(asked):
        folder = snapshot_download(
            asked.name,
            revision=asked.revision,
            allow_patterns=list(_DESCRIPTION),
            local_files_only=asked.offline,
        )
    return Snapshot(asked=asked, folder=Path(folder))


def weights_among(files: Iterable[str], parts: Iterable[str]) -> list[str]:
    """Those files that hold the weights of the subfolders `parts`; of a folder with two formats, safetensors."""
    found: dict[str, list[str]] = {part: [] for part in parts}
    for file in sorted(files):
        path = PurePosixPath(file)
        part = "" if path.parent == PurePosixPath() else str(path.parent)
        if part in found and _WEIGHTS.fullmatch(path.name):
            found[part].append(file)
    safe = {part: [file for file in held if file.endswith(".safetensors")] for part, held in found.items()}
    return [file for part, held in found.items() for file in safe[part] or held]


def _answers() -> bool:
    """One quick question to the Hub, since its client keeps trying for half a minute when there is no network."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:
        # Whatever stands in the way (no name server, a proxy, a certificate), the Hub cannot be asked.
        return False
    return True


@contextmanager
def _sentences(asked: Asked) -> Iterator[None]:
    """Whatever the Hub's client raises, as one ModelError that says what would work."""
    try:
        yield
    except GatedRepoError as error:
        token = "the account of the token that is set has no access" if get_token() else "no token is set"
        raise ModelError(
            f"--model {asked.model} is gated, and {token}; accept its licence at {constants.ENDPOINT}/{asked.name}, "
            "and set HF_TOKEN to a token of the account that did"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"--model {asked.model}: {asked.name} has no such branch, tag or commit; leave the @ out for its newest"
        ) from error
    except RepositoryNotFoundError as error:
        raise _unknown(asked) from error
    except LocalEntryNotFoundError as error:
        if not asked.offline:
            raise _unforeseen(asked, error) from error
        why = "is not to be asked (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "cannot be reached"
        raise ModelError(
            f"--model {asked.model} is neither a preset nor a folder here, the Hugging Face Hub {why}, and its cache "
            f"does not hold such a model; {asked.what_works}"
        ) from error
    except HfHubHTTPError as error:
        # What is private and what there is not are 401 alike to strangers; its client tells them by https only.
        if error.response.status_code != 401:
            raise _unforeseen(asked, error) from error
        if "Invalid credentials" in error.response.headers.get("X-Error-Message", ""):
            raise ModelError(
                f"--model {asked.model}: the Hub does not know the token that is set; set HF_TOKEN to a valid one, or "
                "leave it out for models that are for all to see"
            ) from error
        raise _unknown(asked) from error
    except Exception as error:  # of connections, certificates and disks, each with errors of their own
        raise _unforeseen(asked, error) from error


def _unknown(asked: Asked) -> ModelError:
    return ModelError(
        f"--model {asked.model}: there is no such folder here, and no such model on the Hub for all to see; if it is "
        f"private, set HF_TOKEN to a token that may read it, otherwise {asked.what_works}"
    )


def _unforeseen(asked: Asked, error: Exception) -> ModelError:
    return ModelError(
        f"--model {asked.model} cannot be fetched from the Hub: {first_line(error)}; {asked.what_works}"
    )


def first_line(error: Exception) -> str:
    """What an error says, without what follows its first sentence's line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:; ")
