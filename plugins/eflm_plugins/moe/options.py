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
    norm_topk_prob: bool = option(True, "scale the weights of a token's experts to sum to one")
    aux_loss_coef: float = option(
        0.01, "weight of the load-balancing loss (arXiv 2101.03961, section 2.2)", ge=0
    )

    def __attrs_post_init__(self) -> None:
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k ({self.top_k}) cannot be more than num_experts ({self.num_experts})")


@frozen(kw_only=True)
class SwitchOptions:
    """The one most probable expert per token (arXiv 2101.03961), whatever its load."""

    num_experts: int = option(8, "experts that stand in for each feed-forward", ge=1)
    expert_intermediate_size: int | None = option(
        None, "width of one expert; none: as wide as the feed-forward it replaces", ge=1
    )
    aux_loss_coef: float = option(0.01, "weight of the load-balancing loss (section 2.2)", ge=0)
    jitter_noise: float = option(
        0.0, "the router's inputs are scaled by 1 ± this at random in training (section 2.4)", ge=0, lt=1
    )


@frozen(kw_only=True)
class DeepseekOptions:
    """Sigmoid scores, a bias that balances the load, a shared expert (arXiv 2412.19437, section 2.1.2)."""

    num_experts: int = option(8, "routed experts that stand in for each feed-forward", ge=1)
    top_k: int = option(2, "routed experts that a token goes to", ge=1)
    num_shared_experts: int = option(1, "experts that every token goes to, as one of their joint width", ge=0)
    expert_intermediate_size: int | None = option(
        None, "width of one expert; none: as wide as the feed-forward it replaces", ge=1
    )
    n_group: int = option(1, "groups of experts; a token's experts come from the best of them", ge=1)
    topk_group: int = option(1, "groups that a token's experts come from", ge=1)
    routed_scaling_factor: float = option(1.0, "what the weights of a token's routed experts sum to", gt=0)
    bias_update_speed: float = option(0.001, "γ, by which the bias moves after each backward pass", ge=0)

    def __attrs_post_init__(self) -> None:
        if self.num_experts % self.n_group:
            raise ValueError(
                f"num_experts ({self.num_experts}) must be a multiple of n_group ({self.n_group})"
            )
        if self.topk_group > self.n_group:
            raise ValueError(f"topk_group ({self.topk_group}) cannot be more than n_group ({self.n_group})")
        reachable = self.num_experts // self.n_group * self.topk_group
        if self.top_k > reachable:
            raise ValueError(
                f"top_k ({self.top_k}) cannot be more than the {reachable} experts of topk_group groups"
            )


@frozen(kw_only=True)
class ExpertChoiceOptions:
    """Each expert takes its share of the tokens (arXiv 2202.09368, section 3.2)."""

    num_experts: int = option(8, "experts that stand in for each feed-forward", ge=1)
    capacity_factor: float = option(2.0, "c, experts that a token has on average", gt=0)
    expert_intermediate_size: int | None = option(
        None, "width of one expert; none: as wide as the feed-forward it replaces", ge=1
    )
