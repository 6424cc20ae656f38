"""A pretrained model of transformers: a Hub id or a local folder that one of its auto classes loads.

The language modality calls `find`, and so do others with a `Family` of their own. Nothing of a checkpoint's own code is
ever run (`trust_remote_code` is off).
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from eflm.errors import EflmError, ModelError
from eflm_plugins.hosts.recipe import base_config, build_anew, load_pretrained, needs_plugins

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
#: Weights up to this size are hashed whole; of larger ones the headers, names and sizes.
_HASHED_WHOLE = 1 << 30


@frozen(kw_only=True)
class Family:
    """What kind of model a modality takes, and how transformers makes one."""

    auto: Any  #: the auto class
    check: Callable[[Pretrained], None]  #: ModelError for a model of another kind
    what_works: str  #: what a user could give instead, as the end of a sentence
    #: a saved model with plugins before its weights are read; see `load_pretrained`
    build: Callable[..., nn.Module]


@frozen(kw_only=True)
class Pretrained:
    """A model that was found and whose config could be read; its weights are not loaded yet."""

    family: Family
    model: str  #: as the user wrote it
    source: str  #: what transformers is given: the id, or the folder's path
    folder: Path | None  #: None for a Hub id
    config: Any
    offline: bool = False  #: the Hub cannot be reached, so only its cache is asked
    has_plugins: bool = False  #: eflm saved it, with techniques that need their plugins

    def build(self, *, from_scratch: bool, load_kwargs: Mapping[str, Any]) -> nn.Module:
        """The model on the CPU (or where `load_kwargs` puts it), in its checkpoint's dtype unless they say otherwise.

        From scratch it has the architecture only, with weights from torch's random state, in float32.
        """
        with _sentences(self.model, self.family):
            if from_scratch:
                return self._from_scratch()
            if self.has_plugins:
                return load_pretrained(self.source, build=self.family.build, **load_kwargs)
            model, report = self.family.auto.from_pretrained(
                self.source,
                config=copy.deepcopy(self.config),
                local_files_only=self.offline,
                trust_remote_code=False,
                output_loading_info=True,
                **load_kwargs,
            )
        missing = sorted(report["missing_keys"])
        if missing:
            raise ModelError(
                f"--model {self.model}: the checkpoint lacks {len(missing)} of the model's weights"
                f" ({', '.join(missing[:3])}), which would be left at random; {self.family.what_works}"
            )
        return model

    def _from_scratch(self) -> nn.Module:
        if self.has_plugins:
            raise ModelError(
                f"--model {self.model} was saved with its techniques in place and cannot be pretrained anew;"
                " name the model it came from and choose the techniques again"
            )
        config = copy.deepcopy(self.config)
        return self.family.auto.from_config(config, dtype=torch.float32, trust_remote_code=False)

    def tokenizer(self) -> Any | None:
        """The model's own tokenizer, or None when the folder brings none."""
        # Asked by file name: transformers would make an empty tokenizer of the right class from the config alone.
        if self.folder is not None and not any((self.folder / name).is_file() for name in _TOKENIZER_FILES):
            return None
        with _sentences(self.model, self.family):
            return AutoTokenizer.from_pretrained(
                self.source, local_files_only=self.offline, trust_remote_code=False
            )

    def facts(self) -> dict[str, Any]:
        """Which weights these are: the Hub's commit, or a hash of the folder's files."""
        if self.folder is None:
            return {"model_revision": getattr(self.config, "_commit_hash", None)}
        files = sorted(file for pattern in ("*.safetensors", "*.bin") for file in self.folder.glob(pattern))
        whole = sum(file.stat().st_size for file in files) <= _HASHED_WHOLE
        digest = hashlib.sha256((self.folder / "config.json").read_bytes())
        for file in files:
            digest.update(f"\0{file.name} {file.stat().st_size}\0".encode())
            _hash_into(digest, file, whole)
        return {
            "model_sha256": digest.hexdigest(),
            "model_sha256_of": "all files" if whole else "headers and sizes",
        }


