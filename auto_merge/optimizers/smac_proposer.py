"""SMAC as a proposer: the client of the process in which SMAC runs."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from auto_merge.errors import AutoMergeError
from auto_merge.optimizers.proposer import Observation, Proposal, RandomProposer, child_seed
from auto_merge.trial import Status

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace

MIN_ROWS = 10
"""Told configurations before the first fit."""
MIN_SUCCESSES = 3
"""Successes among them."""
RANDOM_SHARE = 0.08
"""Share of random configurations among the later proposals (SMAC interleaves 8 to 20 %)."""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_COMMAND = (
    "import sys; sys.path[0] = {parent!r}; "
    "from auto_merge.optimizers.smac_server import main; main()"
)


class SmacProposer:
    """Proposes what SMAC expects to improve most on the best known configuration.

    Until there are enough rows, and for a small share later on, it proposes at random. SMAC runs in
    a child process with one thread and a fixed ``PYTHONHASHSEED``, started at the first fit; that
    makes proposals reproducible and leaves this process free. The child ends with this process,
    however that dies, because its standard input ends.

    Args:
        space: The search space; it is serialised, never shared.
        seed: Root seed.
    """

    def __init__(self, space: ConfigurationSpace, seed: int) -> None:
        self._seed = seed
        self._space = space.to_serialized_dict()
        self._random = RandomProposer(space, seed)
        self._child: _Child | None = None

    def propose(self, history: Sequence[Observation]) -> Proposal | None:
        """Returns SMAC's next configuration; see ``Proposer.propose``.

        Raises:
            AutoMergeError: The SMAC process reported an error, or died twice in a row.
        """
        request = self._request(history)
        if request is None:
            return self._random.propose(history)
        configuration = self._ask(request)["configuration"]
        if configuration is None:
            return self._random.propose(history)
        return Proposal(configuration, "smac")

    def close(self) -> None:
        """Ends the child process; the next proposal would start a new one."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _request(self, history: Sequence[Observation]) -> dict[str, Any] | None:
        """Returns what is to be sent, or ``None`` if it is the turn of a random configuration."""
        told = [entry for entry in history if entry.status is not None]
        costs = {
            entry.config_id: entry.cost
            for entry in told
            if entry.status is Status.SUCCESS and entry.cost is not None
        }
        if len(told) < MIN_ROWS or len(costs) < MIN_SUCCESSES:
            return None
        seed = child_seed(self._seed, "smac", len(history))
        if random.Random(seed).random() < RANDOM_SHARE:
            return None
        # A failure tells where not to go; a cost far outside the others would bend the surrogate.
        worst = max(costs.values())
        return {
            "seed": seed,
            "rows": [
                [dict(entry.configuration), costs.get(entry.config_id, worst), entry.fidelity]
                for entry in told
            ],
            "pending": [dict(entry.configuration) for entry in history if entry.status is None],
        }

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request; a child that died is replaced once."""
        for attempt in (1, 2):
            if self._child is None:
                self._child = _Child()
                fresh = True
            else:
                fresh = False
            try:
                if fresh:
                    self._child.exchange({"space": self._space})
                return self._child.exchange(request)
            except _ChildDiedError as error:
                self.close()
                if attempt == 2:
                    raise AutoMergeError(f"{error}; it was restarted once already") from None
        raise AssertionError("unreachable: the second attempt returns or raises")


class _ChildDiedError(Exception):
    """The child process ended instead of answering."""


class _Child:
    """A running SMAC process and its pipes; its stderr is kept for error messages."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND.format(parent=_PACKAGE_PARENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **_ONE_THREAD, "PYTHONHASHSEED": "0"},
            encoding="utf-8",
            # Ctrl-C in a terminal reaches the whole group; the parent decides when this one ends.
            start_new_session=True,
        )
        self.close = weakref.finalize(self, _stop, self._process, self._errors)

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends one line and returns the answer.

        Raises:
            _ChildDiedError: The process ended.
            AutoMergeError: It answered with an error.
        """
        assert self._process.stdin is not None, "the child is started with pipes"
        assert self._process.stdout is not None, "the child is started with pipes"
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):
            code = self._process.wait()
            raise _ChildDiedError(f"the SMAC process ended with code {code}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise AutoMergeError(f"SMAC could not propose a configuration: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "no message"


def _stop(process: subprocess.Popen[str], errors: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, errors):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:
                continue
