"""Loads and saves diffusers' transformers, plain ones and ones whose config contains a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eflm.errors import ModelError
from eflm.registry.contracts import Host
from eflm_plugins.quantizers.at_load import exclude_modules
from eflm_plugins.saving.adapters import base_model_of, has_adapter, is_adapted, save_adapter
from eflm_plugins.saving.diffusers_config import KEY, PREFIX, needs_plugins, read_config
from eflm_plugins.saving.techniques import load_weights, restore_techniques


def load_transformer(folder: str | Path, host: Host, **load_kwargs: Any) -> nn.Module:
    """Load the transformer that `save_transformer` or `save_pretrained` wrote to `folder`.

    A transformer without techniques is loaded by diffusers, otherwise `host` inserts them. A saved adapter is loaded
    too. Raises ModelError for a folder without a transformer, and if a plugin that the transformer needs is not
    installed.
    """
    folder = Path(folder)
    keywords = _for_diffusers(load_kwargs)
    if needs_plugins(folder):
        model = build_transformer(folder, host)
        load_weights(model, folder)
        if "torch_dtype" in keywords:
            model.to(keywords["torch_dtype"])
        model.eval()
    else:
        if "quantization_config" in load_kwargs:
            with torch.device("meta"):
                outline = build_transformer(folder, host)
            keywords = _for_diffusers(exclude_modules(load_kwargs, outline, host.targets(outline)))
        elif read_config(folder).get("quantization_config") and not torch.accelerator.is_available():
            raise ModelError(
                f"{folder} was saved quantized, which diffusers loads on GPUs only; use the model in full precision, "
                "which --quant int4 can quantize on a CPU"
            )
        model = _class_of(folder).from_pretrained(folder, **keywords)
    if has_adapter(folder):
        from peft import PeftModel

        PeftModel.from_pretrained(model, str(folder))  # inserts the adapter's layers into `model`
    return model


def build_transformer(folder: Path, host: Host) -> nn.Module:
    """Build a saved transformer with random weights and its techniques."""
    config = read_config(folder)
    recipe = config.pop(KEY, None)
    base = _class_of(folder)
    model: nn.Module = base.from_config({k: v for k, v in config.items() if not k.startswith("_")})
    if recipe is not None:
        restore_techniques(host, model, recipe)
    return model


def save_transformer(model: nn.Module, folder: str | Path) -> None:
    """Write a transformer such that `from_pretrained` of its class loads it, with its adapter merged if possible."""
    with _without_adapter(model) as plain:
        plain.save_pretrained(folder)
    if _keeps_adapter(model):
        save_adapter(model, Path(folder))


def save_pipeline(pipeline: Any, model: nn.Module, folder: str | Path) -> None:
    """Write a whole pipeline: `pipeline`, which has no transformer, with `model` as its transformer.

    diffusers loads the folder, unless the transformer has techniques; its class name then says that it needs eflm. See
    `save_transformer` for adapters.
    """
    with _without_adapter(model) as plain:
        pipeline.register_modules(transformer=plain)
        try:
            pipeline.save_pretrained(folder)
        finally:
            pipeline.register_modules(transformer=None)
    if _keeps_adapter(model):
        save_adapter(model, Path(folder) / "transformer")


@contextmanager
def _without_adapter(model: nn.Module) -> Iterator[nn.Module]:
    """The transformer as diffusers saves it: its adapter is merged while the context is open, except into 4 bits.

    diffusers' pipelines load no adapter by themselves. Merging into 4-bit weights would round them again.
    """
    merges = is_adapted(model) and not _keeps_adapter(model)
    if merges:
        model.merge_adapter()
    try:
        with base_model_of(model) as base, _quantizer_of_diffusers(base):
            yield base
    finally:
        if merges:
            model.unmerge_adapter()


@contextmanager
def _quantizer_of_diffusers(model: nn.Module) -> Iterator[None]:
    """Give a 4-bit model the quantizer without which diffusers does not save it.

    A model that was quantized in memory has the one of transformers; see `eflm_plugins.quantizers.int4`.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None or type(quantizer).__module__.startswith("diffusers."):
        yield
        return
    from diffusers.quantizers.bitsandbytes import BnB4BitDiffusersQuantizer

    config = _for_diffusers({"quantization_config": quantizer.quantization_config})["quantization_config"]
    model.register_to_config(quantization_config=config)
    model.hf_quantizer = BnB4BitDiffusersQuantizer(config, pre_quantized=False)
    try:
        yield
    finally:
        model.hf_quantizer = quantizer


def _keeps_adapter(model: nn.Module) -> bool:
    return is_adapted(model) and getattr(model.get_base_model(), "is_loaded_in_4bit", False)


def _class_of(folder: Path) -> Any:
    import diffusers  # an extra that the text modality does not need

    name = str(read_config(folder).get("_class_name", ""))
    found = getattr(diffusers, name.removeprefix(PREFIX), None)
    if found is None:
        raise ModelError(
            f"{folder} contains no transformer of diffusers: its config.json names the class {name!r}"
        )
    return found


def _for_diffusers(load_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a quantizer's keywords from transformers' to diffusers' names.

    Layers that are not quantized get the compute dtype; diffusers' default for them is float16.
    """
    keywords = dict(load_kwargs)
    if "dtype" in keywords:
        keywords["torch_dtype"] = keywords.pop("dtype")
    if (config := keywords.get("quantization_config")) is not None:
        import diffusers

        kept = ("bnb_4bit", "llm_int8_skip_modules")
        known = {key: value for key, value in vars(config).items() if key.startswith(kept)}
        keywords["quantization_config"] = diffusers.BitsAndBytesConfig(load_in_4bit=True, **known)
        keywords.setdefault("torch_dtype", config.bnb_4bit_compute_dtype)
    return keywords
