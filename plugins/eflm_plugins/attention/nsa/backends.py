"""Chooses the implementation of nsa for a call, and gives the reason if a better one cannot run."""

from __future__ import annotations

from importlib.util import find_spec

from attrs import frozen


@frozen(kw_only=True)
class Call:
    """The properties of a call that decide which backends can run it."""

    device: str
    heads_per_group: int
    block: int  #: tokens per selection block
    tokens: int  #: new tokens
    cached: int  #: tokens in the cache
    padded: bool  #: there is padding before a sequence
    dropout: bool  #: attention weights are dropped
    causal: bool = True
    covered: bool = False  #: each query selects every block


#: Minimum number of new tokens for dispatch with a cached sequence; smaller chunks are gathered.
DISPATCH_FROM = 64
#: Maximum length of a whole sequence for which computing all scores is faster than sorting queries by block.
MASKED_UP_TO = 256


def choose(requested: str, call: Call) -> tuple[str, str | None]:
    """Return the backend that runs, and why a better or the requested backend cannot run (None if it can).

    The few queries of a decoding step are always gathered, because no other backend is faster for them. Where a query
    selects every block, no kernel for selected blocks is needed, and "dense" runs instead of any but "gather".
    """
    if call.cached and call.tokens < DISPATCH_FROM:
        return "gather", None
    others = ("masked", "dispatch", "gather")
    if call.covered and requested != "gather":
        order: tuple[str, ...] = ("dense", "gather")
    elif requested == "auto":
        order = ("fla", *others)
    else:
        order = (requested, *(name for name in others if name != "masked"))
    obstacles = {
        "dense": _obstacle_to_dense(call),
        "fla": _obstacle_to_fla(call),
        "masked": _obstacle_to_masked(call),
        "dispatch": _obstacle_to_dispatch(call),
        "gather": None if call.causal else "it supports causal attention only",
    }
    chosen = next(name for name in order if obstacles[name] is None)
    # Do not report expected cases: no CUDA kernel on a CPU, and no masking of long sequences.
    reported = {"dense", "dispatch", "fla"} if call.device == "cuda" else {"dense", "dispatch"}
    skipped = [name for name in order[: order.index(chosen)] if requested == name or name in reported]
    return chosen, "; ".join(f"{name}: {obstacles[name]}" for name in skipped) or None


def _obstacle_to_dense(call: Call) -> str | None:
    if not call.covered:
        return "it supports sequences in which a query selects every block"
    return _obstacle_to_dispatch(call)


def _obstacle_to_masked(call: Call) -> str | None:
    if call.cached:
        return "it supports whole sequences only"
    if call.tokens > MASKED_UP_TO:
        return f"it supports up to {MASKED_UP_TO} tokens, because the number of scores is quadratic in the tokens"
    return _obstacle_to_dispatch(call)


def _obstacle_to_dispatch(call: Call) -> str | None:
    if call.dropout:
        return "it does not support dropout of attention weights (the model's attention_dropout)"
    if call.padded and call.cached:
        return "it does not support cached sequences with padding before them"
    return None


def _obstacle_to_fla(call: Call) -> str | None:
    heads = call.heads_per_group
    if call.device != "cuda":
        return "its kernels run on CUDA devices"
    if find_spec("fla") is None:
        return "flash-linear-attention is not installed; pip install 'eflm[cuda]'"
    if heads < 16 or heads & (heads - 1):
        return f"it needs 16, 32, 64 ... query heads per key-value head, not {heads}"
    if call.block & (call.block - 1):
        return f"it needs a block size that is a power of two, not {call.block}"
    if call.cached:
        return "it supports whole sequences only"
    if not call.causal:
        return "its kernels support causal attention only"
    return _obstacle_to_dispatch(call)