def find(model: str, family: Family | None = None) -> Pretrained:
    """The pretrained model that `model` names, a decoder unless told otherwise.

    ModelError in one sentence when there is none, or none of the family.
    """
    family, path = family or DECODERS, Path(model).expanduser()
    if path.is_dir():
        found = _in_folder(model, path, family)
    elif path.exists():
        raise ModelError(f"--model {model} is a file; {family.what_works}")
    elif not _HUB_ID.fullmatch(model) or model.startswith("."):
        raise ModelError(f"--model {model}: there is no such folder; {family.what_works}")
    else:
        found = _on_the_hub(model, family)
    family.check(found)
    return found


def _in_folder(model: str, path: Path, family: Family) -> Pretrained:
    if not (path / "config.json").is_file():
        raise ModelError(f"--model {model}: the folder holds no config.json; {family.what_works}")
    with _sentences(model, family):
        saved = needs_plugins(path)
        config = base_config(path)[0] if saved else AutoConfig.from_pretrained(path, trust_remote_code=False)
    return Pretrained(
        family=family, model=model, source=str(path), folder=path, config=config, has_plugins=saved
    )


def _on_the_hub(model: str, family: Family) -> Pretrained:
    offline = not _hub_answers()
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=offline, trust_remote_code=False)
    except Exception as error:
        if offline:
            raise ModelError(
                f"--model {model} is neither a preset nor a folder here, the Hugging Face Hub cannot be reached,"
                f" and its cache has no such model; {family.what_works}"
            ) from error
        raise ModelError(
            f"--model {model} cannot be loaded from the Hub: {_first_line(error)}; {family.what_works}"
        ) from error
    return Pretrained(family=family, model=model, source=model, folder=None, config=config, offline=offline)


def _hub_answers() -> bool:
    """One quick question to the Hub, since its client keeps trying for half a minute when there is no network."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:
        # Whatever stands in the way (no name server, a proxy, a certificate), the Hub cannot be asked.
        return False
    return True


def _check_decoder(found: Pretrained) -> None:
    config, kind = found.config, type(found.config)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"--model {found.model} is an encoder-decoder ({config.model_type}); the modality llm takes decoders only:"
            f" {found.family.what_works}"
        )
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"--model {found.model} ({config.model_type}) is not a decoder language model that AutoModelForCausalLM"
            f" loads; {found.family.what_works}"
        )
    expected = MODEL_FOR_CAUSAL_LM_MAPPING[kind]
    names = {c.__name__ for c in (expected if isinstance(expected, tuple | list) else (expected,))}
    saved = getattr(config, "architectures", None)
    if saved and not names & set(saved):
        raise ModelError(
            f"--model {found.model} holds a {', '.join(saved)}, not a decoder with a language-model head"
            f" ({', '.join(sorted(names))}); {found.family.what_works}"
        )


DECODERS = Family(
    auto=AutoModelForCausalLM,
    check=_check_decoder,
    what_works=(
        "give a preset (nano), a Hub id such as Qwen/Qwen2.5-0.5B, or a folder that save_pretrained wrote, or name "
        "the modality that the model belongs to with --modality"
    ),
    build=build_anew,
)


@contextmanager
def _sentences(model: str, family: Family) -> Iterator[None]:
    """Whatever transformers and its file formats raise for a checkpoint they cannot read, as one ModelError."""
    try:
        yield
    except (EflmError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # configs, tokenizers and weights each have errors of their own
        raise ModelError(
            f"--model {model} cannot be loaded: {_first_line(error)}; {family.what_works}"
        ) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".:; ")


def _hash_into(digest: Any, file: Path, whole: bool) -> None:
    with file.open("rb") as stream:
        if whole:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        elif file.suffix == ".safetensors":
            # The format opens with the header's length: 8 bytes, little-endian.
            digest.update(stream.read(int.from_bytes(stream.read(8), "little")))
