"""The autoencoders of the presets: reconstruction error and caching."""

from __future__ import annotations

import pytest
import torch

from eflm_vision.data import named
from eflm_vision.data.captioned import captioned
from eflm_vision.modalities import autoencoders
from eflm_vision.modalities.autoencoders import clip_autoencoder, picture_autoencoder


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@torch.no_grad()
def reconstruction_error(model, pixels):
    return float((model.decode(model.encode(pixels).latent_dist.mean).sample - pixels).square().mean())


def test_an_autoencoder_is_trained_once_and_cached(monkeypatch):
    monkeypatch.setattr(autoencoders, "STEPS", 3)
    pixels = captioned(named.pictures("digits", size=16).fitted(3, 16)).pixels[:50]
    before = torch.random.get_rng_state()
    model = picture_autoencoder(pixels, "these")
    assert torch.equal(torch.random.get_rng_state(), before)
    monkeypatch.setattr(autoencoders, "_train", lambda *_: pytest.fail("trained a second time"))
    again = picture_autoencoder(pixels, "these")
    for one, other in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_the_cache_name_does_not_depend_on_the_order_of_the_configs_defaults(monkeypatch):
    """The order in which diffusers lists a config's defaults differs between processes."""
    monkeypatch.setattr(autoencoders, "STEPS", 3)
    pixels = captioned(named.pictures("digits", size=16).fitted(3, 16)).pixels[:50]
    model = picture_autoencoder(pixels, "these")
    defaults = model.config["_use_default_values"]
    before = autoencoders._name(model, "these")
    model.register_to_config(_use_default_values=defaults[::-1])
    assert model.config["_use_default_values"] != defaults
    assert autoencoders._name(model, "these") == before != autoencoders._name(model, "those")


@pytest.mark.slow
def test_images_and_their_negatives_are_reconstructed():
    pixels = captioned(named.pictures("digits", size=16).fitted(3, 16)).pixels
    model = picture_autoencoder(torch.cat([pixels, -pixels]), "digits")
    assert max(reconstruction_error(model, pixels[:200]), reconstruction_error(model, -pixels[:200])) < 0.002


@pytest.mark.slow
def test_clips_and_their_negatives_are_reconstructed():
    """Background is -1 and ink is 1. A clip with background only would have an error of 0.2."""
    pixels = named.clips("moving-digits", size=16, frames=5).pixels.transpose(1, 2)
    model = clip_autoencoder(torch.cat([pixels, -pixels]), "moving digits")
    assert max(reconstruction_error(model, pixels[:100]), reconstruction_error(model, -pixels[:100])) < 0.05
