"""Loads a pretrained transformers model from a Hub id or a local folder, with one of the auto classes.

The language modality calls `find`; other modalities call it with their own `Family`. Code in a checkpoint is never
executed (`trust_remote_code` is off).
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
from eflm_plugins.hosts.decoder import build_from_recipe
from eflm_plugins.modalities.saved import Saved, locate, reading
from eflm_plugins.quantizers.at_load import exclude_modules
from eflm_plugins.saving.transformers_config import needs_plugins, read_config
from eflm_plugins.saving.transformers_models import (
    build_saved,
    load_generation_config,
    load_pretrained,
)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


@frozen(kw_only=True)
class Family:
    """The kind of model that a modality supports, and how transformers creates one."""

    auto: Any  #: the auto class
    check: Callable[[Pretrained], None]  #: raises ModelError for a model of another kind
    what_works: str  #: what the user could give instead, as the end of a sentence
    #: builds a saved model with plugins before its weights are loaded; see `load_pretrained`
    build: Callable[..., nn.Module]


@frozen(kw_only=True)
class Pretrained:
    """A model that was found and whose config was read; its weights are not loaded yet."""

    family: Family
    saved: Saved
    config: Any
    has_plugins: bool = False  #: whether eflm saved it with techniques that need plugins

    @property
    def model(self) -> str:
        """The model as the user wrote it."""
        return self.saved.model

    @property
    def folder(self) -> Path:
        """The folder of its files; the weights of a Hub model are there only after `build`."""
        return self.saved.folder

    def build(
        self, *, from_scratch: bool, load_kwargs: Mapping[str, Any], host: Host | None = None
    ) -> nn.Module:
        """Load the model on the CPU in the dtype of its checkpoint, unless `load_kwargs` set another device or dtype.

        With `from_scratch`, only the architecture is used: the weights are float32 and drawn from torch's random state.
        If `load_kwargs` quantize the model, `host` selects the layers; without it transformers does. Raises ModelError
        if the model cannot be loaded or if the checkpoint lacks weights.
        """
        with reading(self.model, self.family.what_works):
            if from_scratch:
                return self._from_scratch()
            folder = self.saved.with_weights("")
            if self.has_plugins:
                return self._with_hub_name(load_pretrained(folder, build=self.family.build, **load_kwargs))
            if host is not None and "quantization_config" in load_kwargs:
                with torch.device("meta"):
                    outline = self._from_scratch()
                load_kwargs = exclude_modules(load_kwargs, outline, host.targets(outline))
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
                f" ({', '.join(missing[:3])}), which would stay random; {self.family.what_works}"
            )
        return self._with_hub_name(model)

    def outline(self) -> nn.Module:
        """Build the architecture as `build` does, but read no weights: their values are random.

        Call it under accelerate's `init_empty_weights(include_buffers=False)`, which allocates no weights either.
        """
        with reading(self.model, self.family.what_works):
            if self.has_plugins:
                return self._with_hub_name(build_saved(self.folder, build=self.family.build))
            config = copy.deepcopy(self.config)
            model = self.family.auto.from_config(config, dtype=config.dtype, trust_remote_code=False)
            load_generation_config(model, self.folder)
        return self._with_hub_name(model)

    def _with_hub_name(self, model: nn.Module) -> nn.Module:
        """Set the Hub name of a Hub model, because saved adapters record the name of their base model."""
        if self.saved.snapshot is not None:
            model.name_or_path = model.config.name_or_path = self.saved.name
        return model

    def _from_scratch(self) -> nn.Module:
        if self.has_plugins:
            raise ModelError(
                f"--model {self.model} was saved with its techniques and cannot be pretrained from scratch;"
                " use the original model and select the techniques again"
            )
        config = copy.deepcopy(self.config)
        return self.family.auto.from_config(config, dtype=torch.float32, trust_remote_code=False)

    def tokenizer(self) -> Any | None:
        """Return the model's own tokenizer, or None if it has none."""
        # Check the file names: without them, transformers creates an empty tokenizer from the config.
        if not any((self.folder / name).is_file() for name in _TOKENIZER_FILES):
            return None
        with reading(self.model, self.family.what_works):
            return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)

    def facts(self) -> dict[str, Any]:
        """Return what identifies the weights: the Hub commit, or a hash of the files in the folder."""
        return self.saved.facts("")


def find(model: str, family: Family | None = None) -> Pretrained:
    """Find the pretrained model `model`; `family` defaults to decoders.

    Raises ModelError with a message of one line if there is no such model, or if it does not belong to the family.
    """
    family = family or DECODERS
    saved = locate(model, family.what_works)
    if not (saved.folder / "config.json").is_file():
        raise ModelError(f"--model {model} contains no config.json; {family.what_works}")
    with reading(model, family.what_works):
        has_plugins = needs_plugins(saved.folder)
        config = (
            read_config(saved.folder)[0]
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
            f"--model {found.model} is an encoder-decoder ({config.model_type}), but the modality llm supports only"
            f" decoders; {found.family.what_works}"
        )
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"--model {found.model} ({config.model_type}) is not a decoder language model that AutoModelForCausalLM"
            f" can load; {found.family.what_works}"
        )
    expected = MODEL_FOR_CAUSAL_LM_MAPPING[kind]
    names = {c.__name__ for c in (expected if isinstance(expected, tuple | list) else (expected,))}
    saved = getattr(config, "architectures", None)
    if saved and not names & set(saved):
        raise ModelError(
            f"--model {found.model} contains a {', '.join(saved)}, not a decoder with a language-model head"
            f" ({', '.join(sorted(names))}); {found.family.what_works}"
        )


DECODERS = Family(
    auto=AutoModelForCausalLM,
    check=_check_decoder,
    what_works=(
        "use a preset (nano), a Hub id such as Qwen/Qwen2.5-0.5B, or a folder written by save_pretrained, or select "
        "the modality of the model with --modality"
    ),
    build=build_from_recipe,
)
