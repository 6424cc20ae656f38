"""The cards of the routers. This module imports no implementation."""

from __future__ import annotations

from eflm_schemas import MoeRouterCard, Ref

ROUTERS = (
    MoeRouterCard(
        name="none",
        summary="no mixture of experts: feed-forward layers stay dense",
        source="arXiv 1706.03762, section 3.3",
        factory=Ref("eflm_plugins.moe.none:dense"),
        requires=("torch", "transformers"),
        extra="llm",
        dense=True,
    ),
    MoeRouterCard(
        name="topk",
        summary="each token goes to its k most probable experts; a loss balances their load",
        source="arXiv 2401.04088, section 2.1; loss of arXiv 2101.03961, section 2.2",
        factory=Ref("eflm_plugins.moe.topk:TopKRouter"),
        requires=("torch", "transformers"),
        extra="llm",
        suggest=Ref("eflm_plugins.moe.suggestions:experts"),
        config=Ref("eflm_plugins.moe.options:TopKOptions"),
        naive=Ref("eflm_plugins.moe.naive:topk"),
    ),
    MoeRouterCard(
        name="switch",
        summary="each token goes to its most probable expert, scaled by that probability; no token is dropped",
        source="arXiv 2101.03961, section 2",
        factory=Ref("eflm_plugins.moe.switch:SwitchRouter"),
        requires=("torch", "transformers"),
        extra="llm",
        suggest=Ref("eflm_plugins.moe.suggestions:experts"),
        config=Ref("eflm_plugins.moe.options:SwitchOptions"),
        naive=Ref("eflm_plugins.moe.naive:switch"),
    ),
    MoeRouterCard(
        name="deepseek",
        summary="sigmoid scores, a shared expert, and load balancing by a bias instead of a loss",
        source="arXiv 2412.19437, section 2.1.2",
        factory=Ref("eflm_plugins.moe.deepseek:DeepseekRouter"),
        requires=("torch", "transformers"),
        extra="llm",
        suggest=Ref("eflm_plugins.moe.suggestions:experts"),
        config=Ref("eflm_plugins.moe.options:DeepseekOptions"),
        naive=Ref("eflm_plugins.moe.naive:deepseek"),
    ),
    MoeRouterCard(
        name="expert-choice",
        summary="each expert chooses the same number of tokens; not causal, so not for autoregressive models",
        source="arXiv 2202.09368, section 3.2",
        factory=Ref("eflm_plugins.moe.expert_choice:ExpertChoiceRouter"),
        requires=("torch", "transformers"),
        extra="llm",
        suggest=Ref("eflm_plugins.moe.suggestions:experts"),
        config=Ref("eflm_plugins.moe.options:ExpertChoiceOptions"),
        naive=Ref("eflm_plugins.moe.naive:expert_choice"),
        causal=False,
    ),
)
