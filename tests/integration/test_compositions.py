"""Every composition of the built-in techniques: it trains and generates, or it is refused with a reason."""

from __future__ import annotations

import itertools

import pytest
import torch

import eflm
from eflm import UsageError
from eflm.planning.compose import compose
from eflm_plugins.adapters import cards
from eflm_schemas import RunSpec

ATTENTION = ("mha", "gqa", "mqa", "mla", "nsa")
ROUTERS = ("none", "topk")
ADAPTERS = ("lora", "dora", "full", "freeze")
QUANTIZERS = ("fp32", "bf16", "fp16", "int4")
#: Packed or half-width weights that no optimizer can update, and the methods that would have to; and packed ones that
#: a method would have to read.
ILLEGAL = {(adapter, quantizer) for adapter in ("full", "freeze") for quantizer in ("fp16", "int4")} | {
    (adapter, "int4") for adapter in ("pissa", "loha", "lokr")
}

#: Routers that differ from topk in nothing that another technique could notice, on a few compositions each.
OTHER_ROUTERS = ("switch", "deepseek")
FEW = (("gqa", "lora", "int4"), ("nsa", "full", "fp32"), ("mla", "dora", "bf16"))


@pytest.fixture(scope="module")
def registry():
    return eflm.load_plugins()


@pytest.mark.parametrize(("adapter", "quantizer"), sorted(ILLEGAL), ids="-".join)
@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("router", ROUTERS)
def test_an_illegal_composition_is_refused_with_a_reason(attention, router, adapter, quantizer, registry):
    techniques = {"attention": attention, "moe": router, "peft": adapter, "quant": quantizer}
    with pytest.raises(UsageError) as refusal:
        compose(RunSpec(techniques=techniques), registry)
    message = str(refusal.value)
    assert adapter in message
    assert quantizer in message
    assert "lora" in message
    assert "bf16" in message


#: Mixers have other layers than attention for an adapter or a quantizer to find.
MIXERS = ("mamba2", "rwkv7")
ON_MIXERS = (("lora", "int4"), ("dora", "bf16"), ("full", "fp32"), ("freeze", "bf16"))

#: Adapters of the same layers as LoRA: each is tested once with every attention, and with routers and widths in turn.
OTHER_ADAPTERS = ("rslora", "loraplus", "pissa", "loha", "lokr")


def in_turn(adapter):
    widths = [quantizer for quantizer in QUANTIZERS if (adapter, quantizer) not in ILLEGAL]
    start = OTHER_ADAPTERS.index(adapter)
    for number, attention in enumerate((*ATTENTION, *MIXERS), start):
        yield attention, ROUTERS[number % len(ROUTERS)], adapter, widths[number % len(widths)]


def whole_product():
    """Every legal composition. One in which no two techniques meet for the first time is left to `make test-all`."""
    met = set()
    for names in itertools.product(ATTENTION, ROUTERS, ADAPTERS, QUANTIZERS):
        if names[2:] in ILLEGAL:
            continue
        pairs = set(itertools.combinations(names, 2))
        marks = () if pairs - met else pytest.mark.slow
        met |= pairs
        yield pytest.param(*names, id="-".join(names), marks=marks)


LEGAL = (
    [*whole_product()]
    + [
        pytest.param(attention, router, *rest, id="-".join([attention, router, *rest]))
        for router in OTHER_ROUTERS
        for attention, *rest in FEW
    ]
    + [
        pytest.param(mixer, router, *rest, id="-".join([mixer, router, *rest]))
        for mixer in MIXERS
        for router in ROUTERS
        for rest in ON_MIXERS
    ]
    + [pytest.param(*names, id="-".join(names)) for adapter in OTHER_ADAPTERS for names in in_turn(adapter)]
)


def test_no_adapter_is_left_out():
    assert {card.name for card in cards.ADAPTERS} == {*ADAPTERS, *OTHER_ADAPTERS}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A short text: reading and splitting the built-in one takes a large part of a build."""
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text("\n\n".join(f"Paragraph {number} is about the number {number}." for number in range(40)))
    return path


@pytest.mark.parametrize(("attention", "router", "adapter", "quantizer"), LEGAL)
def test_a_legal_composition_trains_and_generates(attention, router, adapter, quantizer, registry, data):
    small = {"num_experts": 2, "expert_intermediate_size": 64}
    settings = {} if router == "none" else {f"{router}.{name}": value for name, value in small.items()}
    model = eflm.build(
        attention=attention,
        moe=router,
        peft=adapter,
        quant=quantizer,
        settings=settings,
        data=data,
        registry=registry,
    )
    ids = torch.randint(3, 1000, (2, 12), generator=torch.Generator().manual_seed(0))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    model.train()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    assert torch.isfinite(loss)
    torch.optim.SGD(trained, lr=1.0).step()
    changed = [not torch.equal(old, new) for old, new in zip(before, trained, strict=True)]
    assert any(changed)
    model.eval()
    answer = model.generate(input_ids=ids, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert answer.shape == (2, 15)
