"""Compares prefill and decode latency with optimum-benchmark: same model folder, same lengths, alternating rounds.

The limits allow for a noisy machine; docs/performance.md has measured figures.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.optimum import Found, environment, measure

BATCH, PROMPT, NEW, ITERATIONS, ROUNDS = 1, 256, 32, 20, 3


@pytest.fixture
def decoder(tmp_path):
    """The folder of a Qwen2 with 25 million parameters and a tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
    )
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "model")
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(4096)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="t0", pad_token="t1", eos_token="t2"
    )
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def ours(model: Path, results: Path, env: dict[str, str]) -> Found:
    begin = time.monotonic()
    settings = {
        "infer.batch_size": BATCH, "infer.prompt_tokens": PROMPT, "infer.new_tokens": NEW,
        "infer.requests": ITERATIONS, "infer.seconds": 0, "infer.warmup_requests": 2, "llm.eval_tokens": 256,
    }  # fmt: skip
    command = [sys.executable, "-m", "eflm", "bench", "--model", str(model), "--stage=infer", "--device=cpu"]
    command += [f"--set={name}={value}" for name, value in settings.items()]
    done = subprocess.run(
        [*command, "--json", "--results", str(results)], check=True, capture_output=True, text=True, env=env
    )
    metrics = json.loads(done.stdout)["stages"]["infer"]["metrics"]
    return Found(
        prefill=metrics["TTFT"]["value"],
        decode=metrics["TPOT"]["value"] * (NEW - 1),
        wall=time.monotonic() - begin,
    )


def test_latencies_agree_with_optimum_benchmarks(benchmark, decoder, tmp_path, request):
    if benchmark.disabled:
        pytest.skip("installs optimum-benchmark; run by `make benchmarks`")
    folder = Path(request.config.cache.mkdir("optimum-benchmark"))
    environment(folder)
    numbers = (BATCH, PROMPT, NEW, ITERATIONS)
    # Both use all cores, although the test suite limits its processes to one.
    default = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    # The same limit of spinning threads as in our workers.
    limited = {**default, "GOMP_SPINCOUNT": "1000"}
    rounds = []

    def both() -> None:
        rounds.append(
            (
                ours(decoder, tmp_path / "results", default),
                measure(folder, "inline", decoder, numbers, limited),
            )
        )

    benchmark.pedantic(both, rounds=ROUNDS)
    ratios = {
        name: statistics.median(getattr(a, name) / getattr(b, name) for a, b in rounds)
        for name in ("prefill", "decode")
    }
    # The time of the whole command is compared with the default launcher and the default environment.
    command = measure(folder, "process", decoder, numbers, default)
    ratios["wall"] = statistics.median(a.wall for a, _ in rounds) / command.wall
    benchmark.extra_info |= ratios
    print(
        f"\nour time / optimum-benchmark: {', '.join(f'{k} {v:.3f}' for k, v in ratios.items())}; {rounds}; {command}"
    )
    assert 0.85 <= ratios["prefill"] <= 1.15
    assert 0.85 <= ratios["decode"] <= 1.15
    assert ratios["wall"] <= 1
