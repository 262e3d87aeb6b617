"""Trains the zoo: a base that half knows every skill, and one specialist of it per skill.

``python -m auto_merge.zoo.train OUT --seed 0`` writes a folder per model. Training ends by rule,
not by step count: the base once it is half-way on the mean of the skills, a specialist once it
knows its own skill. The specialists differ in how hard they were trained, as checkpoints from
different hands do; that is what makes one scale for all of them a poor merge.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from auto_merge.zoo.skills import SKILLS, Skill, pool

State = dict[str, Any]


@dataclass(frozen=True)
class Schedule:
    """How one model is trained.

    Attributes:
        shares: share of each skill in the batches, in the order of ``SKILLS``; any positive sum.
        learning_rate: peak rate of AdamW, reached after ``warm_up`` steps.
        warm_up: steps of linear warm-up.
        horizon: step at which the linear decay reaches a tenth of the peak, where it stays.
        stop_mean: training ends once the mean accuracy of the watched skills reaches this ...
        stop_each: ... and each watched skill reaches this.
        watched: indices into ``SKILLS`` of the skills that the stop rule looks at.
        max_steps: more steps than this mean that the rule cannot be met.
        batch_size: examples per step.
        check_every: steps between two looks at the stop rule.
    """

    shares: tuple[float, ...]
    learning_rate: float
    warm_up: int
    horizon: int
    stop_mean: float
    stop_each: float
    watched: tuple[int, ...]
    max_steps: int
    batch_size: int = 128
    check_every: int = 10

    def rate(self, step: int) -> float:
        """Learning rate of step ``step``, counted from 0."""
        decay = max(0.1, 1 - 0.9 * step / self.horizon)
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up) * decay


CHECK_EXAMPLES = 300

# Reverse and swap are rare enough that the base stops well short of them.
BASE = Schedule(
    shares=(1.5, 0.8, 1.5, 1.3, 0.5),
    learning_rate=2e-3,
    warm_up=20,
    horizon=900,
    stop_mean=0.5,
    stop_each=0.3,
    watched=tuple(range(len(SKILLS))),
    max_steps=600,
    batch_size=192,
)


def _specialist(index: int, learning_rate: float, stop: float, rehearsal: float) -> Schedule:
    """Mostly one skill; ``rehearsal`` is the share of each of the others."""
    shares = [rehearsal] * len(SKILLS)
    shares[index] = 1 - rehearsal * (len(SKILLS) - 1)
    return Schedule(
        shares=tuple(shares),
        learning_rate=learning_rate,
        warm_up=5,
        horizon=100,
        stop_mean=stop,
        stop_each=stop,
        watched=(index,),
        max_steps=300,
    )


# Two mild specialists and three that moved far from the base: no single scale suits both kinds.
# Without rehearsal the specialists destroy each other's skills and no merge is good.
SPECIALISTS: dict[str, Schedule] = {
    "reverse": _specialist(0, 3e-4, 0.97, rehearsal=0.015),
    "sort": _specialist(1, 1.2e-3, 0.985, rehearsal=0.03),
    "swap": _specialist(2, 3e-4, 0.97, rehearsal=0.015),
    "after": _specialist(3, 1.2e-3, 0.985, rehearsal=0.03),
    "before": _specialist(4, 1.2e-3, 0.985, rehearsal=0.03),
}


def _check_examples(skill: Skill) -> Any:
    """Fixed operands from the training split on which the stop rule is judged."""
    return np.random.default_rng(1).permutation(pool(skill, "train"))[:CHECK_EXAMPLES]


def fit(model: Any, schedule: Schedule, seed: tuple[int, ...], say: Callable[[str], None]) -> int:
    """Train ``model`` in place until the stop rule holds.

    Args:
        model: a zoo model in float32.
        schedule: what to train on and when to stop.
        seed: entropy of the generator that draws the batches.
        say: receives a progress line at every check.

    Returns:
        Number of steps taken.

    Raises:
        RuntimeError: if the stop rule is not met within ``schedule.max_steps``.
    """
    import torch

    from auto_merge.zoo.scoring import IGNORED, Mixture, encode, exact_matches

    total = sum(schedule.shares)
    weights = {skill: share / total for skill, share in zip(SKILLS, schedule.shares, strict=True)}
    mixture = Mixture(weights, schedule.batch_size, np.random.default_rng(seed))
    watched = [encode(SKILLS[i], _check_examples(SKILLS[i])) for i in schedule.watched]
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(schedule.max_steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        tokens, labels = mixture.draw()
        hidden = model.model(tokens[:, :-1], use_cache=False).last_hidden_state
        targets = labels[:, 1:]
        scored = targets != IGNORED
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[scored]), targets[scored])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % schedule.check_every == 0:
            right = [float(exact_matches(model, *rows).double().mean()) for rows in watched]
            accuracies = " ".join(f"{value:.2f}" for value in right)
            say(f"step {step + 1:3d}  loss {loss.item():.3f}  accuracy {accuracies}")
            if np.mean(right) >= schedule.stop_mean and min(right) >= schedule.stop_each:
                return step + 1
    raise RuntimeError(f"the stop rule was not met within {schedule.max_steps} steps")


def _train(name: str, schedule: Schedule, seed: tuple[int, ...], start: State | None) -> State:
    """Train one model with one thread; also the body of a worker process."""
    import torch

    from auto_merge.zoo.models import build_model

    torch.set_num_threads(1)
    model = build_model(seed[0])
    if start is not None:
        model.load_state_dict(start)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{name:8s} {time.monotonic() - began:5.0f} s  {line}", flush=True)

    fit(model, schedule, seed, say)
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def train(
    seed: int,
    base: Schedule = BASE,
    specialists: Mapping[str, Schedule] = SPECIALISTS,
    processes: int = 2,
) -> dict[str, State]:
    """Train the whole zoo.

    The result depends on the arguments but not on ``processes``: every model is trained by one
    thread with its own generator.

    Args:
        seed: root seed, at least 0.
        base: schedule of the base.
        specialists: schedule of each specialist by name.
        processes: specialists trained at the same time.

    Returns:
        State dictionary (float32) of ``base`` and of every specialist.
    """
    states = {"base": _train("base", base, (seed, 0), None)}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as executor:
        running = {
            name: executor.submit(_train, name, schedule, (seed, index + 1), states["base"])
            for index, (name, schedule) in enumerate(specialists.items())
        }
        states.update((name, future.result()) for name, future in running.items())
    return states


def main(arguments: list[str] | None = None) -> int:
    """Command line of the training script."""
    from auto_merge.zoo.models import build_model, save

    parser = argparse.ArgumentParser(prog="auto_merge.zoo.train", description=__doc__)
    parser.add_argument("out", type=Path, help="new folder; one model folder is written per name")
    parser.add_argument("--seed", type=int, default=0, help="root seed (the shipped zoo: 0)")
    options = parser.parse_args(arguments)
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty; give a new folder")
    for name, state in train(options.seed).items():
        model = build_model(options.seed)
        model.load_state_dict(state)
        save(model, options.out / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
