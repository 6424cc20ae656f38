"""Fine-tuning: trains the parameters that the adapter leaves trainable, on pairs of prompt and completion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eflm.planning.stage_options import FinetuneOptions
from eflm.registry.contracts import Adapter
from eflm.worker.stages.session import Session
from eflm.worker.stages.training import train

if TYPE_CHECKING:
    from torch import nn

STAGE = "finetune"


def run(session: Session, model: nn.Module, adapter: Adapter, options: FinetuneOptions) -> None:
    """Train the parameters of `model` that `adapter` selects, with its learning rates."""
    train(session, STAGE, model, options, adapter.parameter_groups(model, options.learning_rate))
