"""Options of the quantizers, as in `--set int4.quant_type=fp4`. Imports no torch, because `list-plugins` reads it."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import option


@frozen(kw_only=True)
class Int4Options:
    """Options of int4: 4-bit weights in the format of bitsandbytes."""

    quant_type: str = option(
        "nf4", "data type of the weights: 4-bit NormalFloat or 4-bit float", choices=("nf4", "fp4")
    )
    double_quant: bool = option(
        True, "quantize the scales of the blocks too, which saves 0.37 bits per weight (QLoRA, section 3)"
    )
    compute_dtype: str = option(
        "auto",
        "dtype of the matrix products; auto: bf16 for a checkpoint quantized while loading, else the weights' dtype",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
