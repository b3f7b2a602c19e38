"""docs/events.md says of every event, status and summary which fields there are, and of what JSON type."""

import re
import typing
from pathlib import Path

import msgspec
import pytest

from atoll import status
from atoll.demo.summary import Moment, Summary
from atoll.events import Event, log
from atoll.events.base import Occurrence
from atoll.events.step import Cause, Contribution
from atoll.metrics import Exchange, Metrics, Score

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text("utf-8")
STRUCTS = (
    Metrics,
    Contribution,
    Exchange,
    status.RunStatus,
    status.Evaluation,
    Score,
    status.IslandStatus,
    status.Told,
    Summary,
    Moment,
)
NAMES = {int: "integer", float: "number", str: "string", bool: "boolean", tuple: "list", dict: "object"}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = re.split(r"^#{2,3} ", PAGE.split(f"### {heading}\n")[1], flags=re.M)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def json_type(annotation: typing.Any) -> str:
    """What JSON makes of a field, in the page's words."""
    if typing.get_origin(annotation) is typing.Annotated:
        return json_type(typing.get_args(annotation)[0])
    choices = [a for a in typing.get_args(annotation) if a is not type(None)]
    if type(None) in typing.get_args(annotation):
        return f"{json_type(choices[0])} or null"
    base = typing.get_origin(annotation) or annotation
    return NAMES.get(base) or f"`{base.__name__}`"


def documented(heading: str) -> list[tuple[str, str]]:
    return [(name.strip("`"), kind) for name, kind, _ in rows(heading)]


@pytest.mark.parametrize("struct", STRUCTS)
def test_every_field_is_on_the_page_in_order_with_its_type(struct) -> None:
    fields = [(field.name, json_type(field.type)) for field in msgspec.structs.fields(struct)]
    assert documented(f"`{struct.__name__}`") == fields


def test_the_common_fields_of_events_are_on_the_page() -> None:
    fields = [(field.name, json_type(field.type)) for field in msgspec.structs.fields(Occurrence)]
    assert documented("Common fields") == fields


def test_every_kind_of_event_is_on_the_page_with_its_own_fields() -> None:
    common = {field.name for field in msgspec.structs.fields(Occurrence)}
    known = {
        kind.__struct_config__.tag: (
            "yes" if kind.routine else "no",
            [field.name for field in msgspec.structs.fields(kind) if field.name not in common],
        )
        for kind in typing.get_args(Event)
    }
    told = {
        kind.strip("`"): (routine, re.findall(r"`([a-z_]+)`", fields))
        for kind, routine, _, fields in rows("Kinds")
    }
    assert told == known


def test_what_a_field_can_be_is_on_the_page() -> None:
    (closed,) = (fields for kind, _, _, fields in rows("Kinds") if kind == "`attempt closed`")
    *causes, last = typing.get_args(Cause)
    assert f"`cause`: {', '.join(causes)} or {last}" in closed
    assert f"`version` (of the format: {log.VERSION})" in PAGE
    assert f"of these structs: {status.VERSION}" in PAGE
