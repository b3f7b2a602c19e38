"""What people see: whole screens, kept in tests/captures to be looked at, and what must never reach a screen.

A capture that is to change: delete its file and run this test, which writes it anew, and fails so that
somebody looks at it.
"""

import io
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from rich.console import Console

import examples
from atoll import events
from atoll.events.step import Contribution
from atoll.metrics import Metrics, Score
from atoll.status import Evaluation, IslandStatus, Overview, RunStatus, Told
from atoll.swarm.messages import Pulse
from atoll.terminal import Host, Joiner, Names, Picture, Relay, Terminal, spark, status_table
from atoll.terminal.joiner import Pace
from atoll.terminal.news import Kind, News, Situation, situation

CAPTURES = Path(__file__).parents[1] / "captures"
IDS = {
    "relay": "0123456789abcdef",
    "ann": "334abb558f79ca9c",
    "bob": "46ffaba9a82783b9",
    "eve": "968dd0540fde3404",
}
NOON = 12 * 3600.0
EVIL = "\x1b[2J[/x]\x1b]0;gone\x07\u202enet\nforged line"


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def screen(width: int = 80, height: int = 24, tty: bool = False) -> tuple[Terminal, io.StringIO]:
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        height=height,
        force_terminal=tty,
        highlight=False,
        soft_wrap=True,
        color_system=None,
    )
    terminal = Terminal(console=console)
    console.width = width
    return terminal, file


def is_as_captured(name: str, text: str) -> bool:
    path = CAPTURES / f"{name}.txt"
    lines = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    if not path.exists():
        path.write_text(lines)
        pytest.fail(f"look at {path}")
    assert lines == path.read_text()
    return True


def an_island(name: str, **changes: object) -> IslandStatus:
    plain = {
        "island": IDS[name],
        "contributor": name,
        "addresses": ("198.51.100.7:7800",),
        "note": "waiting for the others",
        "inner_step": 7,
        "planned_inner_steps": 10,
        "metrics": Metrics(loss=5.2134, heldout_loss=5.301, tokens_per_second=4123.0),
        "sent_bytes": 1,
        "committed_tokens": 234_567,
        "committed_tokens_by_source": {"books": 200_000, "python": 34_567},
    }
    return examples.island_status(**{**plain, **changes})


RELAY = an_island("relay", relay=True, note="at state 7", committed_tokens=0, metrics=Metrics())


def a_status(*islands: IslandStatus, **changes: object) -> RunStatus:
    plain = {
        "time": NOON,
        "run_id": "reef-a079e425",
        "step": 7,
        "num_outer_steps": 20,
        "num_inner_steps": 10,
        "num_islands": 2,
        "root": "383490a22ec81122",
        "attempt": 1,
        "committed_tokens": 469_134,
        "ledger": {"ann": {"books": 200_000, "python": 34_567}, "bob": {"books": 200_000, "python": 34_567}},
        "islands": islands,
        "events": (Told(time=NOON, kind="joined", text=f"{IDS['ann']} joined as an island"),),
    }
    return examples.run_status(**{**plain, **changes})


SWARM = a_status(
    an_island("ann"),
    an_island("bob", present=False),
    an_island("eve", present=False, evicted="sent a NaN", committed_tokens=0),
    RELAY,
)


def committed(step: int, *names: str, at: float) -> events.Committed:
    gave = Contribution(tokens=5120, inner_steps=10, loss=6.0, metrics=Metrics())
    return events.Committed(
        time=at,
        step=step,
        tokens=5120 * len(names),
        loss=7.0 - step / 10,
        participants={IDS[name]: gave for name in names},
        holders=(),
        root="",
    )


