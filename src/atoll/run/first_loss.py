"""Whether a base model knows the chat template: its first loss, beside that on the same answers otherwise.

A model that never saw a template's turns, or does not begin as it learned to begin, starts from a loss far
above that of the bare answers, and fine-tuning then spends itself on the form. So before a run begins a few
rows are measured in the recipe's template, in the other templates that the tokenizer has tokens for, and as
plain text.
"""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import torch

from atoll.data.chat import NAMED
from atoll.data.chat_encoder import ChatEncoder
from atoll.data.markup import BadChat
from atoll.data.rows import Document
from atoll.data.shapes import Row
from atoll.data.sources import SourceReader
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.given import expanded
from atoll.model.attention import Mask
from atoll.model.head import IGNORED, log_probabilities
from atoll.model.hf import Model
from atoll.recipe import Recipe

NUM_ROWS = 8  # of each source
MAX_TOKENS = 512  # of a row
BETWEEN_TURNS = "\n\n"  # in plain text
NOTED_MARGIN = 0.5  # nats per token from which on a higher first loss is worth a sentence


class Marked(NamedTuple):
    """The tokens of a row, and which of them belong to what the assistant says, its markup left out."""

    tokens: np.ndarray  # [num_tokens] integers
    is_said: np.ndarray  # [num_tokens] bool


def check_first_loss(recipe: Recipe, model: Model) -> str:
    """A sentence where the model's first loss is higher in the recipe's template than otherwise; else "".

    The recipe gives the file of the model's tokenizer, and trains on chats or pairs. Raises UserError where
    the loss is higher by more than `chat.first_loss_margin`, or not finite.
    """
    rows = list(_rows(recipe))
    wanted = recipe.chat.template
    given = Tokenizer.load(expanded(recipe.tokenizer.file or ""))
    ours = given.with_template(wanted)
    chats = ChatEncoder(ours, recipe.chat.train_on)
    loss = _loss(model, [_chat(chats, row) for row in rows])
    losses = {"as plain text": _loss(model, [_plain(ours, row) for row in rows])}
    for name in ("tokenizer", *NAMED):
        other = _other(given, name, recipe.chat.train_on)
        if other is not None and other.template_text != ours.template_text:
            losses[f"in the template {name!r}"] = _loss(model, [_chat(other, row) for row in rows])
    if not math.isfinite(loss):
        raise UserError(
            f"chat.template = {wanted!r}: the model's first loss on what is trained on is {loss}: its "
            "weights are damaged, or none of the first rows has an answer among its first "
            f"{MAX_TOKENS} tokens"
        )
    where = min(losses, key=lambda each: losses[each])
    if loss <= losses[where] + NOTED_MARGIN:
        return ""
    told = (
        f"chat.template = {wanted!r}: the model's first loss on what is trained on is {loss:.1f} nats per "
        f"token, but {losses[where]:.1f} on the same answers {where}"
    )
    if loss <= losses[where] + recipe.chat.first_loss_margin:
        return f"{told}: training has to teach it this template first"
    raise UserError(
        f"{told}, so this is hardly the template of the model; choose another, or raise "
        "chat.first_loss_margin"
    )


def _other(given: Tokenizer, name: str, train_on: Literal["all", "last"]) -> ChatEncoder | None:
    """The encoder with the template of this name, if one can train with it."""
    try:
        return ChatEncoder(given.with_template(name), train_on)
    except UserError:
        return None


def _rows(recipe: Recipe) -> Iterator[Row]:
    """Yield the first rows of each source that is in the first mixture."""
    for name, weight in recipe.mixture(0).items():
        if weight:
            reader = SourceReader(name, recipe.sources[name], form=recipe.objective.rows)
            documents = (item for item in reader if isinstance(item, Document))
            yield from (Row.of(document.text) for document in islice(documents, NUM_ROWS))


def _chat(chats: ChatEncoder, row: Row) -> Marked | None:
    """The row in a template, with its first answer; None where the template does not take it."""
    try:
        found = chats.encode([*row.prompt, *row.answers[0]], row.tools, len(row.prompt))
    except BadChat:
        return None
    return Marked(found.tokens, found.trained & ~chats.is_special(found.tokens))


def _plain(tokenizer: Tokenizer, row: Row) -> Marked:
    """The same as plain text: what is said, turn after turn."""
    turns = [turn for turn in [*row.prompt, *row.answers[0]] if turn["content"].strip()]
    texts = [turn["content"].strip() + BETWEEN_TURNS for turn in turns]
    parts = tokenizer.encode_parts(texts, is_markup=False)
    said = [
        [turn["role"] == "assistant" and number >= len(row.prompt)] * len(ids)
        for number, (turn, ids) in enumerate(zip(turns, parts, strict=True))
    ]
    tokens = [tokenizer.bos_id, *(each for ids in parts for each in ids)]
    return Marked(np.array(tokens), np.array([False, *(each for part in said for each in part)]))


@torch.no_grad()
def _loss(model: Model, rows: list[Marked | None]) -> float:
    """The mean loss in nats per token of what the assistant says; infinite where nothing can be measured."""
    model.eval()
    total, count = 0.0, 0
    for tokens, is_said in filter(None, rows):
        ids = torch.tensor(tokens[:MAX_TOKENS].astype(np.int64))[None]
        labels = ids[:, 1:].where(torch.tensor(is_said[1:MAX_TOKENS])[None], IGNORED)
        hidden = model(ids[:, :-1], Mask.causal(1, ids.shape[1] - 1))
        total -= float(log_probabilities(hidden, model.head_weight, labels).sum())
        count += int((labels != IGNORED).sum())
    return total / count if count else float("inf")
