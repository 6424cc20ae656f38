"""Which features Fréchet distances are taken in: Inception's where its weights are at hand, else the judge's own.

The modalities ask before anything is trained, so that a wish that cannot be met costs nothing. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Protocol

import torch
from attrs import define, field
from torch import Tensor

from eflm import ModelError
from eflm_vision.quality.inception import FEATURES, InceptionV3
from eflm_vision.quality.judge import JUDGES

#: What torch-fidelity and torchmetrics keep in torch.hub's folder. Eight digits of the file's SHA-256 are in its name.
FILE = "weights-inception-2015-12-05-6726825d.pth"
PUBLISHED = "6726825d"
#: Pictures at one time: enlarged to 299 × 299, each takes some tens of MB on its way.
AT_ONCE = 16


class Features(Protocol):
    """What a distance is taken in. `Judge` is one."""

    name: str

    def features(self, pixels: Tensor) -> Tensor:
        """(N, channels, height, width) in [-1, 1] -> (N, features), float64."""


@define
class Inception:
    """The network with the weights of a file, which is read when there is something to look at and let go after it.

    Memory is measured between two looks, and 90 MB of a network that is not under test must not be in it. Features of
    pictures that were seen before are remembered: the real ones are the same for every stage.
    """

    path: Path
    sha256: str
    device: str = "cpu"
    _seen: dict[str, Tensor] = field(factory=dict, repr=False)

    @property
    def name(self) -> str:
        """As it stands beside the figure."""
        known = self.sha256.startswith(PUBLISHED)
        origin = "as torch-fidelity published them" if known else "of unknown origin, not torch-fidelity's"
        return f"Inception v3 (weights {self.sha256[:8]}, {origin}), {FEATURES:,} of pool3"

    def features(self, pixels: Tensor) -> Tensor:
        """(N, 1 or 3 channels, height, width) in [-1, 1] -> (N, FEATURES), float64."""
        content = pixels.contiguous().float().numpy().tobytes()
        shown = f"{tuple(pixels.shape)} {hashlib.sha256(content).hexdigest()}"
        if shown not in self._seen:
            self._seen[shown] = self._computed(pixels)
        return self._seen[shown].double()

    @torch.no_grad()
    def _computed(self, pixels: Tensor) -> Tensor:
        # Without random weights, which would be made in vain and move the run's generator on.
        with torch.device("meta"):
            network = InceptionV3()
        network.load_state_dict(_weights(self.path), assign=True)
        network.eval().to(self.device)
        # Levels of eight bits, as every picture on disk has them and as the scores in papers were taken.
        levels = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().expand(-1, 3, -1, -1)
        return torch.cat([network(part.to(self.device)).cpu() for part in levels.split(AT_ONCE)])


def told(features: Inception | None) -> dict[str, str]:
    """Facts for the result: which features FD is taken in, so that it is not held beside that of others."""
    if features is None:
        return {"fd_features": JUDGES}
    return {"fd_features": features.name, "fd_weights_sha256": features.sha256}


def inception(asked: str, device: str = "cpu") -> Inception | None:
    """Inception if it is asked for ("inception"), or at hand ("auto"); None stands for the judge's own features.

    Raises ModelError where it is asked for and not at hand, and where the file holds something else.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if asked == "cnn" or (asked == "auto" and not path.is_file()):
        return None
    if not path.is_file():
        raise ModelError(
            f"features=inception needs the weights {FILE} in {path.parent}, and they are not there; torch-fidelity's "
            "release v0.2.0 on GitHub has them (eflm downloads nothing), and features=cnn does without"
        )
    _weights(path)
    with path.open("rb") as file:
        return Inception(path, hashlib.file_digest(file, "sha256").hexdigest(), device)


def _weights(path: Path) -> dict[str, Tensor]:
    """The parameters and statistics that the network has, mapped from the file; the classifier's are left out."""
    try:
        # Files of old versions of torch cannot be mapped.
        found = torch.load(path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
        state = {name: value for name, value in found.items() if not name.startswith("fc.")}
    except Exception as error:  # torch raises whatever the bytes lead it to
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{path} cannot be read as weights of Inception v3: {first}; move it away, or choose features=cnn"
        ) from error
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in InceptionV3().state_dict().items()}
    # How many batches a norm has seen is not in every file, and decides nothing.
    wanted = {name: shape for name, shape in wanted.items() if not name.endswith("num_batches_tracked")}
    wrong = [name for name, shape in wanted.items() if getattr(state.get(name), "shape", None) != shape]
    if wrong:
        raise ModelError(
            f"{path} does not hold Inception v3's weights as torch-fidelity lays them out: {wrong[0]} is missing or of "
            "another shape; move it away, or choose features=cnn"
        )
    counts = {
        f"{name.rpartition('.')[0]}.num_batches_tracked" for name in wanted if name.endswith("running_var")
    }
    return {name: state[name] for name in wanted} | {name: torch.tensor(0) for name in counts}
