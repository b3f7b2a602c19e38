"""Events come back as they were written; what cannot be read is skipped and counted, never lost silently."""

import typing

import msgspec
import pytest

from atoll import events
from atoll.events import Event, Frozen, Joined, Refused, Thawed
from atoll.events.log import VERSION, EventLog, EventReader
from atoll.events.step import CAUSES, AttemptClosed, Cause, Contribution
from atoll.metrics import Metrics, Score

KINDS = typing.get_args(Event)
JOINED = Joined(island="a", step=3, contributor="ann", relay=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "events.jsonl"


@pytest.fixture
def log(path):
    log = EventLog(path)
    yield log
    log.close()


def example(kind: type) -> Event:
    """An event of this kind, with a value in every field."""
    metrics = Metrics(loss=2.5, gradient_norm=1.0, learning_rate=0.001, compute_seconds=9.0)
    contribution = Contribution(tokens=8, inner_steps=4, loss=2.6, metrics=metrics)
    values = {str: "abc", int: 3, float: 1.5, bool: True, tuple[str, ...]: ("a", "b", "c")}
    values[float | None] = 1.5
    values[dict[str, int]] = {"books": 5}
    values[dict[str, Contribution]] = {"a": contribution, "b": contribution}
    values |= {
        dict[str, Score]: {"arc": Score(0.25, 0.01), "gsm8k": Score(0.5)},
        dict[str, float]: {"a": 4.5},
    }
    fields = {
        field.name: typing.get_args(field.type)[0]
        if typing.get_origin(field.type) is typing.Literal
        else values[field.type]
        for field in msgspec.structs.fields(kind)
    }
    return kind(**fields)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_as_it_was_written_with_a_sentence_for_people(kind, path, log) -> None:
    log.write(written := example(kind))
    (event,) = EventReader(path).read()
    assert event == msgspec.structs.replace(written, time=event.time)
    assert event.time > 1e9, "seconds since the epoch, by the clock of whoever wrote it"
    line = msgspec.json.decode(path.read_bytes())
    assert (line["version"], line["kind"], line["text"]) == (VERSION, event.kind, event.text)
    assert event.text
    assert "\n" not in event.text


def test_the_sentence_is_made_from_the_fields() -> None:
    assert JOINED.text == "a joined as a relay"
    assert Frozen(island="a", silent_seconds=2.54).text == "a is silent for 2.5 s; going on without it"
    assert Refused(island="a", what="proposal", reason="it is late").text == (
        "a proposal of a was refused: it is late"
    )
    assert example(events.Committed).text == "step 3: 2 islands, 3 tokens, loss 1.500, root abc"
    assert example(events.AttemptOpened).text == (
        "step 3, attempt 3: 3 participants, 3 owners; without a, b and c"
    )
    assert example(events.Evaluated).text == (
        "state 3 was evaluated: arc 0.2500 ± 0.0100, gsm8k 0.5000, held-out a 4.500"
    )


def test_an_attempt_says_why_it_was_closed() -> None:
    assert CAUSES.keys() == set(typing.get_args(Cause))
    for cause in CAUSES:
        text = AttemptClosed(step=2, number=1, cause=cause, islands=("a", "b")).text
        assert text.startswith("step 2, attempt 1: ")
        assert ("a and b" in text) == (cause != "term")
    assert "the agents did not hold" in AttemptClosed(number=1, cause="not held", islands=()).text


def test_only_what_is_not_routine_is_kept_for_the_status(log) -> None:
    for kind in KINDS:
        log.write(example(kind))
    routine = {kind.__name__ for kind in KINDS if kind.routine}
    assert routine == {"Enrolled", "Ready", "AttemptOpened", "Committed"}
    assert not any(event.routine for event in log.notable)
    assert len(log.notable) == log.notable.maxlen < len(KINDS)


# ------------------------------------------------------------------------------------------------ the reader
def test_reading_goes_on_where_it_ended(path, log) -> None:
    log.write(JOINED)
    reader = EventReader(path)
    assert len(reader.read()) == 1
    log.write(Thawed(island="b"))
    assert [event.kind for event in reader.read()] == ["thawed"]
    assert reader.read() == []


def test_a_reader_may_begin_at_the_end(path, log) -> None:
    log.write(JOINED)
    reader = EventReader(path, path.stat().st_size)
    log.write(Thawed(island="b"))
    assert [event.kind for event in reader.read()] == ["thawed"]


def test_a_file_that_is_not_there_has_no_events_yet(path) -> None:
    reader = EventReader(path)
    assert reader.read() == []
    log = EventLog(path)
    log.write(JOINED)
    log.close()
    assert len(reader.read()) == 1


def test_a_line_that_is_not_yet_whole_is_left_for_later(path, log) -> None:
    log.write(JOINED)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    reader = EventReader(path)
    assert reader.read() == []
    path.write_bytes(whole)
    assert len(reader.read()) == 1
    assert reader.complaint == ""


def test_a_torn_line_is_counted_and_nothing_after_it_is_lost(path, log) -> None:
    log.write(JOINED)
    with path.open("ab") as file:
        file.write(b'{"version": 1, "ki')
    again = EventLog(path)
    again.write(Thawed(island="b"))
    again.close()
    reader = EventReader(path)
    assert [event.kind for event in reader.read()] == ["joined", "thawed"]
    assert (reader.num_torn, reader.num_unknown) == (1, 0)
    assert "1 lines that a crash cut off" in reader.complaint


def test_lines_of_a_newer_atoll_are_counted_and_what_is_known_of_them_is_read(path, log) -> None:
    log.write(JOINED)
    newer = [
        b'{"version": 2, "kind": "merged", "time": 1.0, "island": "a"}',
        b'{"version": 2, "kind": "frozen", "time": 1.0, "silent": "long"}',
        b'{"version": 2, "kind": "thawed", "time": 1.0, "island": "b", "colour": "red"}',
    ]
    with path.open("ab") as file:
        file.write(b"\n".join(newer) + b"\n")
    reader = EventReader(path)
    assert [event.kind for event in reader.read()] == ["joined", "thawed"]
    assert (reader.num_torn, reader.num_unknown) == (0, 2)
    assert f"reads format {VERSION}" in reader.complaint


def test_bytes_that_are_no_text_are_a_torn_line(path, log) -> None:
    path.write_bytes(b"\xff\xfe\x00{\n")
    log.write(JOINED)
    reader = EventReader(path)
    assert len(reader.read()) == 1
    assert reader.num_torn == 1


def test_a_line_break_inside_a_field_stays_inside_it(path, log) -> None:
    reason = "one\ntwo\u2028three\r"
    log.write(Refused(island="a", what="island", reason=reason))
    (event,) = EventReader(path).read()
    assert isinstance(event, Refused)
    assert event.reason == reason
