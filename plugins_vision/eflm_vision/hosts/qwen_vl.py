"""The host for Qwen2.5-VL: its language model, its vision tower, or both.

It writes no technique again: the language model is a decoder like any other, the tower has a host of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import AutoModelForImageTextToText

from eflm.registry.contracts import Targets
from eflm_plugins.hosts.decoder import DecoderHost
from eflm_plugins.hosts.recipe import put_back, record
from eflm_schemas import AttentionGeometry, MlpGeometry
from eflm_vision.hosts.vision_tower import VisionTowerHost

#: Which parts of a model techniques act in, by what `--set qwen2.5-vl.towers` says; in the order of computation.
TOWERS = {"both": ("vision", "language"), "language": ("language",), "vision": ("vision",)}
#: Under which a saved model's recipe says where its techniques are.
KEY = "towers"


class QwenVlHost:
    """Serves Qwen2_5_VLForConditionalGeneration."""

    def __init__(self, towers: str = "both") -> None:
        hosts = {
            "vision": VisionTowerHost("model.visual"),
            "language": DecoderHost("model.language_model"),
        }
        self._towers = towers
        self._hosts = [hosts[tower] for tower in TOWERS[towers]]

    def attention_geometries(self, model: nn.Module) -> Sequence[AttentionGeometry]:
        """One geometry per attention site: the tower's, which attend both ways, then the language model's."""
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
        """Put `build(geometry)` at every attention site; see `eflm.registry.contracts.Host`."""
        for host in self._hosts:
            host.replace_attention(model, build, convert=convert, recipe=recipe, plain=plain)
        self._say_where(model)

    def replace_mlps(
        self,
        model: nn.Module,
        build: Callable[[MlpGeometry], Any],
        *,
        convert: bool,
        recipe: Mapping[str, Any],
    ) -> None:
        """Put a mixture of experts at every feed-forward whose router `build` gives; see `Host`."""
        for host in self._hosts:
            host.replace_mlps(model, build, convert=convert, recipe=recipe)
        self._say_where(model)

    def _say_where(self, model: nn.Module) -> None:
        if hasattr(model.config, "eflm"):
            record(model, {KEY: self._towers})

    def targets(self, model: nn.Module) -> Targets:
        """The tower's blocks and linear layers, then the language model's; the embeddings are the model's."""
        parts = [host.targets(model) for host in self._hosts]
        return Targets(
            layers=tuple(name for part in parts for name in part.layers),
            linears=tuple(name for part in parts for name in part.linears),
            attention_linears=tuple(name for part in parts for name in part.attention_linears),
            embeddings=parts[0].embeddings,
        )


def build_anew(config: Any, recipe: Mapping[str, Any], **keywords: Any) -> nn.Module:
    """A saved model before its weights are read: of random ones, with the techniques of its recipe in place."""
    model = AutoModelForImageTextToText.from_config(config, **keywords)
    put_back(QwenVlHost(recipe.get(KEY, "both")), model, recipe)
    return model
