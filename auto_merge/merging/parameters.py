"""Checks a slice's parameters against its method's declaration and resolves them per tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping

from auto_merge.checkpoints.families import Family
from auto_merge.errors import RecipeError, UserError, nearest
from auto_merge.methods.base import METHODS, Arguments, Method, Parameter
from auto_merge.recipe.model import Entry, Parameters, Slice


def checked_method(part: Slice, place: str) -> Method:
    """Returns the method of a slice after checking its number of sources and its parameters.

    Args:
        part: The slice.
        place: Where it stands, for messages (``"slices[0]"``).

    Raises:
        RecipeError: Unknown method or parameter, wrong number of sources, value out of range.
    """
    try:
        method = METHODS.get(part.method)
    except UserError as error:
        raise RecipeError(f"{place}: {error}") from None
    _check_count(method, len(part.sources), place)
    _check_parameters(method, part.parameters, place, per_source=False)
    for number, source in enumerate(part.sources):
        inner = f"{place}.sources[{number}]"
        _check_parameters(method, source.parameters, inner, per_source=True)
    return method


class Resolver:
    """Resolves the parameters of one slice, tensor by tensor.

    Tensors that the same filters select share one result.

    Attributes:
        filters: All filters of the slice's entries.
    """

    def __init__(self, part: Slice, method: Method, family: Family) -> None:
        self._method = method
        self._family = family
        self._part = part
        lists = [*part.parameters.values()]
        lists += [entries for source in part.sources for entries in source.parameters.values()]
        filters = {entry.filter for entries in lists for entry in entries}
        self.filters = sorted(text for text in filters if text is not None)
        self._resolved: dict[frozenset[str], Arguments] = {}

    def arguments(self, tensor: str) -> Arguments:
        """Returns every declared parameter of the method for an output tensor."""
        matching = frozenset(text for text in self.filters if self._family.matches(text, tensor))
        if matching not in self._resolved:
            self._resolved[matching] = {
                parameter.name: self._value(parameter, matching)
                for parameter in self._method.parameters
            }
        return self._resolved[matching]

    def _value(self, parameter: Parameter, matching: frozenset[str]) -> float | tuple[float, ...]:
        if not parameter.per_source:
            return _select(self._part.parameters, parameter, matching)
        return tuple(
            _select(source.parameters, parameter, matching) for source in self._part.sources
        )


def _select(parameters: Parameters, parameter: Parameter, matching: frozenset[str]) -> float:
    """First entry whose filter matches, else the entry without filter, else the default."""
    entries = parameters.get(parameter.name, ())
    for entry in entries:
        if entry.filter is not None and entry.filter in matching:
            return _number(entry)
    for entry in entries:
        if entry.filter is None:
            return _number(entry)
    return parameter.default


def _number(entry: Entry) -> float:
    return float(entry.value) + 0.0  # turns -0.0 into 0.0, which has another text


def _check_count(method: Method, count: int, place: str) -> None:
    most = method.max_sources
    if count >= method.min_sources and (most is None or count <= most):
        return
    if most is None:
        wanted = f"at least {_sources(method.min_sources)}"
    elif most == method.min_sources:
        wanted = f"exactly {_sources(most)}"
    else:
        wanted = f"{method.min_sources} to {_sources(most)}"
    raise RecipeError(f"{place}: {method.name} takes {wanted}, found {count}")


def _sources(count: int) -> str:
    return "1 source" if count == 1 else f"{count} sources"


def _check_parameters(
    method: Method, parameters: Mapping[str, tuple[Entry, ...]], place: str, *, per_source: bool
) -> None:
    legal = {p.name: p for p in method.parameters if p.per_source == per_source}
    for name, entries in parameters.items():
        if name not in legal:
            raise RecipeError(_misplaced(method, name, place, legal, per_source=per_source))
        for entry in entries:
            _check_value(legal[name], entry.value, f"{place}.parameters.{name}")


def _misplaced(
    method: Method, name: str, place: str, legal: Mapping[str, Parameter], *, per_source: bool
) -> str:
    if any(parameter.name == name for parameter in method.parameters):
        right = "the slice, not of a source" if per_source else "each source, not of the slice"
        return f"{place}: {name!r} of {method.name} is a parameter of {right}"
    hint = nearest(name, legal) or "; it has none"
    owner = "a source" if per_source else "a slice"
    return f"{place}: {method.name} has no parameter {name!r} of {owner}{hint}"


def _check_value(parameter: Parameter, value: object, place: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not parameter.low <= value <= parameter.high:  # type: ignore[arg-type, operator]
        raise RecipeError(
            f"{place}: {value!r} is not a number from {parameter.low:g} to {parameter.high:g}"
        )
