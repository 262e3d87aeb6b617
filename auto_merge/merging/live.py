"""One resident model whose weights are replaced, candidate after candidate, in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.errors import CheckpointError
from auto_merge.merging.execute import (
    Started,
    check_finite,
    finish,
    run_jobs,
    start_block,
    start_step,
)
from auto_merge.merging.inputs import Inputs
from auto_merge.merging.memo import MemoStore, TensorMemo
from auto_merge.merging.plan import Plan, Step
from auto_merge.merging.skeleton import build_skeleton, parameter_places

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Materialisation:
    """What one call of :meth:`LiveModel.materialise` did.

    Attributes:
        num_computed: Tensors merged now.
        num_aliased: Tensors now pointing at a source.
        num_reused: Tensors that were already right.
        bytes_read: Bytes of the inputs of computed tensors.
        bytes_written: Bytes of computed tensors.
        seconds: Wall time.
    """

    num_computed: int
    num_aliased: int
    num_reused: int
    bytes_read: int
    bytes_written: int
    seconds: float


class LiveModel:
    """A transformers model in memory that becomes one candidate after the other.

    Only tensors whose step changed are touched. A tensor that equals a source's is not copied: the
    parameter becomes a view of the mapped file, so never train or otherwise write to the model.
    Merged tensors live in buffers that are allocated once.

    Args:
        checkpoints: Role -> opened model, for all plans to come.
        device: Where the model lives and merging happens.
        dtype: Data type of every plan to come; ``None`` accepts any.
        memo_bytes: Memory that methods may use to remember what they derived from their inputs.

    Attributes:
        last: What the last successful :meth:`materialise` did; ``None`` before it.
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        *,
        device: str = "cpu",
        dtype: str | None = None,
        memo_bytes: int = 1 << 30,
    ) -> None:
        import torch

        self._checkpoints = checkpoints
        self._device = torch.device(device)
        self._dtype = dtype
        self._inputs = Inputs(checkpoints, self._device)
        self._memos = MemoStore(memo_bytes)
        self._weights: _Weights | None = None
        self._buffers: dict[str, torch.Tensor] = {}
        self._contents: dict[str, str] = {}
        self._built_for: tuple[object, ...] = ()
        self.last: Materialisation | None = None

    def materialise(self, plan: Plan) -> PreTrainedModel:
        """Gives the resident model the weights of a plan and returns it.

        The same object comes back as long as the plans' configurations agree. After an error the
        resident model is not usable, but the next call is as good as any.

        Raises:
            InvalidWeightsError: A merged tensor contains NaN or infinity.
            CheckpointError: The tensors are not those of the architecture.
            ValueError: The plan's dtype is not the one promised.
        """
        import torch

        if self._dtype not in (None, plan.dtype):
            raise ValueError(f"the plan gives {plan.dtype}, this model holds {self._dtype}")
        started = time.perf_counter()
        with torch.no_grad():
            weights = self._resident(plan)
            changed = [step for step in plan.steps if weights.shown.get(step.output) != step.digest]
            aliased = [step for step in changed if self._alias(step, weights, plan.dtype)]
            taken = {step.output for step in aliased}
            merged = [step for step in changed if step.output not in taken]
            computed = [s for s in merged if self._contents.get(s.output) != s.digest]
            self._compute(computed, weights, plan.dtype)
            for step in merged:
                weights.show(step, self._buffers[step.output])
        self.last = Materialisation(
            num_computed=len(computed),
            num_aliased=len(aliased),
            num_reused=len(plan.steps) - len(computed) - len(aliased),
            bytes_read=sum(self._bytes_read(step) for step in computed),
            bytes_written=sum(self._buffers[step.output].nbytes for step in computed),
            seconds=time.perf_counter() - started,
        )
        return weights.model

    def _resident(self, plan: Plan) -> _Weights:
        """Returns the model's weights, of a new model if the configuration has changed."""
        wanted = (plan.config, plan.dtype, plan.donor)
        if self._weights is None or self._built_for != wanted:
            self._weights = None
            donor = self._checkpoints[plan.donor].path
            model = build_skeleton(plan.config, plan.dtype, donor, self._device)
            self._weights = _Weights(model, {step.output for step in plan.steps})
            self._built_for = wanted
        return self._weights

    def _alias(self, step: Step, weights: _Weights, dtype: str) -> bool:
        """Points a parameter at a source tensor if that is the result; tells whether it did."""
        role, name = step.inputs[0]
        if not step.is_copy or self._checkpoints[role].tensors[name].torch_dtype != dtype:
            return False
        tensor = self._inputs.kept(step.inputs[0])
        if tensor is None:
            return False
        weights.show(step, tensor)
        return True

    def _compute(self, steps: list[Step], weights: _Weights, dtype: str) -> None:
        """Fills the buffers of steps; remembers their content only once all of it is finite."""
        import torch

        jobs: list[tuple[Step, Callable[[], Started]]] = []
        for step in steps:
            weights.shown.pop(step.output, None)
            self._contents.pop(step.output, None)
            out = self._buffer(step, getattr(torch, dtype))
            jobs += [(step, job) for job in self._jobs(step, out)]
        counts = finish(run_jobs([job for _, job in jobs], self._device))
        for (step, _), count in zip(jobs, counts, strict=True):
            check_finite(step, count)
        self._memos.settle()
        self._contents.update({step.output: step.digest for step in steps})

    def _jobs(self, step: Step, out: torch.Tensor) -> list[Callable[[], Started]]:
        """What fills the buffer of a step, in parts that do not depend on each other."""
        if not step.blocks:
            return [partial(self._merge, step, out, self._memos.of(step.call))]
        return [
            partial(start_block, block, self._inputs.get, out, self._memos.of(block.call))
            for block in step.blocks
        ]

    def _merge(self, step: Step, out: torch.Tensor, memo: TensorMemo) -> Started:
        sources = [self._inputs.get(reference) for reference in step.inputs]
        base = None if step.base is None else self._inputs.get(step.base)
        return start_step(step, sources, base, out, memo)

    def _buffer(self, step: Step, dtype: torch.dtype) -> torch.Tensor:
        import torch

        buffer = self._buffers.get(step.output)
        if buffer is None or buffer.shape != step.shape or buffer.dtype != dtype:
            buffer = torch.empty(step.shape, dtype=dtype, device=self._device)
            self._buffers[step.output] = buffer
        return buffer

    def _bytes_read(self, step: Step) -> int:
        references = step.inputs if step.base is None else (*step.inputs, step.base)
        return sum(self._checkpoints[role].tensors[name].nbytes for role, name in references)


class _Weights:
    """The parameters of a resident model and which step each of them shows.

    Attributes:
        model: The model.
        shown: Output name -> digest of the verified step that the parameter shows.
    """

    def __init__(self, model: PreTrainedModel, outputs: set[str]) -> None:
        self.model = model
        self.shown: dict[str, str] = {}
        self._places = parameter_places(model)
        self._parameters: dict[str, torch.nn.Parameter] = {}
        unknown = sorted(outputs - self._places.keys())
        if unknown:
            raise CheckpointError(f"{type(model).__name__} has no parameter {unknown[0]}")
        filled = {place for output in outputs for place in self._places[output]}
        for name, places in self._places.items():
            if not filled.issuperset(places):
                raise CheckpointError(f"{type(model).__name__} needs {name}, the models lack it")

    def show(self, step: Step, tensor: torch.Tensor) -> None:
        """Makes a parameter, under all its names, show a tensor without copying it."""
        import torch

        if step.output in self._parameters:
            self._parameters[step.output].data = tensor
        else:
            parameter = torch.nn.Parameter(tensor, requires_grad=False)
            self._parameters[step.output] = parameter
            for module, attribute in self._places[step.output]:
                setattr(module, attribute, parameter)
        self.shown[step.output] = step.digest
