"""The turns of a chat, from any of the forms in which people keep them to the one that templates read.

A turn is `{"role": ..., "content": ...}`, with `tool_calls` where the assistant calls a tool. The roles are
system, user, assistant and tool.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

from atoll.data.template import Turn

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "ipython"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),  # of the assistant, and its text is a call
}
# What may come before a turn; None is the beginning of the chat.
BEFORE = {
    "system": (None,),
    "user": (None, "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


class BadTurns(Exception):
    """What cannot be a chat, and why. `kind` is the reason without what is particular to the row."""

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


def turns(value: Any, column: str) -> list[Turn]:
    """The turns in a column's value: an array of tables, one table, or JSON of these; [] for no value.

    Raises BadTurns for anything else.
    """
    if isinstance(value, str):
        value = _json(value, column)
    if isinstance(value, Mapping):
        value = _unzipped(cast(Mapping[str, Any], value))
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadTurns(f"column {column!r} is {type(value).__name__}, not turns", f"{column!r} is not turns")
    return [_turn(each, number) for number, each in enumerate(cast(list[Any], value), 1)]


def turns_or_text(value: Any, role: str, column: str) -> list[Turn]:
    """As `turns`, but a text, whatever it holds, is one turn of this role; a blank one is none."""
    if isinstance(value, str):
        return [{"role": role, "content": value}] if value.strip() else []
    return turns(value, column)


def tools(value: Any, column: str) -> list[Any] | None:
    """The descriptions of tools in a column's value: an array, or JSON of one; None where there are none."""
    if isinstance(value, str) and value.strip():
        value = _json(value, column)
    if not value:
        return None
    if not isinstance(value, list):
        raise BadTurns(
            f"column {column!r} is {type(value).__name__}, not an array of tools", f"{column!r} is no array"
        )
    return [_without_nulls(each) for each in cast(list[Any], value)]


def with_system(chat: list[Turn], system: str | None) -> list[Turn]:
    """The turns with a system turn of this text, unless they begin with one or the text is blank."""
    if not (system or "").strip() or (chat and chat[0]["role"] == "system"):
        return chat
    return [{"role": "system", "content": system}, *chat]


def check_order(chat: list[Turn]) -> None:
    """Raises BadTurns unless users and the assistant take turns, and the assistant has the last."""
    before = None
    for number, turn in enumerate(chat, 1):
        role = turn["role"]
        if before not in BEFORE[role]:
            where = f"follows one of {before}" if before else "begins the chat"
            raise BadTurns(f"turn {number}, of {role}, {where}: roles out of order", "roles out of order")
        if not turn["content"].strip() and "tool_calls" not in turn and role != "tool":
            raise BadTurns(f"turn {number}, of {role}, is empty", f"an empty turn of {role}")
        before = role
    if "assistant" not in [turn["role"] for turn in chat]:
        raise BadTurns("no turn of the assistant", "no turn of the assistant")
    if before != "assistant":
        raise BadTurns(f"the last turn is of {before}, and nothing answers it", "no answer at the end")


def _turn(value: Any, number: int) -> Turn:
    if not isinstance(value, Mapping):
        raise BadTurns(
            f"turn {number} is {type(value).__name__}, not a table of role and content", "turns are no tables"
        )
    table = cast(Mapping[str, Any], value)
    name, text = ("from", "value") if "from" in table and "value" in table else ("role", "content")
    if name not in table or (text not in table and not table.get("tool_calls")):
        known = ", ".join(map(str, table)) or "none"
        raise BadTurns(
            f"turn {number} has neither role and content nor from and value; there is: {known}",
            "turns without role and content",
        )
    role = ROLES.get(str(table[name]).strip().lower())
    if role is None:
        raise BadTurns(f"turn {number} is of {table[name]!r}, a role that is not known", "an unknown role")
    content = _text(table.get(text), number)
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": [_call(content, number)]}
    turn: Turn = {"role": role, "content": content}
    if role == "assistant" and table.get("tool_calls"):
        calls = table["tool_calls"]
        turn["tool_calls"] = [_call(each, number) for each in (calls if isinstance(calls, list) else [calls])]
    return turn


def _text(value: Any, number: int) -> str:
    """A turn's text: a string, or the texts of OpenAI's parts of a content."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = cast(list[Any], value) if isinstance(value, list) else [value]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise BadTurns(f"turn {number} holds more than text", "turns of more than text")
    return "".join(cast(list[str], texts))


def _call(value: Any, number: int) -> dict[str, Any]:
    """A call of a tool as templates read it: its arguments are a table."""
    try:
        table: Any = json.loads(value) if isinstance(value, str) else value
        function = table.get("function") or table
        given = function.get("arguments", function.get("parameters"))
        arguments = json.loads(given) if isinstance(given, str) else given
        name = function["name"]
        if isinstance(name, str) and isinstance(arguments or {}, dict):
            call = {"name": name, "arguments": _without_nulls(arguments or {})}
            return {"type": "function", "function": call}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        pass
    raise BadTurns(
        f"turn {number} calls a tool, but not by a name and a table of arguments",
        "a call of a tool of no form",
    )


def _unzipped(table: Mapping[str, Any]) -> list[Any]:
    """One table as an array of it; a table of arrays, as `datasets` gives turns, as an array of tables."""
    columns = list(table.values())
    if columns and all(isinstance(column, list) for column in columns):
        return [dict(zip(table, row, strict=False)) for row in zip(*columns, strict=False)]
    return [table]


def _json(text: str, column: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadTurns(f"column {column!r} is not JSON: {error}", f"{column!r} is not JSON") from error


def _without_nulls(value: Any) -> Any:
    """A value without the keys that are null, which a table of Arrow adds where rows have different keys."""
    if isinstance(value, dict):
        table = cast(dict[str, Any], value)
        return {key: _without_nulls(each) for key, each in table.items() if each is not None}
    return [_without_nulls(each) for each in cast(list[Any], value)] if isinstance(value, list) else value
