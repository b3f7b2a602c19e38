"""What the columns of a table's row become: a text, a chat or a pair of answers.

A chat or a pair travels as JSON, like a text from here to the processes that tokenize it, and its hash says
whether it is held out.
"""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Protocol

import msgspec

from atoll.data import turns as turning
from atoll.data.template import Turn
from atoll.data.turns import BadTurns
from atoll.recipe import Columns, Source
from atoll.recipe.objective import Rows

USUAL = {  # the columns by which the rows of most data sets are known
    "chats": (
        Columns(messages="messages"),
        Columns(messages="conversations"),
        Columns(prompt="prompt", completion="completion"),
        Columns(prompt=["instruction", "input"], completion="output"),
        Columns(prompt="instruction", completion="output"),
    ),
    "pairs": (
        Columns(prompt="prompt", chosen="chosen", rejected="rejected"),
        Columns(chosen="chosen", rejected="rejected"),
    ),
}
BETWEEN_TEXTS = "\n\n"  # of a prompt that lies in several columns


class NoColumnError(Exception):
    """A table does not have the columns that are needed; the message says which it has."""

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A chat, which is one answer to no prompt; or a pair: a prompt, the chosen answer and the rejected one.

    Of the answers, each of which ends with a turn of the assistant, what the assistant says is trained on.
    """

    prompt: list[Turn] = []
    answers: list[list[Turn]]
    tools: list[Any] | None = None

    @classmethod
    def of(cls, text: str) -> "Row":
        """The row in a document's text."""
        return cls(**json.loads(text))

    def texts(self) -> list[str]:
        """What is said in it, turn by turn."""
        turns = [*self.prompt, *(turn for answer in self.answers for turn in answer)]
        return [turn["content"] for turn in turns if turn["content"].strip()]


class Shape(Protocol):
    """What the rows of a source are."""

    def columns(self, names: Sequence[str]) -> list[str]:
        """Those of a table's columns that are read. Raises NoColumnError where one is missing."""
        ...

    def text(self, row: Mapping[str, Any]) -> Any:
        """The document in a row that has the columns: its text, or the text's UTF-8; else what is there.

        Raises BadTurns.
        """
        ...


class Text:
    """A text in one column."""

    def __init__(self, column: str) -> None:
        self.column = column

    def columns(self, names: Sequence[str]) -> list[str]:
        if self.column not in names:
            raise NoColumnError(no_column(self.column, names), f"no column {self.column!r}")
        return [self.column]

    def text(self, row: Mapping[str, Any]) -> Any:
        return row[self.column]


