"""Table of what plain merges score: sources, uniform average and task arithmetic at single scales.

A quick look before a search, on the first documents of the search split. Free answers count as
right when greedy decoding would write exactly the answer and then stop: one forward pass tells.

    python examples/smollm2/landscape.py [--documents 80] [--scales 0.33 0.5 0.7 0.9 1.1]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from skills import SKILLS

HERE = Path(__file__).resolve().parent
TASKS = (*SKILLS, "facts")
BATCH = 32


def logits_after(model: Any, tokenizer: Any, texts: list[tuple[str, str]]) -> Iterator[Any]:
    """For each (prompt, answer): answer token ids (n,) and float32 logits (n + 1, vocabulary).

    Row i predicts token i of the answer; the last row predicts what follows it.
    """
    import torch

    prompts = [tokenizer(prompt).input_ids for prompt, _ in texts]
    answers = [tokenizer(" " + answer).input_ids for _, answer in texts]
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.full((len(texts), longest), tokenizer.eos_token_id)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
    with torch.inference_mode():
        hidden = model.model(input_ids=ids).last_hidden_state  # padding on the right: causal
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            span = hidden[row, len(prompt) - 1 : len(prompt) + len(answer)]
            yield torch.tensor(answer), model.lm_head(span).float()


def is_written(tokenizer: Any, answer: Any, logits: Any) -> bool:
    """Whether greedy decoding writes `answer` and then the end token or a line break."""
    best = logits.argmax(-1)
    stops = best[-1] == tokenizer.eos_token_id or tokenizer.decode(best[-1:]).startswith("\n")
    return bool(stops and (best[:-1] == answer).all())


def is_right(tokenizer: Any, row: dict[str, Any], results: list[tuple[Any, Any]]) -> bool:
    """Whether a row is answered: the exact text written, or its choice the most probable one."""
    if "choices" not in row:
        return is_written(tokenizer, *results[0])
    sums = [
        logits[:-1].log_softmax(-1).gather(1, ids[:, None]).sum().item() for ids, logits in results
    ]
    return bool(sums.index(max(sums)) == row["answer"])


def score(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> float:
    """Mean accuracy over `rows`."""
    right = 0
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        answers = [row.get("choices", [row["answer"]]) for row in part]
        texts = []
        for row, own in zip(part, answers, strict=True):
            texts += [(row["prompt"], text) for text in own]
        found = logits_after(model, tokenizer, texts)
        for row, own in zip(part, answers, strict=True):
            right += is_right(tokenizer, row, list(islice(found, len(own))))
    return right / len(rows)


def combine(model: Any, sources: dict[str, dict[str, Any]], weights: dict[str, float]) -> None:
    """Set `model` to base + sum of weight x (source - base), summed in float32, cast once."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            base = sources["base"][name].float()
            total = base.clone()
            for source, weight in weights.items():
                total += weight * (sources[source][name].float() - base)
            parameter.copy_(total)


def candidates(scales: list[float]) -> Iterator[tuple[str, dict[str, float]]]:
    """Rows of the table: label and weight of every specialist's difference to the base."""
    yield "base", {}
    for skill in SKILLS:
        yield f"specialist {skill}", {skill: 1.0}
    for scale in [1 / len(SKILLS), *scales]:
        label = "average" if scale == 1 / len(SKILLS) else f"task arithmetic {scale:g}"
        yield label, dict.fromkeys(SKILLS, scale)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=HERE / "out")
    parser.add_argument("--tasks", type=Path, default=HERE / "tasks")
    parser.add_argument("--split", choices=("search", "heldout"), default="search")
    parser.add_argument("--documents", type=int, default=80)
    parser.add_argument("--scales", type=float, nargs="*", default=[0.5, 0.7, 0.9, 1.1])
    options = parser.parse_args(arguments)
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(options.folder / "base")
    model = AutoModelForCausalLM.from_pretrained(options.folder / "base", dtype=torch.bfloat16)
    sources = {
        name: load_file(options.folder / name / "model.safetensors") for name in ("base", *SKILLS)
    }
    rows = {}
    for task in TASKS:
        lines = (options.tasks / f"{task}_{options.split}.jsonl").read_text(encoding="utf-8")
        rows[task] = [json.loads(line) for line in lines.splitlines()[: options.documents]]
    sys.stdout.write("| model | " + " | ".join(TASKS) + " | seconds |\n|---|" + "---|" * 5 + "\n")
    for label, weights in candidates(options.scales):
        combine(model, sources, weights)
        start = time.process_time()
        scores = [f"{score(model, tokenizer, rows[task]):.3f}" for task in TASKS]
        seconds = time.process_time() - start
        sys.stdout.write(f"| {label} | " + " | ".join(scores) + f" | {seconds:.0f} |\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
