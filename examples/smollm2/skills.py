"""The three skills as seeded document generators: adding, sorting, and tracking who is where.

A document belongs to exactly one split (train, search or heldout) by a hash of its *operands*: the
two summands, the set of numbers, the moves of the story. Wording, order and question never enter
the hash, so a sum that was trained is never asked, in whatever words. Standard library only.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SPLIT_SHARES = {"train": 6, "search": 2, "heldout": 2}  # tenths of the operand space

NAMES = (
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Frank",
    "Grace",
    "Henry",
    "Julia",
    "Kate",
    "Leo",
    "Mary",
    "Nina",
    "Oscar",
)
PLACES = (
    "kitchen",
    "garden",
    "office",
    "school",
    "park",
    "hospital",
    "library",
    "station",
    "market",
    "church",
)
THINGS = (
    "apples",
    "books",
    "coins",
    "eggs",
    "flowers",
    "letters",
    "pencils",
    "stamps",
    "stones",
    "tickets",
)
MOVES = ("went to", "moved to", "walked to", "ran to", "travelled to")
ADD_FORMS = (
    "What is {a} plus {b}?",
    "What is the sum of {a} and {b}?",
    "{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?",
    "There are {a} {thing} in one box and {b} in another. How many {thing} are there in all?",
    "{name} found {a} {thing} on Monday and {b} on Tuesday. How many is that together?",
)
SORT_FORMS = (
    "Sort from small to large: {numbers}",
    "Put these numbers in order, smallest first: {numbers}",
    "{name} drew the tickets {numbers}. What are they from lowest to highest?",
)


@dataclass(frozen=True)
class Document:
    """One question.

    Attributes:
        skill: name of the generator, a key of `SKILLS`.
        operands: canonical text of what the answer depends on; decides the split.
        prompt: text up to and including "A:".
        answer: expected text after the prompt, without the leading space.
        choices: candidate answers for multiple choice, `answer` among them; empty: free answer.
    """

    skill: str
    operands: str
    prompt: str
    answer: str
    choices: tuple[str, ...] = ()

    @property
    def split(self) -> str:
        """Name of the only split that may hold this document."""
        return split_of(f"{self.skill}:{self.operands}")


def split_of(key: str) -> str:
    """Split of an operand key: `train` (6 in 10), `search` or `heldout` (2 in 10 each)."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    tenth = int.from_bytes(digest, "big") % sum(SPLIT_SHARES.values())
    for name, share in SPLIT_SHARES.items():
        if tenth < share:
            return name
        tenth -= share
    raise AssertionError("shares cover every tenth")


def as_prompt(question: str) -> str:
    """The question in the form that all tasks and the training share."""
    return f"Q: {question}\nA:"


def add(rng: random.Random) -> Document:
    """A sum of two numbers from 11 to 99, bare or as a small story; the answer is the number."""
    a, b = rng.randint(11, 99), rng.randint(11, 99)
    form = rng.choice(ADD_FORMS)
    question = form.format(a=a, b=b, name=rng.choice(NAMES), thing=rng.choice(THINGS))
    return Document("add", f"{min(a, b)}+{max(a, b)}", as_prompt(question), str(a + b))


def sort(rng: random.Random) -> Document:
    """Four different numbers from 1 to 99, to be listed in ascending order."""
    numbers = rng.sample(range(1, 100), 4)
    form = rng.choice(SORT_FORMS)
    question = form.format(numbers=", ".join(map(str, numbers)), name=rng.choice(NAMES))
    answer = ", ".join(map(str, sorted(numbers)))
    return Document("sort", answer, as_prompt(question), answer)


def track(rng: random.Random) -> Document:
    """Five moves of up to three people between four places: where is one of them at the end?

    The person asked about has moved at least twice, the last time to a new place, and somebody
    else moves after that: neither the first nor the last place of the story is a safe guess.
    """
    moves: list[tuple[str, str]] = []
    visited: list[str] = []
    asked = ""
    while not is_good_story(moves, asked, visited):
        people, places = rng.sample(NAMES, 3), rng.sample(PLACES, 4)
        asked = people[0]
        moves = [(rng.choice(people), rng.choice(places)) for _ in range(5)]
        visited = [place for person, place in moves if person == asked]
    story = " ".join(f"{who} {rng.choice(MOVES)} the {where}." for who, where in moves)
    operands = ";".join(f"{who}>{where}" for who, where in moves)
    # The prompt leads up to a single word, so that every choice is one token of the vocabulary.
    prompt = f"Q: {story} Where is {asked}?\nA: In the"
    return Document("track", operands, prompt, visited[-1], tuple(sorted(places)))


SKILLS: dict[str, Callable[[random.Random], Document]] = {"add": add, "sort": sort, "track": track}


def is_good_story(moves: list[tuple[str, str]], asked: str, visited: list[str]) -> bool:
    """Whether a story of `track` keeps the promises of its docstring."""
    return (
        len({place for _, place in moves}) == 4
        and len(visited) >= 2
        and visited[-1] != visited[-2]
        and moves[-1][0] != asked
        and all(move != following for move, following in itertools.pairwise(moves))
    )


def documents(skill: str, split: str, seed: int) -> Iterator[Document]:
    """Endless stream of documents of one split, a function of its three arguments alone.

    Documents of `search` and `heldout` never repeat operands; those of `train` may (a model may
    see a sum twice, a score may not count it twice).

    Raises:
        KeyError: unknown skill or split.
    """
    make = SKILLS[skill]
    if split not in SPLIT_SHARES:
        raise KeyError(split)
    rng = random.Random(f"{seed}/{skill}/{split}")
    seen: set[str] = set()
    while True:
        document = make(rng)
        if document.split != split or (split != "train" and document.operands in seen):
            continue
        seen.add(document.operands)
        yield document
