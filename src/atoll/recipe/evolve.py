"""How instructions are evolved (`atoll evolve`): from whom, how often, and what may be spent on it."""

from typing import Annotated

from msgspec import Meta, field

from atoll.recipe.bounds import (
    Factor,
    NonEmptyStr,
    NonNegativeFloat,
    NonNegativeInt,
    PathStr,
    PositiveFloat,
    PositiveInt,
)
from atoll.recipe.table import Table

Concurrency = Annotated[int, Meta(ge=1, le=4096, description="an integer from 1 to 4,096")]
Likeness = Annotated[float, Meta(gt=0, le=1, description="a number > 0 and <= 1")]
ServerUrl = Annotated[
    str,
    Meta(pattern=r"\Ahttps?://[^/\s]+\S*\Z", description="a URL that begins with http:// or https://"),
]


class Evolve(Table, frozen=True, kw_only=True):
    """Instructions, made harder by a model, with its answers (after Auto Evol-Instruct, arXiv 2406.00770)."""

    seeds: PathStr  # a .jsonl file (or .gz, .zst) or a text file of an instruction a line
    column: NonEmptyStr = "instruction"  # of a .jsonl file
    server: ServerUrl = "https://api.openai.com/v1"  # any that speaks OpenAI's chat completions
    model: NonEmptyStr  # evolves and answers
    optimizer: NonEmptyStr | None = None  # the model that betters the method; none given: `model`
    concurrency: Concurrency = 16  # requests under way at once
    timeout_seconds: PositiveFloat = 120.0  # of a request; one that fails is repeated, later and later
    retries: NonNegativeInt = 6
    temperature: NonNegativeFloat = 0.7
    max_tokens: PositiveInt = 1024  # of a reply; one that is cut off is not kept
    rounds: PositiveInt = 1  # how often each instruction is evolved
    turns: PositiveInt = 1  # of the user in a conversation; later ones are asked for by the model
    method_steps: NonNegativeInt = 2  # attempts to better the method; 0: as it ships
    method_candidates: PositiveInt = 3  # new methods that are compared in each
    development: PositiveInt = 16  # seeds that methods are compared on
    judge_minimum: Factor | None = None  # the mark, from 0 to 1, below which an answer is not kept
    near: Likeness = 0.7  # instructions whose words are alike by this much (Jaccard) count as one
    # Files whose texts must not be in the result: evaluation sets. Shared are n-grams of words.
    decontaminate: list[PathStr] = field(default_factory=list[str])
    ngram: PositiveInt = 13
    budget_tokens: PositiveInt | None = None  # of requests and replies; then it ends, with what is done
    budget_money: PositiveFloat | None = None  # in the unit of the prices
    price_in: NonNegativeFloat = 0.0  # of a million tokens sent
    price_out: NonNegativeFloat = 0.0  # of a million tokens received
    seed: NonNegativeInt = 0  # of the order in which seeds are taken
