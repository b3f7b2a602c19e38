"""Chats to tokens, and which of them are trained on: what the assistant says, with the end of its turn.

What a text spells is never markup: only special tokens that the template itself writes become these tokens.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from atoll.data.template import PROBE, TemplateError, Turn
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError

# Characters that no text uses, since Unicode keeps them for a program's own purposes: one of them parts what
# a text spells, so that it is not found among the special tokens that the template writes.
MARKS = [chr(number) for number in range(0xFDD0, 0xFDF0)]

MAX_CHARACTERS = 1 << 22  # the engine needs 150 bytes of memory for each


class BadChat(Exception):
    """What the template or the tokenizer cannot do with a chat. `kind`: the same for all rows like it."""

    def __init__(self, reason: str, kind: str = "") -> None:
        super().__init__(reason)
        self.kind = kind or reason


class EncodedChat(NamedTuple):
    """The tokens of a chat."""

    tokens: np.ndarray  # [num_tokens] uint32, BOS first
    trained: np.ndarray  # [num_tokens] bool: whether it is trained on
    num_bytes: int  # of the UTF-8 text


class Segment(NamedTuple):
    """A part of a rendered chat: a special token that the template wrote, or what is between two of them."""

    start: int  # in characters
    text: str
    special: int | None  # the token's id


class ChatEncoder:
    """A tokenizer and its chat template, for what an objective trains on."""

    def __init__(self, tokenizer: Tokenizer, train_on: Literal["all", "last"] = "all") -> None:
        """Raises UserError where the tokenizer has no template, or one that cannot be trained with."""
        if tokenizer.template is None:
            raise UserError("chat.template: the tokenizer has no chat template; name one")
        self._tokenizer, self._template, self._only_last = tokenizer, tokenizer.template, train_on == "last"
        self.template_text = tokenizer.template_text
        by_length = sorted(tokenizer.special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, by_length)))
        # What a text spells is kept apart by encoding it apart, which must not change how it is encoded.
        self._can_part = True
        try:
            whole = self._template.render(PROBE)
            segments = list(self._segments(whole))
            self._can_part = self._ids(whole, segments, "") == self._apart(segments, "")
            self._encode(PROBE, PROBE, None, 0, "")
        except (BadChat, TemplateError) as error:
            raise UserError(f"chat.template: it cannot be trained with: {error}; name another") from error

    def encode(self, turns: list[Turn], tools: list[Any] | None = None, num_given: int = 0) -> EncodedChat:
        """The tokens of a chat, of whose assistant's turns those after the first `num_given` are trained on.

        Raises BadChat where it cannot be rendered, where an answer would be encoded in another way than a
        model writes it, or where something of it is lost.
        """
        parted, mark = turns, ""
        if any(map(self._special.search, _strings([turns, tools]))):
            parted, tools, mark = self._part(turns, tools)
        try:
            return self._encode(turns, parted, tools, num_given, mark)
        except TemplateError as error:
            raise BadChat(
                f"the chat template does not take it: {error}", f"not taken by the template: {error}"
            ) from error

    def is_special(self, tokens: np.ndarray) -> np.ndarray:
        """[num_tokens] bool: which tokens are markup."""
        return self._tokenizer.is_special(tokens)

    def _encode(
        self, turns: list[Turn], parted: list[Turn], tools: list[Any] | None, num_given: int, mark: str
    ) -> EncodedChat:
        """`parted`: the turns with `mark` within what they spell of special tokens."""
        whole = self._template.render(parted, tools)
        if len(whole) > MAX_CHARACTERS:
            raise BadChat(f"it has {len(whole):,} characters, more than can be encoded at once", "too large")
        spans = list(self._answers(whole, turns, parted, tools, num_given))
        segments = list(self._segments(whole))
        parts = self._ids(whole, segments, mark)
        tokens = np.array([number for ids in parts for number in ids], np.uint32)
        if (count := int((tokens == self._tokenizer.bos_id).sum())) != 1:
            raise BadChat(f"the chat template puts {count} beginnings of a text into it")
        places = np.cumsum([0, *map(len, parts)])  # of each segment, in tokens
        trained = np.zeros(len(tokens), bool)
        for start, stop in spans:
            end = self._end_of_turn(start, stop, segments)
            trained[self._begin(whole[:start], segments, parts, places, mark) : places[end + 1]] = True
        num_bytes = len((whole.replace(mark, "") if mark else whole).encode())
        return EncodedChat(tokens, trained, num_bytes)

    def _answers(
        self, whole: str, turns: list[Turn], parted: list[Turn], tools: list[Any] | None, num_given: int
    ) -> Iterator[tuple[int, int]]:
        """Yield [start, stop) in the rendered chat of each answer that is trained on, in characters."""
        answers = [at for at, turn in enumerate(turns) if turn["role"] == "assistant" and at >= num_given]
        for at in answers[-1:] if self._only_last else answers:
            prompt = self._template.render(parted[:at], tools, add_generation_prompt=True)
            until = whole if at + 1 == len(turns) else self._template.render(parted[: at + 1], tools)
            if not (until.startswith(prompt) and whole.startswith(until)):
                raise BadChat(
                    "the chat template writes a chat differently once more turns follow, so a model would "
                    "not be asked as it was trained"
                )
            if parted[at]["content"].strip() not in until[len(prompt) :]:
                raise BadChat("the chat template leaves out a part of what the assistant says")
            yield len(prompt), len(until)

    def _segments(self, whole: str) -> Iterator[Segment]:
        at = 0
        for found in self._special.finditer(whole):
            if found.start() > at:
                yield Segment(at, whole[at : found.start()], None)
            yield Segment(found.start(), found[0], self._tokenizer.special[found[0]])
            at = found.end()
        if at < len(whole):
            yield Segment(at, whole[at:], None)

    def _ids(self, whole: str, segments: list[Segment], mark: str) -> list[list[int]]:
        """The token ids of each segment."""
        if not mark:
            (ids,) = self._tokenizer.encode_parts([whole], is_markup=True)
            is_special = self._tokenizer.is_special(np.array(ids, np.int64))
            expected = [segment.special for segment in segments if segment.special is not None]
            if [ids[at] for at in np.flatnonzero(is_special)] == expected:
                return _divided(ids, is_special.tolist(), segments)
        if not self._can_part:
            raise BadChat("it spells a special token, which this tokenizer cannot keep apart from the markup")
        return self._apart(segments, mark)

    def _apart(self, segments: list[Segment], mark: str) -> list[list[int]]:
        """The token ids of each segment, encoded without regard to the others."""
        texts = [segment.text.replace(mark, "") if mark else segment.text for segment in segments]
        plain = self._tokenizer.encode_parts(texts, is_markup=False)
        parts: list[list[int]] = []
        for segment, ids in zip(segments, plain, strict=True):
            if segment.special is not None:
                parts.append([segment.special])
                continue
            if spelled := self._tokenizer.first_special(np.array(ids, np.int64)):
                reason = f"the tokenizer takes what it spells for its special token {spelled}"
                raise BadChat(reason, f"spelling {spelled}")
            parts.append(ids)
        return parts

    def _begin(
        self, prompt: str, segments: list[Segment], parts: list[list[int]], places: np.ndarray, mark: str
    ) -> int:
        """The number of tokens of a prompt. Raises BadChat where the chat's tokens do not begin with them."""
        at = max(number for number, segment in enumerate(segments) if segment.start < len(prompt))
        if segments[at].start + len(segments[at].text) == len(prompt) and segments[at].special is not None:
            return int(places[at + 1])
        if self._can_part:  # then what comes before this segment is the same in any case
            text, ids, before = prompt[segments[at].start :], parts[at], int(places[at])
        else:
            text, ids, before = prompt, [number for part in parts for number in part], 0
        text = text.replace(mark, "") if mark else text
        (asked,) = self._tokenizer.encode_parts([text], is_markup=not self._can_part)
        if ids[: len(asked)] != asked:
            raise BadChat(
                "where the prompt ends and the answer begins, their texts fall into one token, so a model "
                "would not be asked as it was trained"
            )
        return before + len(asked)

    def _end_of_turn(self, start: int, stop: int, segments: list[Segment]) -> int:
        """The number of the segment that ends the answer in characters [start, stop)."""
        inside = [
            number
            for number, segment in enumerate(segments)
            if segment.start + len(segment.text) > start and segment.start < stop
        ]
        ends = [number for number in inside if segments[number].special is not None]
        if not ends or "".join(segments[number].text for number in inside if number > ends[-1]).strip():
            raise BadChat("the chat template puts no special token behind an answer, so none would ever end")
        return ends[-1]

    def _part(self, turns: list[Turn], tools: list[Any] | None) -> tuple[list[Turn], list[Any] | None, str]:
        """The turns and tools with a mark within every special token that they spell, and the mark."""
        used = set("".join(_strings([turns, tools])))
        mark = next((mark for mark in MARKS if mark not in used), None)
        if mark is None:
            raise BadChat(
                "it has all the characters that Unicode keeps for programs, and none is left to use"
            )

        def parted(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: parted(each) for key, each in value.items()}
            if isinstance(value, list):
                return [parted(each) for each in value]
            if not isinstance(value, str):
                return value
            while found := self._special.search(value):
                if len(found[0]) == 1:
                    raise BadChat(f"it holds {found[0]!r}, a special token of one character")
                value = value[: found.start() + 1] + mark + value[found.start() + 1 :]
            return value

        return parted(turns), parted(tools), mark


def _strings(value: Any) -> Iterator[str]:
    """Every text in plain values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _divided(ids: list[int], is_special: list[bool], segments: list[Segment]) -> list[list[int]]:
    """The ids of a whole chat as those of its segments."""
    parts: list[list[int]] = []
    at = 0
    for segment in segments:
        start = at
        if segment.special is not None:
            at += 1
        else:
            while at < len(ids) and not is_special[at]:
                at += 1
        parts.append(ids[start:at])
    return parts
