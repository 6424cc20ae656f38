"""The options of the quantizers, as `--set int4.quant_type=fp4` takes them. Torch-free: the listing reads them."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import option


@frozen(kw_only=True)
class Int4Options:
    """4-bit weights as bitsandbytes stores them."""

    quant_type: str = option(
        "nf4", "data type of a weight: normal float or float of 4 bits", choices=("nf4", "fp4")
    )
    double_quant: bool = option(
        True, "quantize the blocks' scales too: 0.37 bits a weight less (QLoRA, section 3)"
    )
    compute_dtype: str = option(
        "auto",
        "what products are computed in; auto is bf16 for a checkpoint and the weights' own type for a built model",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