# ------------------------------------------------------------------------------------------------ a whole run
STORY: list[events.Event] = [
    events.ReignBegan(time=NOON, step=0, run_id="reef-a079e425", term=1),
    events.Joined(time=NOON + 1, island=IDS["relay"], contributor="relay", relay=True),
    events.Joined(time=NOON + 2, island=IDS["ann"], contributor="ann", relay=False),
    events.Ready(time=NOON + 3, step=0, island=IDS["ann"], trainer=True, root="ab"),
    events.Joined(time=NOON + 4, island=IDS["bob"], contributor="bob", relay=False),
    committed(0, "ann", "bob", at=NOON + 10),
    events.Left(time=NOON + 11, step=1, island=IDS["bob"], reason="its line closed"),
    committed(1, "ann", at=NOON + 15),
    events.Stalled(time=NOON + 20, step=2, reason="no agent can be reached by the others: start a relay"),
    events.Resumed(time=NOON + 30, step=2),
    events.Joined(time=NOON + 31, step=2, island=IDS["bob"], contributor="bob", relay=False),
    committed(2, "ann", "bob", at=NOON + 40),
    events.Finished(time=NOON + 40, step=3, num_outer_steps=3),
]


@pytest.mark.parametrize("width", [80, 120])
def test_a_host_shows_joins_deaths_commits_a_stall_and_the_end_a_line_each(width) -> None:
    terminal, file = screen(width)
    speaker = Host(terminal, 3)
    for event in STORY:
        speaker.hears(event)
    assert is_as_captured(f"host-{width}", file.getvalue())


def test_a_status_tells_the_newest_evaluation() -> None:
    found = Evaluation(
        time=NOON,
        step=6,
        root="ab",
        island=IDS["ann"],
        scores={"arc_challenge": Score(0.25, 0.01)},
        heldout_losses={"books": 4.5},
    )
    terminal, file = screen(120)
    terminal.console.print(status_table(msgspec.structs.replace(SWARM, evaluation=found), 120))
    assert "state 6 was evaluated: arc_challenge 0.2500 ± 0.0100, held-out books 4.500" in file.getvalue()


def test_a_quiet_host_shows_nothing_of_it() -> None:
    terminal, file = screen()
    terminal.quiet = True
    speaker = Host(terminal, 3)
    for event in STORY:
        speaker.hears(event)
    assert file.getvalue() == ""


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_status_shows_names_and_ids_whole_who_is_gone_and_who_is_evicted(width) -> None:
    terminal, file = screen(width)
    terminal.console.print(status_table(SWARM, width))
    assert all(island in file.getvalue() for island in IDS.values())
    assert width < 80 or is_as_captured(f"status-{width}", file.getvalue())


def test_a_status_says_that_the_run_stalls_and_what_to_do(width: int = 80) -> None:
    terminal, file = screen(width)
    stall = "no agent can be reached by the others: start a relay"
    terminal.console.print(status_table(a_status(an_island("ann"), stall=stall), width))
    assert f"stalled: {stall}" in file.getvalue()


def test_a_status_of_files_says_so_and_since_when() -> None:
    terminal, file = screen(80)
    terminal.console.print(status_table(a_status(hosted=False), 80, NOON + 3 * 3600))
    assert "not hosted now" in file.getvalue()
    assert "last hosted 3.0 h ago" in file.getvalue()


# ---------------------------------------------------------------------------------------------- the demo
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_the_demos_picture_fits_the_screen_with_keys_and_last_events_in_sight(width, height) -> None:
    told = [
        f"12:00:{n:02}  step {n} of 20 committed by ann and bob: loss 6.1, 10.2 k tokens" for n in range(60)
    ]
    picture = Picture(
        keys="keys: 1-3 kill an island, Ctrl-C ends the demo",
        status=SWARM,
        names={island: name for name, island in IDS.items()},
        losses=[7.6, 7.2, 6.9, 6.6, 6.5, 6.4, 6.3],
        committed_at=[NOON + 3 * n for n in range(7)],
        told=told,
    )
    terminal, file = screen(width, height)
    terminal.console.print(picture.draw(width, height, NOON + 20))
    lines = file.getvalue().splitlines()
    assert len(lines) == height - 1
    assert max(map(len, lines)) <= width
    assert is_as_captured(f"demo-{width}x{height}", file.getvalue())


def test_the_demos_picture_leaves_out_events_before_it_leaves_out_the_keys() -> None:
    picture = Picture(keys="keys: here", status=SWARM, told=["one", "two", "three"])
    terminal, file = screen(80, 13)
    terminal.console.print(picture.draw(80, 13, NOON))
    assert file.getvalue().splitlines()[-2:] == ["three", "keys: here"]


