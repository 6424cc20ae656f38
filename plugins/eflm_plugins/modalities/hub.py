"""Downloads a model of the Hugging Face Hub at one commit into the cache of huggingface_hub. Called by `saved`.

Configs and tokenizers are downloaded when a model is looked up, weights only when they are loaded. Training from random
weights therefore downloads no weights, and a model that does not fit is refused before its download. Without a network
connection, or with HF_HUB_OFFLINE, only the cache is used.
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
#: Configs, vocabularies and templates, but no weights, code or pictures.
_DESCRIPTION = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
#: Weight files of transformers, diffusers and peft, and of eflm for a transformer with techniques. Repositories often
#: contain other large files: copies in other dtypes, weights for other frameworks, and the authors' original files.
_WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|adapter_model|model)(\.eflm)?(-\d+-of-\d+)?\.(safetensors|bin)"
)


@frozen(kw_only=True)
class HubRequest:
    """A request for a model of the Hub."""

    model: str  #: the model as the user wrote it
    what_works: str  #: what the user could give instead, as the end of a sentence
    name: str  #: name of the repository
    revision: str | None  #: a branch, a tag or a commit; None: the newest commit
    offline: bool  #: whether only the cache is used


@frozen(kw_only=True)
class Snapshot:
    """A repository at one commit; `folder` contains the files downloaded so far."""

    request: HubRequest
    folder: Path

    @property
    def name(self) -> str:
        """The name of the repository."""
        return self.request.name

    @property
    def commit(self) -> str:
        """The commit hash: 40 hex digits."""
        return self.folder.name

    def fetch_weights(self, parts: Iterable[str]) -> None:
        """Download the weights of the subfolders `parts` into `folder`; "" is the folder itself.

        Raises ModelError if there are no weights, or if the download fails.
        """
        request = self.request
        with _hub_errors(request):
            chosen = weights_among(self._files(), parts)
            if chosen and not request.offline:
                snapshot_download(request.name, revision=self.commit, allow_patterns=chosen)
        if not chosen:
            where = "the Hub's cache" if request.offline else "the repository"
            raise ModelError(
                f"--model {request.model}: {where} contains no weights that transformers or diffusers can load; "
                f"{request.what_works}"
            )

    def _files(self) -> list[str]:
        if self.request.offline:
            return [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")]
        return HfApi().list_repo_files(self.request.name, revision=self.commit)


def is_id(model: str) -> bool:
    """Return whether this could be a Hub id: NAME or ORGANISATION/NAME, optionally with @BRANCH, @TAG or @COMMIT."""
    return _ID.fullmatch(model) is not None


def find(model: str, what_works: str) -> Snapshot:
    """Look up the model with this id and download everything except its weights.

    `model` must satisfy `is_id`. Raises ModelError with a message of one line if the model is not available.
    """
    parts = _ID.fullmatch(model)
    assert parts is not None, "call is_id first"
    request = HubRequest(
        model=model,
        what_works=what_works,
        name=parts["name"],
        revision=parts["revision"],
        offline=not _is_reachable(),
    )
    with _hub_errors(request):
        folder = snapshot_download(
            request.name,
            revision=request.revision,
            allow_patterns=list(_DESCRIPTION),
            local_files_only=request.offline,
        )
    return Snapshot(request=request, folder=Path(folder))


def weights_among(files: Iterable[str], parts: Iterable[str]) -> list[str]:
    """Select the weight files of the subfolders `parts`; a folder with both formats gives its safetensors files."""
    found: dict[str, list[str]] = {part: [] for part in parts}
    for file in sorted(files):
        path = PurePosixPath(file)
        part = "" if path.parent == PurePosixPath() else str(path.parent)
        if part in found and _WEIGHTS.fullmatch(path.name):
            found[part].append(file)
    safe = {part: [file for file in held if file.endswith(".safetensors")] for part, held in found.items()}
    return [file for part, held in found.items() for file in safe[part] or held]


def _is_reachable() -> bool:
    """Send one quick request to the Hub, because without network its client retries for half a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:
        # Any failure (name resolution, proxy, certificate) means that the Hub cannot be reached.
        return False
    return True


@contextmanager
def _hub_errors(request: HubRequest) -> Iterator[None]:
    """Convert every exception of the Hub's client into a ModelError that says what would work."""
    try:
        yield
    except GatedRepoError as error:
        token = "the account of the current token has no access" if get_token() else "no token is set"
        raise ModelError(
            f"--model {request.model} is gated, and {token}; accept its licence at {constants.ENDPOINT}/{request.name} "
            "and set HF_TOKEN to a token of the same account"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"--model {request.model}: {request.name} has no branch, tag or commit {request.revision or 'main'}; "
            f"use --model {request.name} for its newest commit"
        ) from error
    except RepositoryNotFoundError as error:
        raise _unknown(request) from error
    except LocalEntryNotFoundError as error:
        if not request.offline:
            raise _download_failed(request, error) from error
        why = "is disabled by HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "cannot be reached"
        raise ModelError(
            f"--model {request.model} is neither a preset nor a folder here, the Hugging Face Hub {why}, and its cache "
            f"does not contain this model; {request.what_works}"
        ) from error
    except HfHubHTTPError as error:
        # Without access, private and missing repositories both give status 401. The client raises its specific errors
        # for https only.
        if error.response.status_code != 401:
            raise _download_failed(request, error) from error
        if "Invalid credentials" in error.response.headers.get("X-Error-Message", ""):
            raise ModelError(
                f"--model {request.model}: the Hub rejects the current token as invalid; set HF_TOKEN to a valid "
                "token, or unset it to use public models"
            ) from error
        raise _unknown(request) from error
    except Exception as error:  # connections, certificates and disks raise many different exceptions
        raise _download_failed(request, error) from error


def _unknown(request: HubRequest) -> ModelError:
    return ModelError(
        f"--model {request.model}: there is no such folder here and no such public model on the Hub; if the model is "
        f"private, set HF_TOKEN to a token with read access, otherwise {request.what_works}"
    )


def _download_failed(request: HubRequest, error: Exception) -> ModelError:
    return ModelError(
        f"--model {request.model} cannot be downloaded from the Hub: {first_line(error)}; {request.what_works}"
    )


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its class if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:; ")
