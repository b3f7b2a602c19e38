"""`[chat]`: how rows of chats become tokens, where the objective trains on chats or pairs of answers."""

from typing import Literal

from atoll.recipe.bounds import NonEmptyStr, PositiveFloat
from atoll.recipe.table import Table


class Chat(Table, frozen=True, kw_only=True):
    """The form of a chat, and which of its tokens are trained on."""

    # "llama-3.1", "chatml", "tokenizer" (the tokenizer's own) or the path of a Jinja file.
    template: NonEmptyStr = "llama-3.1"
    train_on: Literal["all", "last"] = "all"  # of the assistant's turns, each with its end
    # Rows of more tokens than a window: left out, or cut at their end. Both are counted and told.
    too_long: Literal["skip", "cut"] = "skip"
    # A base model's first loss may exceed, by so many nats per token, that on the same answers in plain text
    # and in other templates; beyond that `atoll prepare` refuses, since the template is hardly the model's.
    first_loss_margin: PositiveFloat = 3.0
