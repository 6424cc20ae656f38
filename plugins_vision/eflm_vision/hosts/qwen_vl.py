"""The host for Qwen2.5-VL: inserts techniques into its language model, its vision tower, or both.

It delegates to two hosts: the decoder host for the language model, and the vision tower host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import AutoModelForImageTextToText

from eflm.registry.contracts import Targets
from eflm_plugins.hosts.decoder import DecoderHost
from eflm_plugins.saving.techniques import mark_techniques, restore_techniques
from eflm_schemas import AttentionGeometry, MlpGeometry
from eflm_vision.hosts.vision_tower import VisionTowerHost

#: Value of `--set qwen2.5-vl.towers` -> parts of the model that get the techniques, in the order of computation.
TOWERS = {"both": ("vision", "language"), "language": ("language",), "vision": ("vision",)}
#: Key in a saved model's recipe for the parts that contain techniques.
KEY = "towers"


class QwenVlHost:
    """Supports Qwen2_5_VLForConditionalGeneration."""

    def __init__(self, towers: str = "both") -> None:
        hosts = {
            "vision": VisionTowerHost("model.visual"),
            "language": DecoderHost("model.language_model"),
        }
        self._towers = towers
        self._hosts = [hosts[tower] for tower in TOWERS[towers]]

    def attention_geometries(self, model: nn.Module) -> Sequence[AttentionGeometry]:
        """Return one geometry per attention: those of the vision tower (bidirectional), then the language model's."""
        return [geometry for host in self._hosts for geometry in host.attention_geometries(model)]

    def replace_attention(
        self,
        model: nn.Module,
        build: Callable[[AttentionGeometry], Any],
        *,
        convert: bool,
        recipe: Mapping[str, Any],
        plain: bool = False,
    ) -> None:
        """Replace every attention by `build(geometry)`; see `eflm.registry.contracts.Host`."""
        for host in self._hosts:
            host.replace_attention(model, build, convert=convert, recipe=recipe, plain=plain)
        self._record_towers(model)

    def replace_mlps(
        self,
        model: nn.Module,
        build: Callable[[MlpGeometry], Any],
        *,
        convert: bool,
        recipe: Mapping[str, Any],
    ) -> None:
        """Replace each feed-forward for which `build` returns a router by a mixture of experts.

        See `eflm.registry.contracts.Host`.
        """
        for host in self._hosts:
            host.replace_mlps(model, build, convert=convert, recipe=recipe)
        self._record_towers(model)

    def _record_towers(self, model: nn.Module) -> None:
        if hasattr(model.config, "eflm"):
            mark_techniques(model, {KEY: self._towers})

    def targets(self, model: nn.Module) -> Targets:
        """Return blocks and linear layers of the vision tower, then of the language model, and the embeddings."""
        parts = [host.targets(model) for host in self._hosts]
        return Targets(
            layers=tuple(name for part in parts for name in part.layers),
            linears=tuple(name for part in parts for name in part.linears),
            attention_linears=tuple(name for part in parts for name in part.attention_linears),
            embeddings=parts[0].embeddings,
        )


def build_from_recipe(config: Any, recipe: Mapping[str, Any], **keywords: Any) -> nn.Module:
    """Build a saved model with random weights and the techniques of its recipe, before its weights are loaded."""
    model = AutoModelForImageTextToText.from_config(config, **keywords)
    restore_techniques(QwenVlHost(recipe.get(KEY, "both")), model, recipe)
    return model
