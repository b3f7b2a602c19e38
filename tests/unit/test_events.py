"""Events: lines that survive a crash in the middle of one, read from where the reader left off."""

import pytest

from atoll.events import EventLog, read_events


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "events.jsonl"


@pytest.fixture
def log(path):
    log = EventLog(path)
    yield log
    log.close()


def test_events_come_back_as_they_were_written(path, log) -> None:
    log.write("joined", "a joined", island="a", step=3, relay=True)
    (event,), _ = read_events(path)
    assert (event.kind, event.text, event.island, event.step, event.facts) == (
        "joined",
        "a joined",
        "a",
        3,
        {"relay": True},
    )


def test_reading_goes_on_where_it_ended(path, log) -> None:
    log.write("one", "1")
    _, offset = read_events(path)
    log.write("two", "2")
    events, offset = read_events(path, offset)
    assert [event.kind for event in events] == ["two"]
    assert read_events(path, offset) == ([], offset)


def test_a_file_that_is_not_there_has_no_events(tmp_path) -> None:
    assert read_events(tmp_path / "none", 7) == ([], 7)


def test_a_line_that_is_not_yet_whole_is_left_for_later(path, log) -> None:
    log.write("one", "1")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert read_events(path) == ([], 0)
    path.write_bytes(whole)
    assert len(read_events(path)[0]) == 1


def test_a_torn_line_is_skipped_and_nothing_after_it_is_lost(path, log) -> None:
    log.write("one", "1")
    with path.open("ab") as file:
        file.write(b'{"time": 1.0, "ki')
    again = EventLog(path)
    again.write("two", "2")
    again.close()
    assert [event.kind for event in read_events(path)[0]] == ["one", "two"]


def test_a_line_break_inside_a_text_stays_inside_it(path, log) -> None:
    log.write("odd", "one\ntwo\u2028three\r")
    assert [event.text for event in read_events(path)[0]] == ["one\ntwo\u2028three\r"]
