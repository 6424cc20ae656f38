"""Records the techniques of a model in its config, and restores them from there. The recipe is a mapping:

"attention" and "moe" map to the plugin, its distribution and version, and its options; other keys belong to a host.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from eflm.errors import ModelError
from eflm.registry.contracts import Host
from eflm.registry.discovery import load_plugins
from eflm_plugins.saving import diffusers_config, transformers_config
from eflm_schemas.options import parse


def mark_techniques(model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Add `recipe` to the model's config, so that a saved model names the plugins that loading it needs.

    Plain transformers and diffusers then refuse to load the saved model, instead of initializing weights randomly.
    """
    is_diffusers = hasattr(model, "register_to_config")
    (diffusers_config if is_diffusers else transformers_config).mark(model, recipe)


def restore_techniques(host: Host, model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Insert the attention and the experts of a recipe into a model with random weights, using `host`.

    Raises ModelError if a plugin that the model needs is not installed, with the names of the plugin and its
    distribution.
    """
    registry = load_plugins()
    replace = {"attention": host.replace_attention, "moe": host.replace_mlps}
    for kind, insert in replace.items():
        if kind not in recipe:
            continue
        saved = recipe[kind]
        try:
            card = registry.get(kind, f"{saved['distribution']}:{saved['plugin']}").card
        except Exception as error:
            raise ModelError(
                f"the model needs the {kind} plugin {saved['plugin']!r} of {saved['distribution']} "
                f"{saved['version']}: {error}"
            ) from error
        options = parse(card.config.resolve(), saved["options"], owner=card.name) if card.config else None
        factory = card.factory.resolve()
        insert(
            model,
            lambda geometry, factory=factory, options=options: factory(geometry, options),
            convert=False,
            recipe={kind: saved},
        )


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load the safetensors files of `folder` into a model that has its techniques.

    Raises ModelError if weights are missing or unexpected. Tied weights are saved only once.
    """
    from safetensors.torch import load_file

    weights: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        if not file.name.startswith("adapter_"):
            weights.update(load_file(file))
    outcome = model.load_state_dict(weights, strict=False)
    tied: set[str] = set()
    if hasattr(model, "tie_weights"):
        model.tie_weights()
        tied = set(model.all_tied_weights_keys)
    missing = [name for name in outcome.missing_keys if name not in tied]
    if missing or outcome.unexpected_keys:
        raise ModelError(
            f"the weights in {folder} do not match its recipe: {len(missing)} are missing ({', '.join(missing[:3])}), "
            f"{len(outcome.unexpected_keys)} are unexpected ({', '.join(outcome.unexpected_keys[:3])}); save the model "
            "again, or use another checkpoint"
        )
