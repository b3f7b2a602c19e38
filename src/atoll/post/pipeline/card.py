"""The card of a model that a pipeline has made: what was made from what, as the steps have found it."""

from collections.abc import Iterator
from pathlib import Path

from atoll.files import write_atomic
from atoll.post.pipeline.inputs import recipes_of
from atoll.post.pipeline.picture import rows_of
from atoll.post.pipeline.product import Product
from atoll.post.pipeline.references import referred
from atoll.publish.markup import table, text
from atoll.recipe.pipeline import Export, Pipeline, Train

CARD = "README.md"
CHAPTER = "## How it was made"
HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
{tags}
---
# {name}

A language model that the steps below have made, with atoll. Every text must begin with exactly one BOS, or
the model reads it worse: the tokenizer puts it there, and so does the chat template.

```python
from transformers import pipeline

pipe = pipeline("text-generation", model=".")
print(pipe({prompt}, max_new_tokens=50))
```
"""


def write_card(pipeline: Pipeline, step: Export, products: dict[str, Product]) -> None:
    """Write the chapter into the card of an exported model; where it has none, the rest of a card too."""
    path = Path(products[step.name].path) / CARD
    before = (
        path.read_text("utf-8").partition(f"\n{CHAPTER}\n")[0] if path.is_file() else head(pipeline, step)
    )
    write_atomic(path, f"{before.rstrip()}\n\n{chapter(pipeline, products)}".encode())


def head(pipeline: Pipeline, step: Export) -> str:
    """A card without what a run would tell: a merge is no state of one."""
    chats = any(
        recipe.objective.rows != "stream"
        for made in ancestors(pipeline, step.name)
        if isinstance(made, Train)
        for recipe in recipes_of(made)
    )
    tags = ["atoll", *(["conversational"] if chats else [])]
    prompt = '[{"role": "user", "content": "Who are you?"}]' if chats else '"Once upon a time"'
    listed = "\n".join(f"- {tag}" for tag in tags)
    return HEAD.replace("{tags}", listed).replace("{name}", text(pipeline.name)).replace("{prompt}", prompt)


def chapter(pipeline: Pipeline, products: dict[str, Product]) -> str:
    """The picture of what was made from what."""
    notes = {step.name: step.note for step in pipeline.step}
    rows = [
        (number, text(name), origin, "; ".join(filter(None, (text(figures), text(notes[name])))))
        for number, name, origin, figures in rows_of(pipeline, products)
    ]
    body = table(("", "step", "made from", "found"), rows)
    return f"{CHAPTER}\n\nThe steps of the pipeline {text(pipeline.name)}, in their order.\n\n{body}\n"


def ancestors(pipeline: Pipeline, name: str) -> Iterator[object]:
    """Yield a step, and all steps that it was made from; some more than once."""
    step = next(step for step in pipeline.step if step.name == name)
    yield step
    for earlier in referred(step):
        yield from ancestors(pipeline, earlier)
