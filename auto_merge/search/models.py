"""Opens the models that a configuration names."""

from __future__ import annotations

from pathlib import Path

from auto_merge import zoo
from auto_merge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from auto_merge.config.models import ZOO, Model
from auto_merge.errors import CheckpointError

_WANTED = ("*.safetensors", "*.json", "*.model", "*.jinja", "tokenizer*")


def open_model(model: Model, *, download: bool = True) -> Checkpoint:
    """Opens an embedded model, a folder, or a hub name.

    Args:
        model: Which one.
        download: Whether a hub name that is not in the local hub cache is downloaded
            (``HF_HUB_OFFLINE`` forbids it as well).

    Raises:
        CheckpointError: It is in none of these places, or damaged.
    """
    return open_checkpoint(find_model(model, download=download))


def find_model(model: Model, *, download: bool = True) -> Path:
    """Returns the folder of a model; see :func:`open_model`."""
    if model.location.startswith(ZOO):
        return zoo.path(model.location.removeprefix(ZOO))
    if model.hub_id is not None:
        return _from_hub(model, download)
    folder = Path(model.location)
    if not folder.is_dir():
        raise CheckpointError(f"model {model.path!r}: no such folder: {folder}")
    return folder


def _from_hub(model: Model, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            model.location,
            revision=model.revision,
            allow_patterns=list(_WANTED),
            local_files_only=not download,
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        where = "no such folder, and not in the hub's local cache"
        if download:
            where += f" nor on the hub ({type(error).__name__})"
        raise CheckpointError(
            f"model {model.path!r}: {where}; give a local folder or download it first"
        ) from None
    return Path(found)
