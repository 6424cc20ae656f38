"""The options of the routers. This module imports no torch."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import option


@frozen(kw_only=True)
class TopKOptions:
    """Softmax over all experts, top k per token (arXiv 2401.04088, section 2.1)."""

    num_experts: int = option(8, "number of experts that replace each feed-forward", ge=1)
    top_k: int = option(2, "experts per token", ge=1)
    expert_intermediate_size: int | None = option(
        None, "intermediate size of one expert; none: that of the replaced feed-forward", ge=1
    )
    norm_topk_prob: bool = option(True, "normalize the weights of a token's experts to sum to 1")
    aux_loss_coef: float = option(
        0.01, "weight of the load-balancing loss (arXiv 2101.03961, section 2.2)", ge=0
    )

    def __attrs_post_init__(self) -> None:
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k ({self.top_k}) must not exceed num_experts ({self.num_experts})")


@frozen(kw_only=True)
class SwitchOptions:
    """The most probable expert per token, without a capacity limit (arXiv 2101.03961)."""

    num_experts: int = option(8, "number of experts that replace each feed-forward", ge=1)
    expert_intermediate_size: int | None = option(
        None, "intermediate size of one expert; none: that of the replaced feed-forward", ge=1
    )
    aux_loss_coef: float = option(
        0.01, "weight of the load-balancing loss (arXiv 2101.03961, section 2.2)", ge=0
    )
    jitter_noise: float = option(
        0.0, "in training, scale the router's inputs by random factors in 1 ± this (section 2.4)", ge=0, lt=1
    )


@frozen(kw_only=True)
class DeepseekOptions:
    """Sigmoid scores, load balancing by a bias, and a shared expert (arXiv 2412.19437, section 2.1.2)."""

    num_experts: int = option(8, "number of routed experts that replace each feed-forward", ge=1)
    top_k: int = option(2, "routed experts per token", ge=1)
    num_shared_experts: int = option(1, "shared experts for every token, built as one wide expert", ge=0)
    expert_intermediate_size: int | None = option(
        None, "intermediate size of one expert; none: that of the replaced feed-forward", ge=1
    )
    n_group: int = option(1, "number of expert groups; a token uses experts of its best groups only", ge=1)
    topk_group: int = option(1, "number of groups per token", ge=1)
    routed_scaling_factor: float = option(1.0, "sum of the weights of a token's routed experts", gt=0)
    bias_update_speed: float = option(0.001, "γ, change of the bias after each backward pass", ge=0)

    def __attrs_post_init__(self) -> None:
        if self.num_experts % self.n_group:
            raise ValueError(
                f"num_experts ({self.num_experts}) must be a multiple of n_group ({self.n_group})"
            )
        if self.topk_group > self.n_group:
            raise ValueError(f"topk_group ({self.topk_group}) must not exceed n_group ({self.n_group})")
        reachable = self.num_experts // self.n_group * self.topk_group
        if self.top_k > reachable:
            raise ValueError(
                f"top_k ({self.top_k}) must not exceed {reachable}, "
                f"the number of experts in topk_group ({self.topk_group}) of the n_group ({self.n_group}) groups"
            )


@frozen(kw_only=True)
class ExpertChoiceOptions:
    """Each expert chooses an equal share of the tokens (arXiv 2202.09368, section 3.2)."""

    num_experts: int = option(8, "number of experts that replace each feed-forward", ge=1)
    capacity_factor: float = option(2.0, "c, average number of experts per token", gt=0)
    expert_intermediate_size: int | None = option(
        None, "intermediate size of one expert; none: that of the replaced feed-forward", ge=1
    )
