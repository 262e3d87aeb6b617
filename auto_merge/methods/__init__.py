"""Merge methods: pure functions of tensors with declared parameters, one file per family.

Importing this package completes :data:`METHODS` and loads no torch.
"""

from auto_merge.methods import linear, passthrough, slerp, task_arithmetic, ties
from auto_merge.methods.base import METHODS, Arguments, Call, Memo, Method, Parameter
from auto_merge.methods.kernels import status

__all__ = [
    "METHODS",
    "Arguments",
    "Call",
    "Memo",
    "Method",
    "Parameter",
    "linear",
    "passthrough",
    "slerp",
    "status",
    "task_arithmetic",
    "ties",
]
