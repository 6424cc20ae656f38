"""The training loop of pretraining and fine-tuning: AdamW steps in timed windows, the first ones as warm-up.

With `--processes N` each process runs this loop on every Nth batch, and the gradients are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any

from eflm.errors import ModelError
from eflm.planning.stage_options import FinetuneOptions, PretrainOptions
from eflm.registry.contracts import Batch
from eflm.worker import device as devices
from eflm.worker.memory import require_memory
from eflm.worker.stages.session import Session
from eflm.worker.tensor_memory import Activations, gradient_bytes, optimizer_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from eflm.worker.stages.replicas import Replica

BETAS = (0.9, 0.95)  # Brown et al. 2020 (arXiv:2005.14165), appendix B, and most decoders since

TrainingOptions = PretrainOptions | FinetuneOptions


def train(
    session: Session,
    stage: str,
    model: nn.Module,
    options: TrainingOptions,
    groups: Iterable[dict[str, Any]],
) -> None:
    """Train `model` on the workload's batches for `stage`. `groups`: parameter groups of a torch optimizer.

    Raises ModelError if the loss is not a finite number.
    """
    total = options.warmup_steps + options.steps
    trainer = _Trainer(session, model, options, make_optimizer(groups, options, session.device))
    group = session.group
    # Each process takes other batches of the same sequence, so a workload needs no code for several processes.
    batches = islice(session.workload.batches(stage), group.rank, None, group.world_size)
    model.train()
    losses = []
    for number in range(total):
        with session.windows.unit("data", warmup=number < options.warmup_steps):
            batch = next(batches)
        if number == 0:
            trainer.rehearse(batch)
            trainer.replicate()
        if number == options.warmup_steps:
            session.begin_measuring(model)
        trainer.set_rate(learning_rate_factor(number, total))
        loss = trainer.step(batch, warmup=number < options.warmup_steps)
        losses.append(_finite(loss, stage, number + 1))
        session.progress(stage, number + 1, total)
    session.end_measuring(model)
    trainer.send_states()
    first_loss, last_loss = group.mean([losses[0], losses[-1]])
    session.facts(first_loss=first_loss, last_loss=last_loss)


class _Trainer:
    """Runs training steps, each in a window."""

    def __init__(
        self,
        session: Session,
        model: nn.Module,
        options: TrainingOptions,
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        self._session, self._model, self._optimizer = session, model, optimizer
        self._replica: Replica | None = None
        self._max_grad_norm = options.max_grad_norm
        self._groups = optimizer.param_groups if optimizer is not None else []
        self._parameters = [p for group in self._groups for p in group["params"]]
        self._peaks = [group["lr"] for group in self._groups]

    def replicate(self) -> None:
        """Average gradients over all processes from now on. Does nothing for one process or if nothing is trained."""
        if self._session.group.world_size > 1 and self._optimizer is not None:
            from eflm.worker.stages.replicas import Replica

            self._replica = Replica(self._model, self._session.workload.loss, self._session.device)

    def set_rate(self, factor: float) -> None:
        """Set the learning rate of each parameter group to `factor` times its peak."""
        for group, peak in zip(self._groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    def step(self, batch: Batch, *, warmup: bool) -> Tensor:
        """Run forward and backward pass, clip the gradients, update the parameters, and return the loss."""
        from torch.nn.utils import clip_grad_norm_

        with _window(self._session, batch, warmup=warmup):
            loss = self._gradients(batch)
            if self._replica is not None:
                self._replica.add_communication(self._session.windows)
            if self._optimizer is not None:
                with self._session.windows.phase("optimizer"):
                    clip_grad_norm_(self._parameters, self._max_grad_norm)
                    self._optimizer.step()
                    self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _gradients(self, batch: Batch, watch: AbstractContextManager[Any] | None = None) -> Tensor:
        phase = self._session.windows.phase
        with phase("forward"), watch or nullcontext():
            if self._replica is not None:
                loss = self._replica.loss(batch)
            else:
                loss = self._session.workload.loss(self._model, batch)
        if loss.requires_grad:
            with phase("backward"):
                loss.backward()
        return loss

    def rehearse(self, batch: Batch) -> None:
        """Run one step to count its operations and activations and to time its operators.

        Gradients are deleted and the random state is restored. The step is slower than others, so it is no warm-up.
        """
        kept = Activations(self._model)
        with (
            devices.fork_random_state(self._session.device),
            self._session.rehearsing(),
            _window(self._session, batch, warmup=True),
        ):
            self._gradients(batch, kept.watch())
        self._session.facts(
            activation_bytes=kept.bytes, gradient_bytes=gradient_bytes(self._model.parameters())
        )
        self._model.zero_grad(set_to_none=True)

    def send_states(self) -> None:
        """Send the bytes of the optimizer's states, and of the gradients that are averaged in each step."""
        if self._optimizer is not None:
            self._session.facts(optimizer_bytes=optimizer_bytes(self._optimizer))
        if self._replica is not None:
            self._session.facts(reduced_bytes=self._replica.reduced_bytes)


def _window(session: Session, batch: Batch, *, warmup: bool) -> AbstractContextManager[Any]:
    from torch import Tensor
    from torch.utils._pytree import tree_leaves

    computed_on = sum(leaf.numel() for leaf in tree_leaves(batch.inputs) if isinstance(leaf, Tensor))
    return session.windows.unit(
        "step",
        tokens=batch.tokens,
        samples=batch.samples,
        extent=computed_on,
        flops=batch.flops,
        warmup=warmup,
    )


def _finite(loss: Tensor, stage: str, step: int) -> float:
    value = float(loss)
    if not math.isfinite(value):
        raise ModelError(
            f"the loss became {value} at step {step} of {stage}; "
            f"a lower learning rate (--set {stage}.learning_rate=...) or a wider bit width usually helps"
        )
    return value


def make_optimizer(
    groups: Iterable[dict[str, Any]], options: TrainingOptions, device: str
) -> torch.optim.Optimizer | None:
    """Return AdamW for `groups` with weight decay for matrices only; None if no parameter is trained."""
    import torch

    split = [part for group in groups for part in _by_decay(group, options.weight_decay)]
    if not split:
        return None
    trained = [p for group in split for p in group["params"]]
    needed = sum(3 * p.numel() * p.element_size() for p in trained)
    count = sum(p.numel() for p in trained)
    require_memory(needed, f"the gradients and AdamW's two moments of {count:,} parameters", device)
    return torch.optim.AdamW(split, lr=options.learning_rate, betas=BETAS)


def _by_decay(group: dict[str, Any], weight_decay: float) -> list[dict[str, Any]]:
    """Split a group into matrices, which have weight decay, and vectors such as norms and biases, which have none."""
    trained = [p for p in group["params"] if p.requires_grad]
    matrices = {"weight_decay": weight_decay, **group, "params": [p for p in trained if p.ndim >= 2]}
    vectors = {**group, "weight_decay": 0.0, "params": [p for p in trained if p.ndim < 2]}
    return [part for part in (matrices, vectors) if part["params"]]


def learning_rate_factor(step: int, total: int) -> float:
    """Return the share of the peak learning rate at `step` (from 0) of `total`: in (0, 1], 0.1 at the last step."""
    rising = max(total // 10, 1)
    if step < rising:
        return (step + 1) / rising
    done = (step + 1 - rising) / (total - rising)
    return 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2
