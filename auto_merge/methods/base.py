"""How a merge method is declared: one small file per family holds the formula and this declaration.

Search spaces, validation, docs and the JSON schema all read the declaration, so adding a method
is one file plus its line in :mod:`auto_merge.methods`.
Modules of this room import torch inside functions only: reading a declaration costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from auto_merge.registry import Registry

if TYPE_CHECKING:
    import torch

    from auto_merge.methods.kernels import Work


@dataclass(frozen=True)
class Parameter:
    """A declared parameter of a merge method.

    Attributes:
        name: Name in recipes.
        low: Smallest legal value.
        high: Largest legal value.
        default: Value where a recipe gives none.
        per_source: Whether every source has its own value (then it is passed as a tuple of K).
        doc: Meaning, in one line.
    """

    name: str
    low: float
    high: float
    default: float
    per_source: bool
    doc: str


Arguments = Mapping[str, "float | tuple[float, ...]"]
"""Resolved parameters of one tensor: a float, or K floats for a per-source parameter."""


@dataclass(frozen=True)
class Call:
    """One tensor's merge with every parameter resolved; the unit that is simplified and hashed.

    Attributes:
        method: Name of the merge method.
        sources: K keys of the input tensors (any strings that sort and compare by identity).
        base: Key of the base tensor, or ``None``.
        arguments: Resolved parameters.
    """

    method: str
    sources: tuple[str, ...]
    base: str | None
    arguments: Arguments


class Memo(Protocol):
    """Memory of a method for things that depend on the input tensors alone.

    The engine hands every tensor its own memo and drops it under memory pressure.
    """

    def __call__(self, key: str, compute: Callable[[], Any]) -> Any:
        """Returns the value stored under ``key``, computing it at most once."""


class MergeFunction(Protocol):
    """Computes one merged tensor."""

    def __call__(
        self,
        tensors: Sequence[torch.Tensor],
        base: torch.Tensor | None,
        arguments: Arguments,
        out: torch.Tensor,
        memo: Memo,
    ) -> Work | None:
        """Writes the merge of K equally shaped ``tensors`` into ``out``.

        Returns:
            ``None`` if ``out`` is written, else the work of :mod:`auto_merge.methods.kernels` that
            writes all of it; the caller runs it.

        Args:
            tensors: K tensors of one shape, any floating dtype, contiguous, never written to.
            base: Tensor of the same shape; ``None`` only if the method does not need one.
            arguments: Every declared parameter of the method, resolved.
            out: Contiguous tensor of the same shape and device. Arithmetic is float32, cast once.
            memo: Cache for work that depends on ``tensors`` and ``base`` only.
        """


@dataclass(frozen=True)
class Method:
    """A merge method.

    Attributes:
        name: Name in recipes and configurations.
        merge: The formula.
        simplify: Maps a call to the simplest equal call (zero weights dropped, one-hot turned into
            ``passthrough``, sources in canonical order), so that equal merges share one digest.
        parameters: Declared parameters.
        needs_base: Whether a base model is required.
        min_sources: Smallest number of sources.
        max_sources: Largest number of sources, ``None`` for any.
        paper: Reference of the formula.
        doc: What it does, in one line.
    """

    name: str
    merge: MergeFunction
    simplify: Callable[[Call], Call]
    parameters: tuple[Parameter, ...]
    needs_base: bool
    min_sources: int
    max_sources: int | None
    paper: str
    doc: str

    def parameter(self, name: str) -> Parameter:
        """Returns the declared parameter ``name``; ``KeyError`` if there is none."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(name)


METHODS: Registry[Method] = Registry("merge method")
