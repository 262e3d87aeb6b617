"""The settings that all runs share, as a file gives them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from auto_merge.config.evaluation import Evaluation
from auto_merge.config.fields import OptionalText, Section, empty_is_nothing
from auto_merge.config.models import ModelEntry
from auto_merge.config.search import SearchSection

OptionalModel = Annotated[
    ModelEntry | None,
    BeforeValidator(empty_is_nothing, json_schema_input_type=ModelEntry | Literal[""] | None),
]


class HeadSection(Section):
    """Keys at the top of a file, beside `global_params` and `strategies`."""

    strategy: str
    """Name of the strategy; its section is `strategies.<name>`."""
    name: OptionalText = None
    """Name of the run: letters, digits, `.`, `_`, `-`. Default: the file's name without `.yaml`.
    The run's folder is `output_path`, else `runs/<name>`."""
    compat: Literal["published"] | None = None
    """`published` selects what the published searches ran where ours is wider or differs: see
    `slerp_space`, `per_source_weights`, `include_base`, `missing_permutation`, `scale_mode`,
    `base_index`. Null: ours."""

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(
                "must start with a letter or digit and hold only letters, digits, '.', '_', '-', "
                f"got {name!r}"
            )
        return name


class RunSection(Section):
    """Settings of every run; they stand in `global_params` or in the strategy's section.

    A key of the strategy's section replaces the same key of `global_params` entirely.
    """

    random_seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0
    """Root of all randomness, 0 to 2^32 - 1."""
    cache_dir: OptionalText = None
    """Folder of the score ledger, shared by runs. Empty or null: `$AUTO_MERGE_CACHE`, else
    `~/.cache/auto_merge`. Relative to the working directory."""
    output_path: OptionalText = None
    """Folder of the run. Empty or null: `runs/<name>`. Relative to the working directory."""
    load_run_history: OptionalText = None
    """SMAC's `runhistory.json` of an earlier search, a warm start: its costs count for what is
    proposed, not for the result. Relative to the file that names it, else to the working
    directory."""
    evaluation: Evaluation
    """What candidates are scored on, and how."""
    search: SearchSection
    """How candidates are proposed, promoted and counted."""
    base_model: OptionalModel = None
    """Common ancestor of the models, needed by task arithmetic and TIES; empty or null: none."""
    models: Annotated[tuple[ModelEntry, ...], Field(min_length=1)]
    """The models to be merged, at least one, each with a name of its own."""

    @field_validator("models")
    @classmethod
    def _names_are_different(cls, models: tuple[ModelEntry, ...]) -> tuple[ModelEntry, ...]:
        names = [model.name for model in models]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"model {name!r} is listed twice; give each a name of its own")
        return models