def test_a_curve_is_as_long_as_the_screen_allows() -> None:
    assert spark([3.0, 2.0, 1.0]) == "█▅▁"
    assert len(spark([float(n) for n in range(1000)], 40)) == 40


# ------------------------------------------------------------------------------------------- joiner and relay
def seen(**changes: object) -> Overview:
    plain = {
        "step": 15,
        "num_outer_steps": 300,
        "num_islands": 3,
        "num_awaited": 1,
        "stall": "",
        "num_proposed": 1,
        "tokens_per_second": 41_000.0,
    }
    return Overview(**{**plain, **changes})


LOST = Pulse(lost="coordinator: the other end closed the stream", note="training", overview=seen())
PULSES = [
    Pulse(note="asking for a certificate at 198.51.100.7:7701"),
    Pulse(note="asking for a certificate at 198.51.100.7:7701", lost="connection refused"),
    Pulse(note="at state 15", overview=seen(num_islands=2, num_awaited=3)),
    Pulse(note="waiting for the others", overview=seen()),
    LOST,
    Pulse(lost="coordinator at 198.51.100.7:7700 cannot be reached", note="training", overview=seen()),
    Pulse(note="training", overview=seen(step=16)),
    Pulse(
        note="training", overview=seen(step=16, stall="no agent can be reached by the others: start a relay")
    ),
    Pulse(note="training", overview=seen(step=17)),
    Pulse(note="at state 300", overview=seen(step=300)),
    Pulse(note="at state 300", overview=seen(step=300, num_islands=0)),
]


@pytest.mark.parametrize(
    ("pulse", "text"),
    [
        (PULSES[0], "asking for a certificate at 198.51.100.7:7701"),
        (
            PULSES[1],
            "asking for a certificate at 198.51.100.7:7701: no answer yet, trying again (connection refused)",
        ),
        (PULSES[2], "step 15 of 300, waiting for islands: 2 of 3 are here"),
        (PULSES[3], "step 15 of 300, 3 islands, swarm 41 k tokens/s"),
        (LOST, "coordinator lost, trying again (coordinator: the other end closed the stream)"),
        (PULSES[7], "step 16 of 300 stalls: no agent can be reached by the others: start a relay"),
        (PULSES[9], "all 300 outer steps are committed"),
    ],
)
def test_a_sign_of_life_is_one_sentence_about_what_matters_most(pulse, text) -> None:
    assert situation(pulse.lost, pulse.note, pulse.overview).text == text


def test_news_are_told_once_whatever_the_reason_at_each_try() -> None:
    news = News()
    lines = [news.hear(situation(p.lost, p.note, p.overview)) for p in (LOST, PULSES[5], LOST, PULSES[6])]
    assert [bool(line) for line in lines] == [True, False, False, True]
    assert news.hear(Situation(Kind.WORKING, "step 18")) == ""


def refresh(terminal: Terminal) -> None:
    """Draw the picture now, which happens a few times a second."""
    if terminal._live is not None:
        terminal._live.refresh()


@pytest.mark.parametrize("tty", [True, False])
def test_a_joiner_says_why_it_waits_and_leaves_nothing_of_a_bar(tty) -> None:
    terminal, file = screen(80, tty=tty)
    with terminal:
        speaker = Joiner(terminal)
        speaker.starts()
        for number, pulse in enumerate(PULSES):
            speaker.hears(pulse, waits=number != 5)
            if number == 4:
                plan = examples.plan(step=15)
                for done in (1, 2, 3, 4):
                    speaker.inner_step(plan, done, SimpleNamespace(loss=3.2))
                    refresh(terminal)
        terminal.clear()
        shown = file.getvalue()
    if tty:
        assert "training, outer step 15" in shown
        assert shown.endswith("\x1b[2K"), "the picture is wiped away"
        assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), "the cursor is back"
    else:
        assert is_as_captured("joiner", shown)


def test_the_time_that_is_left_follows_from_the_pace_of_inner_steps_however_they_are_reported() -> None:
    """Ten at once every five seconds, as an island reports them: 0.5 s each."""
    pace, paces = Pace(), list[float]()
    for burst in range(3):
        for number in range(1, 11):
            pace.hears(7, 10 * burst + number, 5.0 * burst + 0.001 * number)
        paces.append(pace.seconds)
    assert paces == [0.0, pytest.approx(0.5, abs=0.001), pytest.approx(0.5, abs=0.001)]
    pace.hears(8, 1, 60.0)
    assert pace.seconds == paces[-1], "until the next plan has one of its own"


