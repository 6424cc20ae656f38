"""Replicas: two processes with half of a batch each learn what one with the whole batch learns."""

from __future__ import annotations

import multiprocessing
import socket

import pytest
import torch
import torch.distributed as dist
from torch import nn

from eflm.planning.stage_options import PretrainOptions
from eflm.registry.contracts import Batch
from eflm.worker.distributed import Group
from eflm.worker.stages.session import Session
from eflm.worker.stages.training import train
from eflm.worker.windows import Windows

OPTIONS = PretrainOptions(steps=5, warmup_steps=1, learning_rate=0.05)


class Experts(nn.Module):
    """Two layers; each sample uses one of them, so half a batch may use only one layer."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.experts = nn.ModuleList(nn.Linear(4, 1) for _ in range(2))

    def outputs(self, x, expert):
        return self.experts[expert](x)


class Work:
    """Even batches use the first expert, odd batches the second; `whole` concatenates two batches."""

    def __init__(self, whole):
        self.whole = whole

    def batches(self, stage):
        generator = torch.Generator().manual_seed(0)
        while True:
            parts = [(torch.randn(8, 4, generator=generator), expert) for expert in range(2)]
            for inputs in [parts] if self.whole else [[part] for part in parts]:
                yield Batch(inputs=inputs, samples=8 * len(inputs), tokens=0)

    def loss(self, model, batch):
        # None of the model's own forward pass, which has no such arguments.
        return torch.cat(
            [(model.outputs(*part) - part[0].sum(-1, keepdim=True)) ** 2 for part in batch.inputs]
        ).mean()


class Silent:
    def send(self, event, **fields):
        pass


def learn(group, seed=0, whole=False):
    model, windows = Experts(seed), []
    work = Work(whole)
    session = Session(
        workload=work,
        device="cpu",
        events=Silent(),
        windows=Windows(windows.extend, lambda: None),
        group=group,
    )
    groups = [{"params": list(model.parameters()), "lr": OPTIONS.learning_rate}]
    train(session, "pretrain", model, OPTIONS, groups)
    return [parameter.detach() for parameter in model.parameters()], windows


def run_rank(rank, address, queue):
    dist.init_process_group("gloo", init_method=f"tcp://{address}", rank=rank, world_size=2)
    # The second one begins with other weights, and must not keep them.
    learned, windows = learn(Group(rank=rank, world_size=2), seed=rank)
    queue.put((rank, [p.tolist() for p in learned], windows))
    dist.barrier()


@pytest.fixture(scope="module")
def together():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*listener.getsockname())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [
        context.Process(target=run_rank, args=(rank, address, queue), daemon=True) for rank in range(2)
    ]
    for process in processes:
        process.start()
    found = sorted(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(30)
    return found


def test_they_learn_what_one_learns_from_both_their_batches(together):
    alone, _ = learn(Group(), whole=True)
    for _, learned, _ in together:
        for ours, expected in zip(learned, alone, strict=True):
            torch.testing.assert_close(torch.tensor(ours), expected, rtol=1e-5, atol=1e-6)


def test_each_step_reports_its_communication_inside_the_backward_pass(together):
    for _, _, windows in together:
        named = {name: [w for w in windows if w.name == name] for name in {w.name for w in windows}}
        assert len(named["communication"]) == len(named["step"]) - 1  # none in the rehearsal
        for window, backward in zip(named["communication"], named["backward"][1:], strict=True):
            assert backward.begin <= window.begin <= window.end <= backward.end
            inside = [w for w in named["all_reduce"] if backward.begin <= w.begin <= backward.end]
            assert inside
            assert max(w.end for w in inside) == window.end
            assert max(w.begin for w in inside) == window.begin
