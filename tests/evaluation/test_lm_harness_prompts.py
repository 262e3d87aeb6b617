"""Few-shot examples and chat templates in the prompts of lm-eval tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
from workshop import (
    CHOICE,
    Workshop,
    choice_documents,
    prompts,
    refusal,
    suite,
    write_choice,
)

# --- few-shot -------------------------------------------------------------------------------------


@pytest.fixture
def shots(workshop: Workshop) -> Workshop:
    splits = {"test": choice_documents(30), "train": choice_documents(25, 900)}
    workshop.write("mc", splits, **CHOICE, fewshot_split="train", num_fewshot=2)
    return workshop


def test_prompts_do_not_depend_on_neighbours(shots: Workshop) -> None:
    everything = prompts(shots, "mc", "acc,none")
    loaded = suite(shots, ("mc", "acc,none"))
    line = loaded.line_up(100, "search")
    for slot in reversed(line[::3]):
        tokens = slot.leaf.tokens(slot.document)
        texts = [loaded.prompter.tokenizer.decode(t.inputs) for t in tokens]
        assert texts == everything[slot.document.key]
        assert texts[0].count("\n\n") == 2
    assert len({texts[0].split("Q:")[1] for texts in everything.values()}) > 5


def test_seed_changes_examples(shots: Workshop) -> None:
    first, second = (prompts(shots, "mc", "acc,none", seed=seed) for seed in (0, 1))
    common = first.keys() & second.keys()
    assert common
    assert sum(first[key] != second[key] for key in common) > len(common) / 2


def test_number_of_examples(shots: Workshop) -> None:
    for settings, expected in (
        ({}, 2),
        ({"num_fewshot": 3}, 3),
        ({"num_fewshot": 3, "overrides": ({"num_fewshot": 1},)}, 1),
        ({"num_fewshot": 3, "overrides": ({"num_fewshot": 0},)}, 0),
    ):
        text = next(iter(prompts(shots, "mc", "acc,none", **settings).values()))[0]
        assert text.count("\n\n") == expected, settings


def test_examples_never_come_from_scored_documents(workshop: Workshop) -> None:
    documents = choice_documents(60)
    workshop.write("mc", {"test": documents}, **CHOICE, fewshot_split="test", num_fewshot=2)
    loaded = suite(workshop, ("mc", "acc,none"))
    scored = {
        slot.document.content["question"]
        for split in ("search", "heldout")
        for slot in loaded.line_up(100, split)
    }
    shown = set()
    for texts in prompts(workshop, "mc", "acc,none").values():
        shown |= {f"Q{part.split('?')[0]}?" for part in texts[0].split("Q")[1:-1]}
    assert len(scored) == 54
    assert len(shown) > 2
    assert not shown & scored
    assert shown <= {document["question"] for document in documents}


def test_examples_that_are_copies_of_documents_are_dropped(workshop: Workshop) -> None:
    documents = choice_documents(30)
    workshop.write(
        "mc",
        {"test": documents, "train": documents[:20] + choice_documents(5, 900)},
        **CHOICE,
        fewshot_split="train",
        num_fewshot=2,
    )
    scored = {document["question"] for document in documents}
    for texts in prompts(workshop, "mc", "acc,none").values():
        for part in texts[0].split("Q")[1:-1]:
            assert f"Q{part.split('?')[0]}?" not in scored


# --- chat -----------------------------------------------------------------------------------------


def test_chat_template(workshop: Workshop, tmp_path: Path) -> None:
    from workshop import build_tokenizer

    write_choice(workshop)
    assert "the tokenizer has no chat template" in refusal(
        workshop, ("mc", "acc,none"), apply_chat_template=True
    )
    tokenizer = build_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'][0] }}={{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}a={% endif %}"
    )
    workshop.tokenizer = tmp_path / "chatty"
    tokenizer.save_pretrained(workshop.tokenizer)
    plain = prompts(workshop, "mc", "acc,none")
    chat = prompts(
        workshop, "mc", "acc,none", apply_chat_template=True, system_instruction="be good"
    )
    for key, [first, *_] in chat.items():
        assert first.startswith("s=be good\nu=Q: ")
        assert "\na=" in first
        assert plain[key][0].startswith("Q: ")
