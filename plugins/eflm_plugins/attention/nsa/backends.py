"""Which way of computing nsa fits the call at hand, and why not a better one."""

from __future__ import annotations

from importlib.util import find_spec

from attrs import frozen


@frozen(kw_only=True)
class Call:
    """What decides: the device, the heads of a group, the tokens that are new and those in the cache."""

    device: str
    heads_per_group: int
    block: int
    tokens: int
    cached: int
    padded: bool  #: padding before a sequence
    dropout: bool
    causal: bool = True


#: New tokens from which a cached sequence's chunk is dispatched rather than gathered.
DISPATCH_FROM = 64
#: Tokens of a whole sequence up to which computing every score is faster than sorting by blocks.
MASKED_UP_TO = 256


def choose(asked: str, call: Call) -> tuple[str, str | None]:
    """The backend that runs, and why a better one, or the one that was asked for, could not; None when it did.

    The few queries of a decoding step are always gathered: nothing else would serve them better.
    """
    if call.cached and call.tokens < DISPATCH_FROM:
        return "gather", None
    others = ("masked", "dispatch", "gather")
    order = ("fla", *others) if asked == "auto" else (asked, *(name for name in others if name != "masked"))
    hindrances = {
        "fla": _hinders_fla(call),
        "masked": _hinders_masked(call),
        "dispatch": _hinders_dispatch(call),
        "gather": None if call.causal else "it serves attention to the past only",
    }
    chosen = next(name for name in order if hindrances[name] is None)
    # On a CPU nobody expects a CUDA kernel, nor that long sequences are masked: it is no news that they are not.
    expected = {"fla"} if call.device == "cuda" else set()
    passed = [
        name
        for name in order[: order.index(chosen)]
        if asked == name or name == "dispatch" or name in expected
    ]
    return chosen, "; ".join(f"{name}: {hindrances[name]}" for name in passed) or None


def _hinders_masked(call: Call) -> str | None:
    if call.cached:
        return "it takes whole sequences only"
    if call.tokens > MASKED_UP_TO:
        return f"it takes up to {MASKED_UP_TO} tokens, since its scores grow with their square"
    return _hinders_dispatch(call)


def _hinders_dispatch(call: Call) -> str | None:
    if call.dropout:
        return "it cannot drop attention weights out (the model's attention_dropout)"
    if call.padded and call.cached:
        return "it cannot go on with cached sequences that have padding before them"
    return None


def _hinders_fla(call: Call) -> str | None:
    share = call.heads_per_group
    if call.device != "cuda":
        return "its kernels run on CUDA devices"
    if find_spec("fla") is None:
        return "flash-linear-attention is not installed; pip install 'eflm[cuda]'"
    if share < 16 or share & (share - 1):
        return f"it needs 16, 32, 64 ... query heads per key-value head, not {share}"
    if call.block & (call.block - 1):
        return f"its blocks hold a power of two of tokens, not {call.block}"
    if call.cached:
        return "it takes whole sequences only"
    if not call.causal:
        return "its kernels attend to the past only"
    return _hinders_dispatch(call)
