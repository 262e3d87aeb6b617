"""Hyperparameter names of layer-wise fusion, exactly as the published search system writes them.

============================================================================= =====================
``layer_selection_method_{group}``                                             method of the group
``model_{M}_layer_{group}_paramset_{P}_method_{method}_param_{parameter}``     value per source
``layer_{group}_paramset_{P}_method_{method}_param_{parameter}``               value for all sources
============================================================================= =====================

``M`` is the literal model name, ``P`` a module group of the configuration's ``filters`` or
``"base"`` for every other tensor (norms, and the embeddings and head of the outer groups).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

OTHER = "base"
"""Parameter set of the tensors that no filter selects."""

_SELECTION = re.compile(r"^layer_selection_method_(?P<group>\d+)$")
_VALUE = re.compile(
    r"^(?:model_(?P<model>.+)_)?layer_(?P<group>\d+)_paramset_(?P<paramset>.+)"
    r"_method_(?P<method>linear|task_arithmetic|ties|slerp)_param_(?P<parameter>.+)$"
)


@dataclass(frozen=True)
class ValueName:
    """A parsed hyperparameter name that holds a number.

    Attributes:
        group: Layer group, from 0.
        paramset: Filter, or :data:`OTHER`.
        method: Merge method that the value belongs to.
        parameter: Published parameter name (``"slerp_t"``).
        model: Model name; ``None`` if the value holds for all sources.
    """

    group: int
    paramset: str
    method: str
    parameter: str
    model: str | None = None

    def __str__(self) -> str:
        prefix = "" if self.model is None else f"model_{self.model}_"
        return (
            f"{prefix}layer_{self.group}_paramset_{self.paramset}"
            f"_method_{self.method}_param_{self.parameter}"
        )


def selection_name(group: int) -> str:
    """Name of the method choice of a layer group."""
    return f"layer_selection_method_{group}"


def parse_selection(name: str) -> int | None:
    """Returns the layer group if ``name`` is a method choice, else ``None``."""
    match = _SELECTION.match(name)
    return int(match["group"]) if match else None


def parse_value(name: str) -> ValueName | None:
    """Parses the name of a number; ``None`` if it is not one."""
    match = _VALUE.match(name)
    if match is None:
        return None
    return ValueName(
        int(match["group"]), match["paramset"], match["method"], match["parameter"], match["model"]
    )
