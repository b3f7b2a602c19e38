"""Chats to tokens, and which of them are trained on: what the assistant says, with the end of its turn."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from atoll.data.markup import BadChat, Markup, Tokens
from atoll.data.template import PROBE, TemplateError, Turn
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError

MAX_CHARACTERS = 1 << 22  # of a chat, since the engine needs 150 bytes of memory for each


class EncodedChat(NamedTuple):
    """The tokens of a chat."""

    tokens: np.ndarray  # [num_tokens] uint32, BOS first
    trained: np.ndarray  # [num_tokens] bool: whether it is trained on
    num_bytes: int  # of the UTF-8 text


class ChatEncoder:
    """A tokenizer and its chat template, for what an objective trains on."""

    def __init__(self, tokenizer: Tokenizer, train_on: Literal["all", "last"] = "all") -> None:
        """Raises UserError where the tokenizer has no template, or one that cannot be trained with."""
        if tokenizer.template is None:
            raise UserError("chat.template: the tokenizer has no chat template; name one")
        self._tokenizer, self._template, self._only_last = tokenizer, tokenizer.template, train_on == "last"
        self.template_text = tokenizer.template_text
        try:
            self._markup = Markup(tokenizer, self._template.render(PROBE))
            self._encode(PROBE, None, 0)
        except (BadChat, TemplateError) as error:
            raise UserError(f"chat.template: it cannot be trained with: {error}; name another") from error

    def encode(self, turns: list[Turn], tools: list[Any] | None = None, num_given: int = 0) -> EncodedChat:
        """The tokens of a chat, of whose assistant's turns those after the first `num_given` are trained on.

        Raises BadChat where it cannot be rendered, where an answer would be encoded in another way than a
        model writes it, or where something of it is lost.
        """
        try:
            return self._encode(turns, tools, num_given)
        except TemplateError as error:
            raise BadChat(
                f"the chat template does not take it: {error}", f"not taken by the template: {error}"
            ) from error

    def is_special(self, tokens: np.ndarray) -> np.ndarray:
        """[num_tokens] bool: which tokens are markup."""
        return self._tokenizer.is_special(tokens)

    def _encode(self, turns: list[Turn], tools: list[Any] | None, num_given: int) -> EncodedChat:
        plain = self._render(turns, tools)
        whole, mark = plain, self._markup.mark_for([turns, tools])
        if mark:
            turns, tools = self._markup.parted(turns, mark), self._markup.parted(tools, mark)
            whole = self._render(turns, tools)
            if whole.replace(mark, "") != plain:
                raise BadChat("it spells a special token, and the chat template changes what texts spell")
        spans = list(self._answers(whole, turns, tools, num_given))
        chat = self._markup.tokens(whole, mark)
        tokens = np.array(chat.ids, np.uint32)
        if (count := int((tokens == self._tokenizer.bos_id).sum())) != 1:
            raise BadChat(f"the chat template puts {count} beginnings of a text into it")
        trained = np.zeros(len(tokens), bool)
        for start, stop in spans:
            begin = self._markup.num_of_prompt(whole[:start], chat, mark)
            trained[begin : _end_of_turn(start, stop, chat)] = True
        return EncodedChat(tokens, trained, len(plain.encode()))

    def _render(self, turns: list[Turn], tools: list[Any] | None) -> str:
        text = self._template.render(turns, tools)
        if len(text) > MAX_CHARACTERS:
            raise BadChat(f"it has {len(text):,} characters, more than can be encoded at once", "too large")
        return text

    def _answers(
        self, whole: str, turns: list[Turn], tools: list[Any] | None, num_given: int
    ) -> Iterator[tuple[int, int]]:
        """Yield [start, stop) in the rendered chat of each answer that is trained on, in characters."""
        answers = [at for at, turn in enumerate(turns) if turn["role"] == "assistant" and at >= num_given]
        for at in answers[-1:] if self._only_last else answers:
            prompt = self._template.render(turns[:at], tools, add_generation_prompt=True)
            until = whole if at + 1 == len(turns) else self._template.render(turns[: at + 1], tools)
            if not (until.startswith(prompt) and whole.startswith(until)):
                raise BadChat(
                    "the chat template writes a chat differently once more turns follow, so a model would "
                    "not be asked as it was trained"
                )
            if turns[at]["content"].strip() not in until[len(prompt) :]:
                raise BadChat("the chat template leaves out a part of what the assistant says")
            yield len(prompt), len(until)


def _end_of_turn(start: int, stop: int, chat: Tokens) -> int:
    """Behind which token the answer in characters [start, stop) ends: the last special one of it.

    Raises BadChat where there is none, or text behind it.
    """
    inside = [
        number
        for number, segment in enumerate(chat.segments)
        if segment.stop > start and segment.start < stop
    ]
    ends = [number for number in inside if chat.segments[number].special is not None]
    if not ends or "".join(chat.segments[number].text for number in inside if number > ends[-1]).strip():
        raise BadChat("the chat template puts no special token behind an answer, so none would ever end")
    return chat.places[ends[-1] + 1]
