"""Fine-tune one specialist per skill from `out/base`, on the CPU, in minutes each.

All weights are trained (float32 masters, bfloat16 arithmetic), the loss counts the answer and the
end token only, and every training document comes from the training split of `skills.py`. Finished
specialists are skipped, so an interrupted run is simply started again.

    python examples/smollm2/train.py [--only add] [--threads 1] [--overwrite]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from prepare import appearing_when_complete, is_complete
from skills import SKILLS, Document, documents

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """How a specialist is trained.

    Attributes:
        steps: optimiser steps.
        batch: documents per step.
        peak_rate: learning rate after warm-up; it falls linearly to a tenth at the last step.
        warm_up: steps of linear rise to the peak.
        seed: of the document stream, the only source of randomness (there is no dropout).
    """

    steps: int = 60
    batch: int = 16
    peak_rate: float = 3e-5
    warm_up: int = 8
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, ..., `steps` - 1."""
        if step < self.warm_up:
            return self.peak_rate * (step + 1) / self.warm_up
        left = (self.steps - 1 - step) / max(1, self.steps - 1 - self.warm_up)
        return self.peak_rate * (0.1 + 0.9 * left)


def encode(tokenizer: Any, batch: list[Document]) -> tuple[Any, Any, Any]:
    """Right-padded token ids, attention mask and targets, each int64 of (documents, longest).

    The target at a position is the token that follows it, or -100 where that token belongs to the
    prompt or the padding.
    """
    import torch

    prompts = [tokenizer(document.prompt).input_ids for document in batch]
    answers = [tokenizer(" " + document.answer).input_ids for document in batch]
    answers = [[*answer, tokenizer.eos_token_id] for answer in answers]
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.full((len(batch), longest), tokenizer.eos_token_id)
    mask, targets = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        mask[row, :end] = 1
        targets[row, len(prompt) - 1 : end - 1] = torch.tensor(answer)
    return ids, mask, targets


def answer_loss(model: Any, ids: Any, mask: Any, targets: Any) -> Any:
    """Mean cross-entropy (nats) of the answer tokens; logits are computed for those alone."""
    import torch

    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
        counted = targets != -100
        logits = model.lm_head(hidden[counted])
    return torch.nn.functional.cross_entropy(logits.float(), targets[counted])


def optimise(model: Any, tokenizer: Any, skill: str, settings: Settings) -> Iterator[float]:
    """Train `model` in place; yields the loss of every step."""
    import torch

    stream = documents(skill, "train", settings.seed)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    model.train()
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.rate(step)
        loss = answer_loss(model, *encode(tokenizer, list(islice(stream, settings.batch))))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        yield loss.item()
    model.eval()


def train(skill: str, base: Path, output: Path, settings: Settings, threads: int) -> None:
    """Fine-tune `base` on `skill` and save a bfloat16 folder with `training.json` beside it.

    The folder appears when everything is written.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    start, losses = time.monotonic(), []
    for loss in optimise(model, tokenizer, skill, settings):
        losses.append(round(loss, 4))
        if len(losses) % 5 == 0 or len(losses) == settings.steps:
            spent = time.monotonic() - start
            left = spent / len(losses) * (settings.steps - len(losses))
            say(f"{skill}: step {len(losses)}/{settings.steps}, loss {loss:.3f}, {left:.0f} s left")
    record = {
        "skill": skill,
        "settings": asdict(settings),
        "seconds": round(time.monotonic() - start),
        "threads": threads,
        "losses": losses,
    }
    with appearing_when_complete(output) as scratch:
        model.to(torch.bfloat16).save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        (scratch / "training.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    say(f"{skill}: saved {output} after {record['seconds']} s")


def say(line: str) -> None:
    """One progress line, at once, to standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code (0 done, 1 no base model)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=[*SKILLS], help="one specialist instead of all")
    parser.add_argument("--folder", type=Path, default=HERE / "out", help="holds base; gets skills")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--overwrite", action="store_true", help="train finished ones again")
    options = parser.parse_args(arguments)
    if not is_complete(options.folder / "base"):
        say(f"train: no model in {options.folder / 'base'}; run prepare.py first")
        return 1
    for skill in [options.only] if options.only else SKILLS:
        output = options.folder / skill
        if is_complete(output) and not options.overwrite:
            say(f"{skill}: already there")
        else:
            train(skill, options.folder / "base", output, Settings(), options.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
