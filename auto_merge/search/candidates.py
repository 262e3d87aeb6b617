"""From a recipe to something an evaluator can score: merged in place, or exported and loaded."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.merging.plan import Plan, build_plan
from auto_merge.recipe.model import Recipe
from auto_merge.search.baselines import Cast

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from auto_merge.merging.live import LiveModel


def plan_of(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], cast: Cast | None, dtype: str
) -> Plan:
    """Plans a recipe of a run, see :func:`auto_merge.merging.plan.build_plan`."""
    if cast is None:
        return build_plan(recipe, checkpoints, dtype=dtype)
    donor = cast.base or cast.models[0]
    return build_plan(recipe, checkpoints, dtype=dtype, donor=donor, token_sources=cast.models)


class Workbench:
    """The opened sources of a run and the one resident model that candidates are merged into.

    Args:
        checkpoints: Role name -> opened checkpoint.
        device: Torch device name.
        dtype: Data type of every candidate.
        in_memory: Merge into the resident model; otherwise every candidate is exported to a
            temporary folder and loaded from there.
        scratch: Where temporary exports go.
        cast: Who takes part in the run. All its candidates have one tokenizer: that of the base,
            else of the first model, with the added tokens of all models. ``None``: each recipe's.
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        *,
        device: str,
        dtype: str,
        in_memory: bool = True,
        scratch: Path | None = None,
        cast: Cast | None = None,
    ) -> None:
        self.checkpoints = checkpoints
        self.device = device
        self.dtype = dtype
        self._in_memory = in_memory
        self._scratch = scratch
        self._cast = cast
        self._live: LiveModel | None = None
        self.merge_seconds = 0.0

    def plan(self, recipe: Recipe) -> Plan:
        """Plans the recipe.

        Raises:
            RecipeError, CheckpointError: As :func:`auto_merge.merging.plan.build_plan` says.
        """
        return plan_of(recipe, self.checkpoints, self._cast, self.dtype)

    def portable(self, recipe: Recipe) -> Recipe:
        """Returns the recipe such that it gives the same model outside of this run."""
        plan = self.plan(recipe)
        if self._cast is None:
            return recipe
        base = recipe.base or self._cast.base
        tokens = recipe.tokens
        if plan.added_tokens or plan.donor != (base or recipe.slices[0].sources[0].model):
            tokens = self._cast.models
        found = replace(recipe, base=base, dtype=self.dtype, tokens=tokens)
        again = build_plan(found, self.checkpoints)
        assert again.digest == plan.digest, "the recipe stands for the same model anywhere"
        return found

    def candidate(self, recipe: Recipe) -> PlannedCandidate:
        """Returns the candidate of a recipe; nothing is merged before its weights are needed."""
        return PlannedCandidate(self.plan(recipe), self)

    def materialise(self, plan: Plan) -> PreTrainedModel:
        """Merges ``plan`` and returns the live model; valid until the next call."""
        started = time.monotonic()
        try:
            return self._merge(plan) if self._in_memory else self._export_and_load(plan)
        finally:
            self.merge_seconds += time.monotonic() - started

    def free(self) -> None:
        """Lets go of the resident model, after an out-of-memory failure."""
        self._live = None
        gc.collect()
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    def _merge(self, plan: Plan) -> PreTrainedModel:
        from auto_merge.merging.live import LiveModel

        if self._live is None:
            self._live = LiveModel(self.checkpoints, device=self.device, dtype=self.dtype)
        return self._live.materialise(plan)

    def _export_and_load(self, plan: Plan) -> PreTrainedModel:
        import torch
        from transformers import AutoModelForCausalLM

        from auto_merge.merging.export import export_model

        if self._scratch is not None:
            self._scratch.mkdir(parents=True, exist_ok=True)
            _sweep(self._scratch)
        folder = Path(tempfile.mkdtemp(prefix=f"candidate-{os.getpid()}-", dir=self._scratch))
        try:
            export_model(plan, self.checkpoints, folder / "model", files={})
            model = AutoModelForCausalLM.from_pretrained(
                folder / "model", dtype=getattr(torch, self.dtype), local_files_only=True
            )
            loaded: PreTrainedModel = model.to(self.device).eval()
            return loaded
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(scratch: Path) -> None:
    """Removes candidates whose process was killed."""
    for folder in scratch.glob("candidate-*-*"):
        try:
            os.kill(int(folder.name.split("-")[1]), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:
            continue


class PlannedCandidate:
    """A merged model that exists only when its weights are asked for."""

    def __init__(self, plan: Plan, workbench: Workbench) -> None:
        self.plan = plan
        self._workbench = workbench

    @property
    def digest(self) -> str:
        """Digest of the plan: steps, source contents, data type."""
        return self.plan.digest

    def model(self) -> PreTrainedModel:
        """Materialises the weights; valid until another candidate's model is asked for."""
        return self._workbench.materialise(self.plan)
