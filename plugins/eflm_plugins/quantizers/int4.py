"""4-bit weights by bitsandbytes, on CPU and CUDA alike. The card names `int4`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from eflm.errors import ModelError
from eflm.registry.contracts import Targets
from eflm_plugins.quantizers.options import Int4Options

#: Weights that share one scale: bitsandbytes' default.
BLOCK_SIZE = 64
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Int4:
    """Linear layers of the blocks in 4 bits; embeddings, head, norms and routers as they are (QLoRA, section 3)."""

    def __init__(self, options: Int4Options) -> None:
        self.options = options

    def load_kwargs(self, device: str) -> Mapping[str, Any]:
        """On CUDA transformers quantizes each weight as it is read; for the CPU there are no keywords.

        There, `apply` does it once the model is read: which layers must be left out (see `_fits`) depends on their
        shapes, and transformers can only be told names.
        """
        if torch.device(device).type == "cpu":
            return {}
        return {"quantization_config": self._config(torch.bfloat16), "device_map": {"": device}}

    def apply(self, model: nn.Module, targets: Targets, device: str) -> nn.Module:
        """Quantize the target layers of a built model in place, and move it to `device`.

        A model that is in 4 bits already keeps its weights. The model's `quantization_config` names the linear layers
        that stay as they are. Raises ModelError when all of them do, and when a CPU cannot read what was loaded.
        """
        bnb = _import_bitsandbytes()
        if not getattr(model, "is_loaded_in_4bit", False):
            self._quantize(model, targets, device)
        for name, module in model.named_modules():
            if not isinstance(module, bnb.nn.Linear4bit):
                continue
            # On CPUs with AVX512-BF16, evaluation would round the scales to bfloat16 and repack the weights:
            # they would no longer be those that were trained beside, and DoRA's norms would read them wrong.
            module.support_avx512bf16_for_cpu = False
            if device == "cpu" and not _fits(module.in_features):
                raise ModelError(
                    f"{name} was saved in 4 bits with {module.in_features} inputs, which bitsandbytes reads wrongly"
                    f" on a CPU (it takes multiples of {BLOCK_SIZE}); use --device cuda, or the model in full width"
                )
        return model

    def _quantize(self, model: nn.Module, targets: Targets, device: str) -> None:
        model.to(device)
        kinds = (nn.Linear, Conv1D)
        linears = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
        fitting = {name: linears[name] for name in targets.linears if _fits(_weight(linears[name]).shape[1])}
        if not fitting:
            raise ModelError(
                f"no linear layer inside the blocks of {type(model).__name__} could be quantized to 4 bits:"
                f" it takes inputs in multiples of {BLOCK_SIZE}; choose bf16"
            )
        compute_dtype = self._compute_dtype(next(iter(fitting.values())).weight.dtype)
        for name, linear in fitting.items():
            model.set_submodule(name, self._quantized(linear, compute_dtype, device))
        _announce(model, self._config(compute_dtype, [name for name in linears if name not in fitting]))

    def _quantized(self, linear: nn.Module, compute_dtype: torch.dtype, device: str) -> nn.Module:
        bnb = _import_bitsandbytes()
        weight = _weight(linear)
        with torch.device("meta"):
            layer = bnb.nn.Linear4bit(
                weight.shape[1],
                weight.shape[0],
                bias=linear.bias is not None,
                compute_dtype=compute_dtype,
                compress_statistics=self.options.double_quant,
                quant_type=self.options.quant_type,
            )
        layer.weight = bnb.nn.Params4bit(
            weight.contiguous(),
            requires_grad=False,
            blocksize=BLOCK_SIZE,
            compress_statistics=self.options.double_quant,
            quant_type=self.options.quant_type,
            module=layer,
        ).to(device)
        if linear.bias is not None:
            layer.bias = nn.Parameter(linear.bias.detach().to(device), requires_grad=False)
        return layer.train(linear.training)

    def _compute_dtype(self, weights: torch.dtype) -> torch.dtype:
        return _DTYPES.get(self.options.compute_dtype, weights)

    def _config(self, default: torch.dtype, left_out: list[str] | None = None) -> BitsAndBytesConfig:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.options.quant_type,
            bnb_4bit_use_double_quant=self.options.double_quant,
            bnb_4bit_compute_dtype=self._compute_dtype(default),
            llm_int8_skip_modules=left_out,
        )


def int4(options: Int4Options) -> Int4:
    """See `Int4`."""
    return Int4(options)


def _weight(linear: nn.Module) -> torch.Tensor:
    """(out, in). Conv1D, GPT-2's name for a linear layer, holds it the other way round."""
    return linear.weight.detach().T if isinstance(linear, Conv1D) else linear.weight.detach()


def _fits(in_features: int) -> bool:
    """Whether a row is made of whole blocks: bitsandbytes' CPU kernel reads every row as if it began with a block."""
    return in_features % BLOCK_SIZE == 0


def _announce(model: nn.Module, config: BitsAndBytesConfig) -> None:
    """Mark the model as transformers marks one loaded in 4 bits: peft, `save_pretrained` and `to` go by that."""
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    quantizer = Bnb4BitHfQuantizer(config, pre_quantized=False)
    model.hf_quantizer = quantizer
    model.is_quantized = True
    model.quantization_method = config.quant_method
    quantizer.postprocess_model(model)


def _import_bitsandbytes() -> Any:
    # It warns of a faster kernel that it could fetch from the network; that kernel is switched off here anyway.
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import bitsandbytes
    finally:
        logger.setLevel(level)
    return bitsandbytes