def a_summary(**changes: Any) -> SimpleNamespace:
    """What an island did in 60 outer steps of ten inner steps (`train.Summary`)."""
    plain = {
        "outer_steps": 60,
        "inner_steps": 600,
        "full_inner_steps": 600,
        "count": 9000,
        "counts": "tokens",
        "seconds": 60.0,
    }
    return SimpleNamespace(**{**plain, **changes})


@pytest.mark.parametrize(("inner_steps", "told"), [(600, ""), (450, "150 of the 600 inner steps")])
def test_what_was_not_done_is_said_at_the_end(inner_steps, told) -> None:
    terminal, file = screen(120)
    with terminal:
        Joiner(terminal).trained(a_summary(inner_steps=inner_steps))
    assert told in file.getvalue()
    assert ("were not done here" in file.getvalue()) == bool(told)


def test_the_end_of_a_run_is_its_last_step_also_where_the_trainer_never_saw_its_update() -> None:
    terminal, file = screen(120)
    with terminal:
        speaker = Joiner(terminal)
        speaker.hears(PULSES[5], waits=False)
        overview = PULSES[5].overview
        assert overview is not None
        last_seen = overview.num_outer_steps - 1
        speaker.trained(a_summary(outer_steps=last_seen))
    assert f"finished at outer step {last_seen + 1}" in file.getvalue()


def test_a_slow_islands_row_says_how_much_it_was_planned() -> None:
    terminal, file = screen(120)
    terminal.console.print(status_table(a_status(an_island("bob", planned_inner_steps=9)), 120))
    assert "7/9 of 10" in file.getvalue()


@pytest.mark.parametrize("width", [40, 50, 60, 75])
def test_names_and_ids_are_whole_on_a_narrow_terminal(width) -> None:
    terminal, file = screen(width)
    rows = (an_island("ann"), an_island("bob", contributor="somebody"))
    terminal.console.print(status_table(a_status(*rows), width))
    shown = file.getvalue()
    assert IDS["ann"] in shown
    assert IDS["bob"] in shown
    assert "ann" in shown
    assert "somebo" in shown, "whole or folded, but never left out"


def test_a_relay_tells_commits_and_what_stands_in_their_way() -> None:
    terminal, file = screen(80)
    speaker = Relay(terminal)
    for number, pulse in enumerate(PULSES):
        speaker.hears(pulse, NOON + number)
    assert is_as_captured("relay", file.getvalue())


# ------------------------------------------------------------------------------------ what strangers write
def test_what_strangers_write_is_text(capsys) -> None:
    terminal, file = screen(100, tty=True)
    told = Told(time=NOON, kind="left", text=f"{IDS['ann']} is gone: {EVIL}")
    bad = an_island("ann", contributor=EVIL, note=EVIL, evicted=EVIL)
    ledger = {EVIL: {EVIL: 5}}
    status = a_status(bad, events=(told,), ledger=ledger, stall=EVIL)
    names = {IDS["ann"]: EVIL}
    picture = Picture(keys="keys", status=status, names=names, told=[EVIL])
    host = Host(terminal, 3)
    host.hears(events.Joined(time=NOON, island=IDS["ann"], contributor=EVIL, relay=False))
    host.hears(events.Left(time=NOON, island=IDS["ann"], reason=EVIL))
    terminal.tell(EVIL)
    for width in (80, 160):
        terminal.console.width = width
        terminal.console.print(status_table(status, width))
        terminal.console.print(picture.draw(width, 40, NOON))
    shown = file.getvalue()
    assert "[/x]" in shown
    assert "\x1b[2J" not in shown
    assert "\x1b]0" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown


def test_a_contributor_with_one_island_is_its_name_and_with_several_not() -> None:
    names = Names()
    names.learn(IDS["ann"], "ann")
    assert names.within(f"{IDS['ann']} is gone") == "ann is gone"
    names.learn(IDS["bob"], "ann")
    assert names.of(IDS["ann"]) == "ann 334a"
    assert names.of(IDS["eve"]) == IDS["eve"]
