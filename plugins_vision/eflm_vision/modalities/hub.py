"""Where a saved model lies: a folder as it is, a Hub id fetched. Every modality of pictures finds its models here."""

from __future__ import annotations

from pathlib import Path

from eflm import ModelError


def folder_of(model: str) -> Path:
    """The folder of `model`. Raises ModelError where there is none and nothing of that name can be fetched."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        return Path(snapshot_download(model))
    except (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        OSError,
    ) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"there is no folder {model}, and it could not be fetched as a Hub id: {reason}; give a preset, a folder "
            "saved by diffusers, or a Hub id"
        ) from error
