"""The model card: what the model is, how it was made, and by whom."""

from atoll import __version__
from atoll.recipe import Recipe


def card(recipe: Recipe, step: int, root: bytes, ledger: dict[str, int]) -> str:
    """The text of a README.md for the hub; `ledger`: committed tokens by island."""
    tokens = sum(ledger.values())
    rows = "\n".join(
        f"| `{island}` | {count:,} |" for island, count in sorted(ledger.items(), key=lambda x: -x[1])
    )
    sources = ", ".join(sorted(recipe.sources))
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [atoll, diloco]
---
# {recipe.name}

A language model trained together by {len(ledger)} islands with [DiLoCo](https://arxiv.org/abs/2311.08105),
with atoll {__version__}.

| | |
|---|---|
| outer step | {step} of {recipe.num_outer_steps}, {recipe.outer.inner_steps} inner steps each |
| tokens | {tokens:,} |
| sources | {sources} |
| codec | {recipe.outer.codec} |
| recipe | `{recipe.digest()}` |
| root of the outer state | `{root.hex()}` |

## Contributors

| island | committed tokens |
|---|---|
{rows}
"""
