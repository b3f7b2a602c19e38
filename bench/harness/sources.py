"""The reference run's five sources in its weights, for benches of the data layer."""

from atoll.recipe import Recipe, parse

WEIGHTS = {"fineweb-edu": 55, "fineweb": 10, "stack": 20, "dclm": 10, "open-web-math": 5}


def recipe_with(length: int) -> Recipe:
    """A recipe that mixes them, with windows of `length` tokens."""
    tree = {
        "name": "bench",
        "model": {"preset": "demo"},
        "tokenizer": {"train": 300},
        "sources": {name: {"text": name} for name in WEIGHTS},
        "stage": [{"until": 1, "mixture": WEIGHTS}],
        "inner": {"context_length": length, "tokens_per_step": length},
        "outer": {"inner_steps": 1},
    }
    return parse(tree, "bench")
