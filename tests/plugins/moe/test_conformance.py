"""Every built-in router passes the conformance suite of `eflm.testing`."""

from __future__ import annotations

from eflm.testing.moe import RouterConformance
from eflm_plugins.moe.layer import MoeLayer
from support.decoders import card_of, options_of


class Builtin(RouterConformance):
    name = ""
    options: dict[str, object] = {}  # noqa: RUF012

    def __init_subclass__(cls):
        card = card_of(cls.name)
        cls.naive, cls.causal = staticmethod(card.naive.resolve()), card.causal

    def build(self, geometry):
        options = options_of(self.name, **{"expert_intermediate_size": None, **self.options})
        return MoeLayer(geometry, card_of(self.name).factory.resolve()(geometry, options))


class TestTopK(Builtin):
    name = "topk"


class TestTopKWithManyExperts(Builtin):
    name = "topk"
    options = {"num_experts": 9, "top_k": 3, "norm_topk_prob": False}  # noqa: RUF012


class TestSwitch(Builtin):
    name = "switch"


class TestDeepseek(Builtin):
    name = "deepseek"


class TestDeepseekWithGroups(Builtin):
    name = "deepseek"
    options = {  # noqa: RUF012
        "num_experts": 12,
        "top_k": 3,
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
        "num_shared_experts": 0,
    }


class TestExpertChoice(Builtin):
    name = "expert-choice"
