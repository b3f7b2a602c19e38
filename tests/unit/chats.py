"""Runs on tiny chats and pairs, prepared as users prepare them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from atoll import recipe as recipes
from atoll.recipe import Recipe
from atoll.run.directory import RunDir
from atoll.run.genesis import prepare

WORDS = ["sea", "dog", "storm", "gold", "island", "reef", "tide", "sail", "wind", "harbour", "map", "chart"]


@cache
def lines(kind: str, count: int = 60) -> str:
    """JSON lines of so many chats, or pairs of answers."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        word, other = WORDS[number % 12], WORDS[number * 5 % 11]
        question = {"role": "user", "content": f"What follows {word} on day {number}?"}
        answers = [
            [{"role": "assistant", "content": text}]
            for text in (f"After {word} comes {other}, {other}.", f"No {number}.")
        ]
        if kind == "pairs":
            rows.append({"prompt": [question], "chosen": answers[0], "rejected": answers[1]})
        else:
            rows.append({"messages": [question, *answers[0]]})
    return "".join(json.dumps(row) + "\n" for row in rows)


def chat_recipe(directory: Path, objective: str, *overrides: str, until: int = 8) -> Recipe:
    """A recipe of a tiny model on tiny rows; both are written into `directory`, without the overrides."""
    kind = "pairs" if objective in ("dpo", "ipo", "simpo") else "chats"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{kind}.jsonl").write_text(lines(kind))
    dimensions = "hidden_size = 32, intermediate_size = 48, num_attention_heads = 2, vocab_size = 384"
    text = f"""
        name = "{objective}"
        heldout_fraction = 0.1
        model = {{ preset = "demo", {dimensions} }}
        tokenizer.train = 320
        sources.rows.jsonl = "{directory / kind}.jsonl"
        stage = [{{ until = {until}, mixture = {{ rows = 1 }} }}]
        objective.type = "{objective}"
        outer.inner_steps = 4
        inner = {{ context_length = 192, tokens_per_step = 768, optimizer = {{ type = "adamw", lr = 1e-2 }} }}
        island = {{ device = "cpu", threads = 1, micro_batch = 2 }}
    """
    path = directory / f"{objective}.toml"
    path.write_text(text)
    return recipes.load(path, list(overrides))


def prepared(directory: Path, objective: str, *overrides: str) -> tuple[Recipe, RunDir]:
    """The recipe, and a run of it whose data and state 0 are there."""
    recipe, run_dir = chat_recipe(directory, objective, *overrides), RunDir(directory / "run")
    prepare(recipe, run_dir, lambda _: None)
    return recipe, run_dir
