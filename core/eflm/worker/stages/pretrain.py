"""Pretraining: trains all parameters of the model from random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eflm.planning.stage_options import PretrainOptions
from eflm.worker.stages.session import Session
from eflm.worker.stages.training import train

if TYPE_CHECKING:
    from torch import nn

STAGE = "pretrain"


def run(session: Session, model: nn.Module, options: PretrainOptions) -> None:
    """Train all of `model` in place."""
    groups = [{"params": list(model.parameters()), "lr": options.learning_rate}]
    train(session, STAGE, model, options, groups)
