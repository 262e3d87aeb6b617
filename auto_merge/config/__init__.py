"""Configuration files: published keys unchanged, ours on top, every mistake in one line.

Importing this package loads pydantic and YAML, nothing heavier.
"""

from auto_merge.config.loading import load_config
from auto_merge.config.models import Model
from auto_merge.config.run_config import RunConfig, differing_keys

__all__ = ["Model", "RunConfig", "differing_keys", "load_config"]
