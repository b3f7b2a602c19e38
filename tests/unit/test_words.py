"""What strangers write: what is let in at the doors, and what of it is shown."""

import pytest

import examples
from atoll.swarm import messages as m
from atoll.swarm.messages.control import COORDINATOR_DOOR
from atoll.swarm.records import encode
from atoll.words import MAX_LINE_LENGTH, one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("two\nlines\tand more ", "two lines and more"),
        ("\x1b[2J", "\N{REPLACEMENT CHARACTER}[2J"),
        ("\u202ereversed", "\N{REPLACEMENT CHARACTER}reversed"),
        ("\ud800", "\N{REPLACEMENT CHARACTER}"),
        ("Zoë 東京 [/x]", "Zoë 東京 [/x]"),
    ],
)
def test_a_line_is_one_of_visible_characters(text, line) -> None:
    assert one_line(text) == line


def test_a_long_line_is_cut_and_says_so() -> None:
    assert one_line("x" * 1000) == "x" * (MAX_LINE_LENGTH - 1) + "…"


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\x9b2J", "x" * (MAX_LINE_LENGTH + 1)])
def test_a_door_refuses_words_that_are_no_line(text) -> None:
    beat = m.Beat(step=0, inner_step=0, note=one_line(text))
    assert COORDINATOR_DOOR.decode(encode(beat)) == beat
    for message in (
        m.Beat(step=0, inner_step=0, note=text),
        examples.hello(contributor=text),
        m.Fault(step=0, number=1, peer="a", kind="failed", text=text),
    ):
        with pytest.raises(ValueError, match="takes no such message"):
            COORDINATOR_DOOR.decode(encode(message))
