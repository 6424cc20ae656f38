"""Runs optimum-benchmark 0.6.0 in a separate virtual environment, because it needs transformers 4.

`python tests/benchmarks/optimum.py FOLDER` creates the environment, and so does test_agreement.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import venv
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import frozen

PACKAGES = ("optimum-benchmark==0.6.0", "transformers<5", "torch==2.13.0")

#: Runs in that environment. The parent of the default launcher polls, which takes a core from the worker: on two cores
#: its latencies are 1.2 to 1.7 times as long. The inline launcher, in a separate process, has no such parent.
MEASURE = """
import json, sys
from optimum_benchmark import Benchmark, BenchmarkConfig, InferenceConfig, InlineConfig, ProcessConfig, PyTorchConfig

launcher, model, batch, prompt, new, iterations = *sys.argv[1:3], *map(int, sys.argv[3:])
scenario = InferenceConfig(
    latency=True, iterations=iterations, duration=0, warmup_runs=2,
    input_shapes={"batch_size": batch, "sequence_length": prompt},
    generate_kwargs={"max_new_tokens": new, "min_new_tokens": new},
)
backend = PyTorchConfig(
    model=model, task="text-generation", library="transformers", device="cpu", torch_dtype="float32"
)
launcher = {"inline": InlineConfig, "process": ProcessConfig}[launcher]()
config = BenchmarkConfig(name="peer", launcher=launcher, scenario=scenario, backend=backend)
if __name__ == "__main__":
    report = Benchmark.launch(config)
    print(json.dumps({"prefill": float(report.prefill.latency.mean), "decode": float(report.decode.latency.mean)}))
"""


@frozen(kw_only=True)
class Found:
    """Mean seconds of the phases of a request, and seconds of the whole command."""

    prefill: float
    decode: float
    wall: float


def environment(folder: Path) -> Path:
    """Return the Python interpreter of the environment in `folder`, which the first call creates."""
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (folder / "measure.py").write_text(MEASURE)
        done.touch()
    return python


def measure(
    folder: Path, launcher: str, model: Path, numbers: Iterable[int], env: Mapping[str, str]
) -> Found:
    """Run optimum-benchmark once. `numbers`: batch size, prompt tokens, new tokens, iterations."""
    begin = time.monotonic()
    command = [environment(folder), folder / "measure.py", launcher, model, *map(str, numbers)]
    # It writes its log to the working folder.
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env, cwd=folder)
    means = json.loads(done.stdout.splitlines()[-1])
    return Found(**means, wall=time.monotonic() - begin)


if __name__ == "__main__":
    print(environment(Path(sys.argv[1])))