class Chats:
    """Chats, or pairs of answers, in the columns that the recipe names, or in those of the usual names."""

    def __init__(self, rows: Rows, wanted: Columns | None, source: str) -> None:
        """`source`: its name in the recipe, for errors."""
        self._rows, self._wanted, self._source = rows, wanted, source

    def columns(self, names: Sequence[str]) -> list[str]:
        return [name for name in _names(self._known(names)) if name in names]

    def text(self, row: Mapping[str, Any]) -> Any:
        known = self._known(list(row))
        row = {name: _decoded(row.get(name), name) for name in _names(known)}
        tools = turning.tools(row[known.tools], known.tools) if known.tools else None
        prompt = self._prompt(row, known)
        system = row[known.system] if known.system else None
        if system is not None and not isinstance(system, str):
            raise BadTurns(f"column {known.system!r} is not text", f"{known.system!r} is not text")
        if self._rows == "pairs":
            made = _pair(
                prompt,
                turning.turns_or_text(row[known.chosen or ""], "assistant", known.chosen or ""),
                turning.turns_or_text(row[known.rejected or ""], "assistant", known.rejected or ""),
                system,
            )
        else:
            answer = turning.turns(row[known.messages], known.messages) if known.messages else []
            if known.completion:
                answer = turning.turns_or_text(row[known.completion], "assistant", known.completion)
                if not answer:
                    raise BadTurns(f"column {known.completion!r} is empty", "an empty answer")
            made = Row(prompt=[], answers=[turning.with_system([*prompt, *answer], system)])
        for answer in made.answers:
            turning.check_order([*made.prompt, *answer])
        content = {"prompt": made.prompt, "answers": made.answers, "tools": tools}
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))

    def _prompt(self, row: Mapping[str, Any], known: Columns) -> list[Turn]:
        if known.prompt is None:
            return []
        if isinstance(known.prompt, str):
            return turning.turns_or_text(row[known.prompt], "user", known.prompt)
        texts = [row[name] for name in known.prompt]
        for name, text in zip(known.prompt, texts, strict=True):
            if not isinstance(text, str | None):
                raise BadTurns(f"column {name!r} is {type(text).__name__}, not text", f"{name!r} is not text")
        joined = BETWEEN_TEXTS.join(text for text in texts if text and text.strip())
        return turning.turns_or_text(joined, "user", known.prompt[0])

    def _known(self, names: Sequence[str]) -> Columns:
        """The columns to read in a table. Raises NoColumnError where they are not there."""
        if self._wanted is not None:
            for name in _names(self._wanted):
                if name not in names:
                    raise NoColumnError(no_column(name, names), f"no column {name!r}")
            return self._wanted
        for usual in USUAL[self._rows]:
            if all(name in names for name in _names(usual)):
                optional = {name: name for name in ("system", "tools") if name in names}
                return msgspec.structs.replace(usual, **optional)
        what = "a chat" if self._rows == "chats" else "a pair of answers"
        there = ", ".join(names) or "none"
        raise NoColumnError(
            f"no columns of {what} by the usual names; there is: {there}; name them in "
            f"sources.{self._source}.columns",
            f"no columns of {what}",
        )


def of(rows: Rows, name: str, source: Source) -> Shape:
    """What the rows of the source called `name` are, for an objective on `rows`."""
    return Text(source.column) if rows == "stream" else Chats(rows, source.columns, name)


def no_column(column: str, names: Sequence[str]) -> str:
    """The sentence that a column is missing."""
    near = get_close_matches(column, names, 1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f"no column {column!r}; there is: {', '.join(names) or 'none'}{meant}"


def _names(columns: Columns) -> list[str]:
    """The names in a recipe's `columns`, each once."""
    values = [value for value in msgspec.structs.astuple(columns) if value is not None]
    names = [name for value in values for name in ([value] if isinstance(value, str) else value)]
    return list(dict.fromkeys(names))


def _decoded(value: Any, column: str) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadTurns(f"column {column!r} is not UTF-8 at byte {error.start}", "not UTF-8") from error


def _pair(prompt: list[Turn], chosen: list[Turn], rejected: list[Turn], system: str | None) -> Row:
    """A pair from its two sides, which may be whole chats: then what they begin with alike is the prompt.

    Raises BadTurns where one side is empty, or both are equal.
    """
    if prompt and chosen[: len(prompt)] == rejected[: len(prompt)] == prompt:
        prompt = []  # the sides repeat it
    num_common = 0
    while num_common < min(len(chosen), len(rejected)) and chosen[num_common] == rejected[num_common]:
        num_common += 1
    if chosen == rejected and chosen:
        raise BadTurns("both sides of the pair are equal", "pairs of equal sides")
    prompt = turning.with_system([*prompt, *chosen[:num_common]], system)
    for name, side in (("chosen", chosen[num_common:]), ("rejected", rejected[num_common:])):
        if not side:
            raise BadTurns(f"the {name} side has no answer of its own", "pairs without two answers")
        if side[0]["role"] != "assistant":
            raise BadTurns(
                f"the sides of the pair answer different prompts: the {name} one goes on with a turn of "
                f"{side[0]['role']}",
                "pairs of different prompts",
            )
    return Row(prompt=prompt, answers=[chosen[num_common:], rejected[num_common:]])
