"""Which device a run uses, decided before any worker starts and without torch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import psutil
from attrs import frozen

from eflm.errors import UsageError
from eflm.machine import NVIDIA_DRIVER, usable_cores


@frozen(kw_only=True)
class DeviceChoice:
    """The device of a run, and a note where "auto" passes a GPU over."""

    device: str
    note: str | None = None


def choose(device: str) -> DeviceChoice:
    """Resolve "auto" to "cuda" or "cpu". UsageError for a name that is no device, or a GPU that is not there."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UsageError(
            f"there is no device {device!r}; a device is auto, cpu, cuda, or cuda:0, cuda:1, ..."
        )
    if device == "cpu":
        return DeviceChoice(device=device)
    missing = _why_no_cuda()
    if device == "auto":
        if missing is None:
            return DeviceChoice(device="cuda")
        seen = os.path.exists(NVIDIA_DRIVER) and not _hidden()
        note = f"this machine has an NVIDIA driver, but {missing}; the run used the CPU" if seen else None
        return DeviceChoice(device="cpu", note=note)
    if missing is not None:
        raise UsageError(f"--device {device} needs an NVIDIA GPU, but {missing}; --device cpu runs here")
    return DeviceChoice(device=device)


def device_class(device: str) -> str:
    """What a key says of the device: "cpu", or the model of the GPU."""
    if not device.startswith("cuda"):
        return "cpu"
    names = gpu_names()
    index = int(device.partition(":")[2] or 0)
    return names[index] if index < len(names) else "cuda"


def gpu_names() -> list[str]:
    """Return the names of the NVIDIA GPUs that this process may use, in torch's order; empty if there is none."""
    if _hidden():
        return []
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library, no driver, or no permission
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        gpus = {str(pynvml.nvmlDeviceGetUUID(h)): str(pynvml.nvmlDeviceGetName(h)) for h in handles}
        return [gpus[uuid] for uuid in _visible(list(gpus), _gpu_of_slice)]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def default_threads() -> int:
    """OMP_NUM_THREADS if it is set, else one thread per physical core that this process may use."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    return max(1, min(psutil.cpu_count(logical=False) or 1, usable_cores()))


def _why_no_cuda() -> str | None:
    if _hidden():
        return "CUDA_VISIBLE_DEVICES hides all GPUs"
    if not gpu_names():
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        if listed is None:
            return "NVML finds none on this machine"
        return f"NVML finds none that CUDA_VISIBLE_DEVICES={listed} selects"
    if not _torch_has_cuda():
        return "the installed torch is built for CPUs"
    return None


def _gpu_of_slice(uuid: str) -> str | None:
    """Return the UUID of the GPU that a MIG slice belongs to; None if there is no such slice."""
    import pynvml

    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)))
    except pynvml.NVMLError:
        return None


def _visible(uuids: list[str], gpu_of_slice: Callable[[str], str | None]) -> list[str]:
    """Return the UUIDs of the GPUs that CUDA_VISIBLE_DEVICES selects, in its order.

    As in CUDA, an entry is an index, the beginning of a UUID, or a MIG slice. The list ends at the first invalid entry,
    and a list that names a device twice selects none.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return uuids
    found: dict[str, str] = {}  # the GPU of each selected GPU or slice; two slices may share a GPU
    for entry in map(str.strip, listed.split(",")):
        if entry.startswith("MIG-"):
            matching = [gpu for gpu in (gpu_of_slice(entry),) if gpu is not None]
        elif entry.isdecimal():
            matching = uuids[int(entry) :][:1]
        else:
            matching = [uuid for uuid in uuids if entry and uuid.startswith(entry)]
        if len(matching) != 1:
            break
        selected = entry if entry.startswith("MIG-") else matching[0]
        if selected in found:
            return []
        found[selected] = matching[0]
    return list(found.values())


def _hidden() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles")


def _torch_has_cuda() -> bool:
    """Read from the file that torch's build writes, so that torch is not imported."""
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return False
    version = Path(spec.submodule_search_locations[0]) / "version.py"
    try:
        text = version.read_text(encoding="utf-8")
    except OSError:
        return False
    found = re.search(r"^cuda\b[^=\n]*=\s*(.+)$", text, re.MULTILINE)
    return found is not None and found[1].strip() != "None"
