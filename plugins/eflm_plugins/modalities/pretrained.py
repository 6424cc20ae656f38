"""A pretrained model of transformers: a Hub id or a local folder that one of its auto classes loads.

The language modality calls `find`, and so do others with a `Family` of their own. Nothing of a checkpoint's own code is
ever run (`trust_remote_code` is off).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from eflm.errors import ModelError
from eflm.registry.contracts import Host
from eflm_plugins.hosts.recipe import base_config, build_anew, load_pretrained, needs_plugins
from eflm_plugins.modalities.saved import Saved, locate, reading
from eflm_plugins.quantizers.at_load import leave_out

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


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
    saved: Saved
    config: Any
    has_plugins: bool = False  #: eflm saved it, with techniques that need their plugins

    @property
    def model(self) -> str:
        """As the user wrote it."""
        return self.saved.model

    @property
    def folder(self) -> Path:
        """Where its files are; the weights of one of the Hub only once it was built."""
        return self.saved.folder

    def build(
        self, *, from_scratch: bool, load_kwargs: Mapping[str, Any], host: Host | None = None
    ) -> nn.Module:
        """The model on the CPU (or where `load_kwargs` puts it), in its checkpoint's dtype unless they say otherwise.

        From scratch it has the architecture only, with weights from torch's random state, in float32. `host` says which
        layers are quantized where `load_kwargs` do so; without it transformers decides.
        """
        with reading(self.model, self.family.what_works):
            if from_scratch:
                return self._from_scratch()
            folder = self.saved.with_weights("")
            if self.has_plugins:
                return self._named(load_pretrained(folder, build=self.family.build, **load_kwargs))
            if host is not None and "quantization_config" in load_kwargs:
                with torch.device("meta"):
                    outline = self._from_scratch()
                load_kwargs = leave_out(load_kwargs, outline, host.targets(outline))
            model, report = self.family.auto.from_pretrained(
                folder,
                config=copy.deepcopy(self.config),
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
        return self._named(model)

    def _named(self, model: nn.Module) -> nn.Module:
        """A model of the Hub goes by its name there, which is what a saved adapter says of its base."""
        if self.saved.snapshot is not None:
            model.name_or_path = model.config.name_or_path = self.saved.name
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
        """The model's own tokenizer, or None when it brings none."""
        # Asked by file name: transformers would make an empty tokenizer of the right class from the config alone.
        if not any((self.folder / name).is_file() for name in _TOKENIZER_FILES):
            return None
        with reading(self.model, self.family.what_works):
            return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)

    def facts(self) -> dict[str, Any]:
        """Which weights these are: the Hub's commit, or a hash of the folder's files."""
        return self.saved.facts("")


def find(model: str, family: Family | None = None) -> Pretrained:
    """The pretrained model that `model` names, a decoder unless told otherwise.

    ModelError in one sentence when there is none, or none of the family.
    """
    family = family or DECODERS
    saved = locate(model, family.what_works)
    if not (saved.folder / "config.json").is_file():
        raise ModelError(f"--model {model} holds no config.json; {family.what_works}")
    with reading(model, family.what_works):
        has_plugins = needs_plugins(saved.folder)
        config = (
            base_config(saved.folder)[0]
            if has_plugins
            else AutoConfig.from_pretrained(saved.folder, trust_remote_code=False)
        )
    found = Pretrained(family=family, saved=saved, config=config, has_plugins=has_plugins)
    family.check(found)
    return found


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
