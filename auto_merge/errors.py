"""Every error that auto_merge raises on purpose.

::

    AutoMergeError                 exit code 1, printed as one line
    ├── UserError                  exit code 2: wrong usage, wrong file, wrong value
    │   ├── ConfigError            a configuration file or a --set key
    │   ├── RecipeError            a recipe that cannot be built from the given models
    │   ├── CheckpointError        a model folder that is missing, damaged or refused
    │   ├── TaskError              an evaluation task or metric
    │   └── RunError               a run folder: in use, different, damaged
    ├── InvalidWeightsError        a merge produced NaN or infinity
    └── TrialTimeoutError          a trial exceeded its time limit
    Interrupted                    exit code 130: somebody asked to stop

A message states the rule, the value, the place and the next step, in one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AutoMergeError(Exception):
    """Root of all errors raised on purpose."""


class UserError(AutoMergeError):
    """Something that the person running the program can put right."""


class ConfigError(UserError):
    """A configuration file, an included file or a ``--set`` key is wrong."""


class RecipeError(UserError):
    """A recipe does not fit the models that it names."""


class CheckpointError(UserError):
    """A model folder is missing, damaged, unsafe or of an unsupported kind."""


class TaskError(UserError):
    """A task or metric is unknown, empty or cannot be used as an objective."""


class RunError(UserError):
    """A run folder is in use, belongs to another configuration or is damaged."""


class SandboxError(AutoMergeError):
    """The sandbox for generated code could not be started: this machine's fault, no model's."""


class InvalidWeightsError(AutoMergeError):
    """A merged tensor contains NaN or infinity."""


class TrialTimeoutError(AutoMergeError):
    """The evaluation of one trial took longer than its limit."""


class Interrupted(Exception):
    """Somebody asked to stop; what was done so far is stored."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the nearest known name, else the list of names.

    The text is ready to be appended to an error message. An empty ``known`` gives ``""``.
    """
    names = sorted(str(item) for item in known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""
