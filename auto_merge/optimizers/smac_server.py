"""The process in which SMAC runs: one JSON line in, one JSON line out, until stdin ends.

First line: ``{"space": <serialised ConfigurationSpace>}``, answered by ``{"ready": true}``. Each
further line is a request ``{"seed", "rows": [[configuration, cost, documents], ...], "pending":
[configuration, ...]}``, answered by ``{"configuration": {...}}``, with ``null`` if nothing new was
found, or by ``{"error": text}``. Answers depend on the request alone.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Mapping
from typing import IO, Any

from auto_merge.optimizers.proposer import configuration_key, plain_value
from auto_merge.trial import Value


def main() -> None:
    """Serves requests; ends when the parent closes the pipe or dies."""
    # Whatever a library prints must not mix with the answers: they get a descriptor of their own.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")
    serve(sys.stdin, answers)


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answers every line of ``requests`` on ``answers``; the first one brings the space."""
    from ConfigSpace import ConfigurationSpace

    suggester: Suggester | None = None
    for line in requests:
        try:
            request = json.loads(line)
            if suggester is None:
                space = ConfigurationSpace.from_serialized_dict(request["space"])
                suggester = Suggester(space)
                answer: dict[str, Any] = {"ready": True}
            else:
                answer = {"configuration": suggester.suggest(request)}
        except Exception as error:  # noqa: BLE001 - the parent turns it into an error of its own
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Suggester:
    """Answers requests on one space.

    Args:
        space: The search space.
    """

    def __init__(self, space: Any) -> None:
        self._space = space
        # Checking a configuration of 200 hyperparameters takes a millisecond; they all come again.
        self._parsed: dict[tuple[tuple[str, Value], ...], Any] = {}

    def suggest(self, request: Mapping[str, Any]) -> dict[str, Value] | None:
        """Returns the best configuration that is neither told nor pending, or ``None``."""
        rows = [
            (self._configuration(values), cost, documents)
            for values, cost, documents in request["rows"]
        ]
        pending = [self._configuration(values) for values in request["pending"]]
        from auto_merge.optimizers.smac_search import challengers

        known = {configuration_key(row[0]) for row in request["rows"]}
        known.update(configuration_key(values) for values in request["pending"])
        for challenger in challengers(self._space, rows, pending, request["seed"]):
            values = {name: plain_value(value) for name, value in challenger.items()}
            if configuration_key(values) not in known:
                return values
        return None

    def _configuration(self, values: Mapping[str, Value]) -> Any:
        from ConfigSpace import Configuration

        key = configuration_key(values)
        if key not in self._parsed:
            self._parsed[key] = Configuration(self._space, values=dict(values))
        return self._parsed[key]
