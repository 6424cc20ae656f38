"""The cards of the fine-tuning methods. The registry reads this file; it imports no implementation."""

from __future__ import annotations

from eflm_schemas import AdapterCard, Conflict, Ref


def _not_on_int4(name: str, reason: str) -> Conflict:
    return Conflict(
        plugin="quantizer/int4",
        reason=reason,
        instead=f"choose {name} on bf16, or lora, rslora, dora or loraplus on int4",
    )


def _needs_weight_shape(name: str, method: str) -> Conflict:
    return _not_on_int4(
        name,
        f"peft's {method} reads the shape of its update from the weights, and packed 4-bit weights have another shape",
    )


ADAPTERS = (
    AdapterCard(
        name="lora",
        summary="low-rank update added to frozen weights: W + (alpha/r)·BA",
        source="Hu et al. 2021, LoRA, arXiv:2106.09685, section 4.1",
        factory=Ref("eflm_plugins.adapters.lora:lora"),
        config=Ref("eflm_plugins.adapters.options:LoraOptions"),
        requires=("peft",),
        extra="llm",
    ),
    AdapterCard(
        name="rslora",
        summary="LoRA scaled by alpha/sqrt(r), stable at high rank",
        source="Kalajdzievski 2023, Rank Stabilized LoRA, arXiv:2312.03732, definition 3.1",
        factory=Ref("eflm_plugins.adapters.lora:rslora"),
        config=Ref("eflm_plugins.adapters.options:LoraOptions"),
        requires=("peft",),
        extra="llm",
    ),
    AdapterCard(
        name="dora",
        summary="weights decomposed into magnitude and direction; LoRA updates the direction",
        source="Liu et al. 2024, DoRA, arXiv:2402.09353, section 4, equation 5",
        factory=Ref("eflm_plugins.adapters.lora:dora"),
        config=Ref("eflm_plugins.adapters.options:LoraOptions"),
        requires=("peft",),
        extra="llm",
    ),
    AdapterCard(
        name="loraplus",
        summary="LoRA with a higher learning rate for B than for A, by a fixed ratio",
        source="Hayou et al. 2024, LoRA+, arXiv:2402.12354",
        factory=Ref("eflm_plugins.adapters.lora:loraplus"),
        config=Ref("eflm_plugins.adapters.options:LoraPlusOptions"),
        requires=("peft",),
        extra="llm",
    ),
    AdapterCard(
        name="pissa",
        summary="LoRA initialized with the weight's principal singular values and vectors; the residual is frozen",
        source="Meng et al. 2024, PiSSA, arXiv:2404.02948, section 3, equations 2 to 4",
        factory=Ref("eflm_plugins.adapters.pissa:pissa"),
        config=Ref("eflm_plugins.adapters.options:PissaOptions"),
        requires=("peft",),
        extra="llm",
        conflicts=(
            _not_on_int4(
                "pissa",
                "it is initialized from the singular values of the weights, which cannot be computed from packed"
                " 4-bit weights",
            ),
        ),
    ),
    AdapterCard(
        name="loha",
        summary="update of rank up to r² added to frozen weights: Hadamard product (B1 A1) ∘ (B2 A2)",
        source="Hyeon-Woo et al. 2021, FedPara, arXiv:2108.06098, section 2.2; LyCORIS, arXiv:2309.14859",
        factory=Ref("eflm_plugins.adapters.lycoris:loha"),
        config=Ref("eflm_plugins.adapters.options:LycorisOptions"),
        requires=("peft",),
        extra="llm",
        conflicts=(_needs_weight_shape("loha", "LoHa"),),
    ),
    AdapterCard(
        name="lokr",
        summary="update added to frozen weights: Kronecker product C ⊗ (B A) with a low-rank factor",
        source="Edalati et al. 2022, KronA, arXiv:2212.10650; LyCORIS, arXiv:2309.14859",
        factory=Ref("eflm_plugins.adapters.lycoris:lokr"),
        config=Ref("eflm_plugins.adapters.options:LokrOptions"),
        requires=("peft",),
        extra="llm",
        conflicts=(_needs_weight_shape("lokr", "LoKr"),),
    ),
    AdapterCard(
        name="full",
        summary="all weights are trained",
        source="EfficientLLM, arXiv:2505.13840, the fine-tuning axis",
        factory=Ref("eflm_plugins.adapters.full:full"),
        requires=("torch",),
        extra="llm",
        trains_base=True,
        default=True,
    ),
    AdapterCard(
        name="freeze",
        summary="the first blocks are frozen, all other weights are trained",
        source="EfficientLLM, arXiv:2505.13840, the fine-tuning axis (first 8 layers frozen)",
        factory=Ref("eflm_plugins.adapters.freeze:freeze"),
        requires=("torch",),
        extra="llm",
        config=Ref("eflm_plugins.adapters.options:FreezeOptions"),
        trains_base=True,
        suggest=Ref("eflm_plugins.adapters.suggestions:freeze"),
    ),
)
