"""Rendered chats to tokens, in which only what the template writes becomes special tokens.

Before a chat is rendered, a mark is put into whatever its texts spell of a special token; so the special
tokens that are found in the rendered text are the template's. The parts between them are encoded as texts,
without the marks. A chat that spells none, as nearly all, is encoded as a whole, as `transformers` does it.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np

from atoll.data.tokenizer import Tokenizer

# Characters that no text uses, since Unicode keeps them for a program's own purposes.
MARKS = [chr(number) for number in range(0xFDD0, 0xFDF0)]
SHORT_CHARACTERS = 64  # of a text whose tokens are remembered, as of what stands before each answer
Plain = TypeVar("Plain")  # text, or arrays and tables of it


class BadChat(Exception):
    """What the template or the tokenizer cannot do with a chat. `kind`: the same for all rows like it."""

    def __init__(self, reason: str, kind: str = "") -> None:
        super().__init__(reason)
        self.kind = kind or reason


class Segment(NamedTuple):
    """A part of a rendered chat: a special token that the template wrote, or what is between two of them."""

    start: int  # in characters
    text: str
    special: int | None  # the token's id

    @property
    def stop(self) -> int:
        return self.start + len(self.text)


class Tokens(NamedTuple):
    """The tokens of a rendered chat."""

    ids: list[int]
    segments: list[Segment]
    places: list[int]  # in tokens, of where each segment begins, and of the end


class Markup:
    """The special tokens of a tokenizer, told apart from what texts spell."""

    def __init__(self, tokenizer: Tokenizer, probe: str) -> None:
        """`probe`: a rendered chat that spells none."""
        self._tokenizer = tokenizer
        by_length = sorted(tokenizer.special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, by_length)))
        self._short: dict[str, list[int]] = {}
        # What a text spells is kept apart by encoding the text apart. With some tokenizers, as those that put
        # a space before a text, this changes its tokens: then a chat that spells special tokens is refused.
        self._can_part = True
        self._can_part = self.tokens(probe, "").ids == self._apart(self._segments(probe), "").ids

    def mark_for(self, chat: Any) -> str:
        """The mark to put into a chat's texts: "" where they spell no special token.

        Raises BadChat where there is no mark to use.
        """
        if not any(map(self._special.search, strings(chat))):
            return ""
        if not self._can_part:
            raise BadChat("it spells a special token, which this tokenizer cannot keep apart from the markup")
        used = set("".join(strings(chat)))
        for mark in MARKS:
            if mark not in used:
                return mark
        raise BadChat("it has all the characters that Unicode keeps for programs, and none is left to use")

    def parted(self, value: Plain, mark: str) -> Plain:
        """Plain values with the mark within every special token that their texts spell."""
        if isinstance(value, dict):
            return {key: self.parted(each, mark) for key, each in value.items()}  # pyright: ignore
        if isinstance(value, list):
            return [self.parted(each, mark) for each in value]  # pyright: ignore
        if not isinstance(value, str):
            return value
        text: str = value
        while found := self._special.search(text):
            if len(found[0]) == 1:
                raise BadChat(f"it holds {found[0]!r}, a special token of one character")
            text = text[: found.start() + 1] + mark + text[found.start() + 1 :]
        return text  # pyright: ignore

    def tokens(self, rendered: str, mark: str) -> Tokens:
        """The tokens of a rendered chat, whose texts have this mark.

        Raises BadChat where a text becomes a special token all the same.
        """
        segments = self._segments(rendered)
        if not mark:
            (ids,) = self._tokenizer.encode_parts([rendered], is_markup=True)
            found = np.flatnonzero(self._tokenizer.is_special(np.array(ids, np.int64))).tolist()
            if [ids[at] for at in found] == [each.special for each in segments if each.special is not None]:
                return Tokens(ids, segments, _places(segments, found, len(ids)))
        return self._apart(segments, mark)

    def num_of_prompt(self, prompt: str, chat: Tokens, mark: str) -> int:
        """The number of tokens of a prompt, the beginning of a rendered chat.

        Raises BadChat where the chat's tokens do not begin with the prompt's.
        """
        at = max(number for number, each in enumerate(chat.segments) if each.start < len(prompt))
        segment = chat.segments[at]
        if segment.stop == len(prompt) and segment.special is not None:
            return chat.places[at + 1]
        if self._can_part:  # then what comes before this segment is the same in any case
            before, asked = chat.places[at], self._plain(_unmarked(prompt[segment.start :], mark))
        else:
            before, (asked,) = 0, self._tokenizer.encode_parts([prompt], is_markup=True)
        if chat.ids[before : before + len(asked)] != asked:
            raise BadChat(
                "where the prompt ends and the answer begins, their texts fall into one token, so a model "
                "would not be asked as it was trained"
            )
        return before + len(asked)

    def _segments(self, rendered: str) -> list[Segment]:
        segments: list[Segment] = []
        at = 0
        for found in self._special.finditer(rendered):
            if found.start() > at:
                segments.append(Segment(at, rendered[at : found.start()], None))
            segments.append(Segment(found.start(), found[0], self._tokenizer.special[found[0]]))
            at = found.end()
        return segments + [Segment(at, rendered[at:], None)] * (at < len(rendered))

    def _apart(self, segments: list[Segment], mark: str) -> Tokens:
        """The tokens of segments, each encoded without regard to the others."""
        texts = [_unmarked(each.text, mark) for each in segments]
        ids: list[int] = []
        places: list[int] = []
        plain = self._tokenizer.encode_parts(texts, is_markup=False)
        for segment, part in zip(segments, plain, strict=True):
            places.append(len(ids))
            if segment.special is not None:
                ids.append(segment.special)
                continue
            if spelled := self._tokenizer.first_special(np.array(part, np.int64)):
                reason = f"the tokenizer takes what it spells for its special token {spelled}"
                raise BadChat(reason, f"spelling {spelled}")
            ids += part
        return Tokens(ids, segments, [*places, len(ids)])

    def _plain(self, text: str) -> list[int]:
        if (known := self._short.get(text)) is not None:
            return known
        (ids,) = self._tokenizer.encode_parts([text], is_markup=False)
        if len(text) <= SHORT_CHARACTERS:
            self._short[text] = ids
        return ids


def _places(segments: list[Segment], special_at: list[int], num_tokens: int) -> list[int]:
    """Where each segment begins, given the places of the special tokens; and the end. All in tokens."""
    places: list[int] = []
    at, following = 0, iter([*special_at, num_tokens])
    stop = next(following)  # of the text before the next special token
    for segment in segments:
        places.append(at)
        if segment.special is None:
            at = stop
        else:
            at, stop = stop + 1, next(following)
    return [*places, at]


def _unmarked(text: str, mark: str) -> str:
    return text.replace(mark, "") if mark else text


def strings(value: Any) -> Iterator[str]:
    """Yield every text in plain values, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)
