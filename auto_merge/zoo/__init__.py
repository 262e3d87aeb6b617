"""The embedded default models: a small base and its specialists, with real trained weights.

A model path ``zoo:NAME`` anywhere in a configuration means ``path(NAME)``. Importing this room
loads neither torch nor transformers; ``train`` and ``landscape`` do when they run.
"""

from __future__ import annotations

from pathlib import Path

from auto_merge.errors import CheckpointError, nearest

_NAMES = ("base", "reverse", "sort", "swap", "after", "before")
_MODELS = Path(__file__).parent / "models"


def names() -> tuple[str, ...]:
    """Names of the embedded models: the base first, then the specialists."""
    return _NAMES


def path(name: str) -> Path:
    """Folder of an embedded model.

    Args:
        name: one of ``names()``, without the ``zoo:`` prefix.

    Raises:
        CheckpointError: if there is no such model; the message gives the nearest name.
    """
    if name not in _NAMES:
        raise CheckpointError(f"zoo:{name}: the zoo has no such model{nearest(name, _NAMES)}")
    return _MODELS / name
