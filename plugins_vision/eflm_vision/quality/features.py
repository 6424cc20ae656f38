"""Selects the features for Fréchet distances: those of Inception if its weights are installed, else the judge's.

The modalities select the features before training, so that missing weights are reported at once. Nothing is downloaded.
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

#: The file that torch-fidelity and torchmetrics store in torch.hub's folder. Its name ends with the first eight digits
#: of its SHA-256.
FILE = "weights-inception-2015-12-05-6726825d.pth"
PUBLISHED = "6726825d"
#: Images per batch. At 299 × 299, the activations of one image take some tens of MB.
AT_ONCE = 16


class Features(Protocol):
    """A feature extractor for Fréchet distances. `Judge` also implements it."""

    name: str

    def features(self, pixels: Tensor) -> Tensor:
        """(N, channels, height, width) in [-1, 1] -> (N, features), float64."""


@define
class Inception:
    """Inception v3 with weights from a file, which are loaded for each evaluation and released afterwards.

    The weights are not kept because they take 90 MB, which must not be counted in the memory of the model under test.
    Features are cached by the content of the images, because the real images are the same in every stage.
    """

    path: Path
    sha256: str
    device: str = "cpu"
    _seen: dict[str, Tensor] = field(factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Description for the note of the metric."""
        known = self.sha256.startswith(PUBLISHED)
        origin = "published by torch-fidelity" if known else "of unknown origin, not torch-fidelity's"
        return f"Inception v3 (weights {self.sha256[:8]}, {origin}), {FEATURES:,} features of pool3"

    def features(self, pixels: Tensor) -> Tensor:
        """(N, 1 or 3 channels, height, width) in [-1, 1] -> (N, FEATURES), float64."""
        content = pixels.contiguous().float().numpy().tobytes()
        shown = f"{tuple(pixels.shape)} {hashlib.sha256(content).hexdigest()}"
        if shown not in self._seen:
            self._seen[shown] = self._computed(pixels)
        return self._seen[shown].double()

    @torch.no_grad()
    def _computed(self, pixels: Tensor) -> Tensor:
        # The meta device avoids a random initialization, which costs time and advances the run's random generator.
        with torch.device("meta"):
            network = InceptionV3()
        network.load_state_dict(_weights(self.path), assign=True)
        network.eval().to(self.device)
        # 8-bit levels, as in image files and as in the published scores.
        levels = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().expand(-1, 3, -1, -1)
        return torch.cat([network(part.to(self.device)).cpu() for part in levels.split(AT_ONCE)])


def feature_facts(features: Inception | None) -> dict[str, str]:
    """Return the facts that name the features of FD. Distances in different features must not be compared."""
    if features is None:
        return {"fd_features": JUDGES}
    return {"fd_features": features.name, "fd_weights_sha256": features.sha256}


def inception(asked: str, device: str = "cpu") -> Inception | None:
    """Return Inception for "inception", or for "auto" if its weights are installed; None for the judge's features.

    Raises ModelError if Inception is requested and its weights are missing, or if the file contains something else.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if asked == "cnn" or (asked == "auto" and not path.is_file()):
        return None
    if not path.is_file():
        raise ModelError(
            f"features=inception needs the weights {FILE} in {path.parent}, but this file does not exist; download it "
            "from torch-fidelity's release v0.2.0 on GitHub (eflm downloads nothing), or set features=cnn"
        )
    _weights(path)
    with path.open("rb") as file:
        return Inception(path, hashlib.file_digest(file, "sha256").hexdigest(), device)


def _weights(path: Path) -> dict[str, Tensor]:
    """Read the parameters and running statistics from the file (memory-mapped), without those of the classifier."""
    try:
        # Files written by old versions of torch cannot be memory-mapped.
        found = torch.load(path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
        state = {name: value for name, value in found.items() if not name.startswith("fc.")}
    except Exception as error:  # torch.load raises many classes of errors for invalid files
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{path} cannot be read as weights of Inception v3: {first}; remove this file, or set features=cnn"
        ) from error
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in InceptionV3().state_dict().items()}
    # Some files lack the batch counters of the norms, which have no effect in evaluation.
    wanted = {name: shape for name, shape in wanted.items() if not name.endswith("num_batches_tracked")}
    wrong = [name for name, shape in wanted.items() if getattr(state.get(name), "shape", None) != shape]
    if wrong:
        raise ModelError(
            f"{path} does not contain the weights of torch-fidelity's Inception v3: {wrong[0]} is missing or has a "
            "different shape; remove this file, or set features=cnn"
        )
    counts = {
        f"{name.rpartition('.')[0]}.num_batches_tracked" for name in wanted if name.endswith("running_var")
    }
    return {name: state[name] for name in wanted} | {name: torch.tensor(0) for name in counts}
