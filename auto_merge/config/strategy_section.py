"""What the sections of all strategies have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from auto_merge.config.fields import Section


class StrategySection(Section):
    """What a strategy needs beside the settings that all runs share."""

    PUBLISHED_MEANING: ClassVar[Mapping[str, Any]] = {}
    """Defaults under ``compat: published``."""
    SEARCH_MEANING: ClassVar[Mapping[str, Any]] = {}
    """Defaults of the ``search`` section that are this strategy's own."""
