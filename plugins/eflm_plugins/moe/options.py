"""The options of the routers. Imports no torch."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import option


@frozen(kw_only=True)
class TopKOptions:
    """Softmax over all experts, the k best per token (arXiv 2401.04088, section 2.1)."""

    num_experts: int = option(8, "experts that stand in for each feed-forward", ge=1)
    top_k: int = option(2, "experts that a token goes to", ge=1)
    expert_intermediate_size: int | None = option(
        None, "width of one expert; none: as wide as the feed-forward it replaces", ge=1
    )
    aux_loss_coef: float = option(
        0.01, "weight of the load-balancing loss (arXiv 2101.03961, section 2.2)", ge=0
    )

    def __attrs_post_init__(self) -> None:
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k ({self.top_k}) cannot be more than num_experts ({self.num_experts})")
