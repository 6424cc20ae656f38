"""4-bit weights with bitsandbytes, on CPU and CUDA. Implements the card `int4`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from eflm.errors import ModelError
from eflm.registry.contracts import Targets
from eflm_plugins.quantizers.options import Int4Options

#: Number of weights that share one scale; the default of bitsandbytes.
BLOCK_SIZE = 64
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Int4:
    """Store the linear layers of the blocks in 4 bits (QLoRA, section 3).

    Embeddings, head, norms and routers keep their dtype.
    """

    def __init__(self, options: Int4Options) -> None:
        self.options = options

    def load_kwargs(self, device: str) -> Mapping[str, Any]:
        """Return the arguments that make transformers quantize weights while loading; empty on CPU.

        On CPU, `apply` quantizes the loaded model instead. Some layers must be skipped there because of their shapes
        (see `_fits`), and transformers can skip layers by name only.
        """
        if torch.device(device).type == "cpu":
            return {}
        return {"quantization_config": self._config(torch.bfloat16), "device_map": {"": device}}

    def apply(self, model: nn.Module, targets: Targets, device: str) -> nn.Module:
        """Quantize the target layers of a built model in place and move the model to `device`.

        A model that is already in 4 bits keeps its weights. The skipped linear layers are listed in the model's
        `quantization_config`. Raises ModelError if no layer can be quantized, or if a loaded 4-bit layer has a shape
        that bitsandbytes does not support on CPU.
        """
        bnb = _import_bitsandbytes()
        if not getattr(model, "is_loaded_in_4bit", False):
            self._quantize(model, targets, device)
        for name, module in model.named_modules():
            if not isinstance(module, bnb.nn.Linear4bit):
                continue
            # On CPUs with AVX512-BF16, bitsandbytes repacks the weights in eval mode and rounds their scales to
            # bfloat16. The adapter was trained with the original weights, and DoRA's norms misread the repacked ones.
            module.support_avx512bf16_for_cpu = False
            if device == "cpu" and not _fits(module.in_features):
                raise ModelError(
                    f"{name} was saved in 4 bits and has {module.in_features} inputs, but on CPU bitsandbytes supports"
                    f" only multiples of {BLOCK_SIZE}; use --device cuda, or the unquantized model"
                )
        return model

    def restore(
        self, model: nn.Module, targets: Targets, tensors: MutableMapping[str, torch.Tensor], device: str
    ) -> nn.Module:
        """Put 4-bit layers with the packed weights of `tensors` into an outline; see `RestoresPacked`."""
        bnb = _import_bitsandbytes()
        kinds = (nn.Linear, Conv1D)
        linears = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
        packed = [
            name for name in linears if any(key.startswith(f"{name}.weight.quant_state.") for key in tensors)
        ]
        compute_dtype = torch.float32
        for name in packed:
            prefix = f"{name}.weight."
            data = tensors.pop(f"{name}.weight")
            statistics = {
                key[len(prefix) :]: tensors.pop(key) for key in list(tensors) if key.startswith(prefix)
            }
            state = bnb.functional.QuantState.from_dict(dict(statistics), device="cpu")
            compute_dtype = self._compute_dtype(state.dtype)
            layer = self._empty_layer(linears[name], compute_dtype)
            layer.weight = bnb.nn.Params4bit.from_prequantized(data, statistics, device=device, module=layer)
            layer.support_avx512bf16_for_cpu = False  # see `apply`
            model.set_submodule(name, layer)
        skipped = [name for name in linears if name not in packed]
        _mark_as_quantized(model, self._config(compute_dtype, skipped))
        return model

    def _quantize(self, model: nn.Module, targets: Targets, device: str) -> None:
        model.to(device)
        kinds = (nn.Linear, Conv1D)
        linears = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
        fitting = {name: linears[name] for name in targets.linears if _fits(_weight(linears[name]).shape[1])}
        if not fitting:
            raise ModelError(
                f"no linear layer in the blocks of {type(model).__name__} can be quantized to 4 bits:"
                f" the number of inputs must be a multiple of {BLOCK_SIZE}; choose bf16"
            )
        compute_dtype = self._compute_dtype(next(iter(fitting.values())).weight.dtype)
        for name, linear in fitting.items():
            model.set_submodule(name, self._quantized(linear, compute_dtype, device))
        _mark_as_quantized(
            model, self._config(compute_dtype, [name for name in linears if name not in fitting])
        )

    def _quantized(self, linear: nn.Module, compute_dtype: torch.dtype, device: str) -> nn.Module:
        bnb = _import_bitsandbytes()
        weight = _weight(linear)
        layer = self._empty_layer(linear, compute_dtype)
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

    def _empty_layer(self, linear: nn.Module, compute_dtype: torch.dtype) -> nn.Module:
        bnb = _import_bitsandbytes()
        outputs, inputs = _weight(linear).shape
        with torch.device("meta"):
            return bnb.nn.Linear4bit(
                inputs,
                outputs,
                bias=linear.bias is not None,
                compute_dtype=compute_dtype,
                compress_statistics=self.options.double_quant,
                quant_type=self.options.quant_type,
            )

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
    """Create `Int4`."""
    return Int4(options)


def _weight(linear: nn.Module) -> torch.Tensor:
    """Return the weight as (out, in). `Conv1D`, GPT-2's linear layer, stores it transposed."""
    return linear.weight.detach().T if isinstance(linear, Conv1D) else linear.weight.detach()


def _fits(in_features: int) -> bool:
    """Whether a weight row consists of whole blocks; the CPU kernel assumes that every row starts a new block."""
    return in_features % BLOCK_SIZE == 0


def _mark_as_quantized(model: nn.Module, config: BitsAndBytesConfig) -> None:
    """Set the attributes of a model that transformers loaded in 4 bits; peft, `save_pretrained` and `to` read them."""
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    quantizer = Bnb4BitHfQuantizer(config, pre_quantized=False)
    model.hf_quantizer = quantizer
    model.is_quantized = True
    model.quantization_method = config.quant_method
    quantizer.postprocess_model(model)


def _import_bitsandbytes() -> Any:
    # On import, bitsandbytes warns about a faster kernel that it could download. `Int4.apply` disables that kernel.
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import bitsandbytes
    finally:
        logger.setLevel(level)
    return bitsandbytes
