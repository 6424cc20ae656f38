"""The cards of the fine-tuning methods. Read by the registry; imports no implementation."""

from __future__ import annotations

from eflm_schemas import AdapterCard, Ref

ADAPTERS = (
    AdapterCard(
        name="lora",
        summary="low-rank update W + (alpha/r)·BA beside frozen weights",
        source="Hu et al. 2021, LoRA, arXiv:2106.09685, section 4.1",
        factory=Ref("eflm_plugins.adapters.peft_lora:lora"),
        config=Ref("eflm_plugins.adapters.options:LoraOptions"),
        requires=("peft",),
    ),
    AdapterCard(
        name="rslora",
        summary="LoRA scaled by alpha/sqrt(r), stable at high rank",
        source="Kalajdzievski 2023, Rank Stabilized LoRA, arXiv:2312.03732, definition 3.1",
        factory=Ref("eflm_plugins.adapters.peft_lora:rslora"),
        config=Ref("eflm_plugins.adapters.options:LoraOptions"),
        requires=("peft",),
    ),
    AdapterCard(
        name="dora",
        summary="weights decomposed into magnitude and direction; LoRA turns the direction",
        source="Liu et al. 2024, DoRA, arXiv:2402.09353, section 4, equation 5",
        factory=Ref("eflm_plugins.adapters.peft_lora:dora"),
        config=Ref("eflm_plugins.adapters.options:LoraOptions"),
        requires=("peft",),
    ),
    AdapterCard(
        name="full",
        summary="every weight is trained",
        source="EfficientLLM, arXiv:2505.13840, the fine-tuning axis",
        factory=Ref("eflm_plugins.adapters.full:full"),
        trains_base=True,
    ),
    AdapterCard(
        name="freeze",
        summary="the first blocks stay frozen and the rest is trained",
        source="EfficientLLM, arXiv:2505.13840, the fine-tuning axis (first 8 layers frozen)",
        factory=Ref("eflm_plugins.adapters.freeze:freeze"),
        config=Ref("eflm_plugins.adapters.options:FreezeOptions"),
        trains_base=True,
    ),
)
