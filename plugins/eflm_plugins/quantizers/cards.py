"""The cards of the quantizers. The registry reads this file; it imports no implementation."""

from __future__ import annotations

from eflm_schemas import QuantizerCard, Ref

QUANTIZERS = (
    QuantizerCard(
        name="fp32",
        summary="weights in IEEE single precision",
        source="IEEE 754-2019, binary32",
        factory=Ref("eflm_plugins.quantizers.floating:fp32"),
        requires=("torch", "transformers"),
        extra="llm",
        at_load=("cpu", "cuda"),
        bits=32,
    ),
    QuantizerCard(
        name="bf16",
        summary="weights in bfloat16: the range of float32 with 8 bits of precision",
        source="Kalamkar et al. 2019, A Study of BFLOAT16 for Deep Learning Training, arXiv:1905.12322",
        factory=Ref("eflm_plugins.quantizers.floating:bf16"),
        requires=("torch", "transformers"),
        extra="llm",
        at_load=("cpu", "cuda"),
        bits=16,
    ),
    QuantizerCard(
        name="fp16",
        summary="weights in IEEE half precision",
        source="IEEE 754-2019, binary16",
        factory=Ref("eflm_plugins.quantizers.floating:fp16"),
        requires=("torch", "transformers"),
        extra="llm",
        at_load=("cpu", "cuda"),
        bits=16,
        trainable=False,
        untrainable_reason=(
            "AdamW's squared gradients and epsilon are smaller than the smallest fp16 number, so its steps become"
            " infinite; bf16 and fp32 have a sufficient range"
        ),
    ),
    QuantizerCard(
        name="int4",
        summary="4-bit NormalFloat weights (bitsandbytes), dequantized for each matrix product",
        source="Dettmers et al. 2023, QLoRA, arXiv:2305.14314, section 3",
        factory=Ref("eflm_plugins.quantizers.int4:int4"),
        at_load=("cuda",),
        operations=Ref("eflm_plugins.quantizers.operations:four_bit"),
        config=Ref("eflm_plugins.quantizers.options:Int4Options"),
        requires=("bitsandbytes",),
        extra="quant",
        bits=4,
        trainable=False,
        untrainable_reason="packed 4-bit weights have no gradient",
    ),
)
