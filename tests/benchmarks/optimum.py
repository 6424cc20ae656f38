"""optimum-benchmark 0.6.0 in an environment of its own, since it needs transformers 4: made here, called by path.

`python tests/benchmarks/optimum.py FOLDER` makes the environment; test_agreement.py does so too.
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

#: Runs inside that environment. Its isolating launcher, the default, has a parent that polls and so takes a core from
#: the worker: on two cores its latencies are 1.2 to 1.7 times as long. The inline one in a process of its own has none.
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
    """Mean seconds of a request's phases, and of the whole command."""

    prefill: float
    decode: float
    wall: float


def environment(folder: Path) -> Path:
    """The interpreter of the peer's environment in `folder`, made at the first call."""
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
    """One run of the peer's whole command; `numbers` are batch, prompt and new tokens, and iterations."""
    begin = time.monotonic()
    command = [environment(folder), folder / "measure.py", launcher, model, *map(str, numbers)]
    # It leaves its log in the working folder.
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env, cwd=folder)
    means = json.loads(done.stdout.splitlines()[-1])
    return Found(**means, wall=time.monotonic() - begin)


if __name__ == "__main__":
    print(environment(Path(sys.argv[1])))
