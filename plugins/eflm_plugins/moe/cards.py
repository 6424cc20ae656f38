"""The cards of the routers. Imports no implementation."""

from __future__ import annotations

from eflm_schemas import MoeRouterCard, Ref

ROUTERS = (
    MoeRouterCard(
        name="none",
        summary="no mixture: feed-forwards stay dense",
        source="arXiv 1706.03762, section 3.3",
        factory=Ref("eflm_plugins.moe.none:dense"),
        dense=True,
    ),
    MoeRouterCard(
        name="topk",
        summary="each token goes to its k most probable experts; a loss keeps their load balanced",
        source="arXiv 2401.04088, section 2.1; loss of arXiv 2101.03961, section 2.2",
        factory=Ref("eflm_plugins.moe.topk:TopKRouter"),
        config=Ref("eflm_plugins.moe.options:TopKOptions"),
    ),
)
