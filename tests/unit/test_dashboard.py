"""What the reducer makes of a run's events, and what comes of it in a page and a file."""

import itertools
import json
import re

import msgspec
import numpy as np
import pytest
from harness import told

from atoll import events as e
from atoll.dashboard import atlas, html, page, shown, view
from atoll.dashboard.columns import Points, figures
from atoll.dashboard.reducer import Reducer
from atoll.dashboard.source import CHUNK_BYTES, Source
from atoll.errors import UserError
from atoll.events.step import Contribution
from atoll.metrics import Exchange, Metrics
from atoll.run.directory import RunDir

EVIL = "<img src=x onerror=alert(1)>\u202eevil\x1b[31m\r\n" + "x" * 10_000


def reduced(events, **about) -> Reducer:
    reducer = Reducer(view.About(name="reef", **about))
    for event in events:
        reducer.take(event)
    return reducer


def given(tokens: int = 8, loss: float = 2.0, computing: float = 8.0) -> Contribution:
    metrics = Metrics(compute_seconds=computing, communicate_seconds=computing / 4)
    exchange = Exchange(send_seconds=1.0, reduce_seconds=2.0, sent_bytes=1_000)
    return Contribution(tokens=tokens, inner_steps=4, loss=loss, metrics=metrics, exchange=exchange, norm=0.5)


def commit(step: int, time: float, **islands: Contribution) -> e.Committed:
    tokens = sum(each.tokens for each in islands.values())
    return e.Committed(
        step=step,
        time=time,
        tokens=tokens,
        loss=2.0 - step,
        participants=islands,
        holders=(),
        root="ab",
        reduce_seconds=2.0,
        hold_seconds=1.0,
        norm=0.4,
        cosine=0.9,
        sources={"books": tokens},
    )


def joined(island: str, time: float = 0.0, relay: bool = False) -> e.Joined:
    return e.Joined(island=island, time=time, contributor=island.upper(), relay=relay)


TWO = (
    e.ReignBegan(time=1.0, step=0, run_id="reef-1", term=1),
    joined("a", 2.0),
    joined("b", 2.0),
    commit(0, 12.0, a=given(), b=given()),
    commit(1, 22.0, a=given(computing=16.0)),
)


# --------------------------------------------------------------------------------------------- the reducer
def test_curves_hold_what_the_commits_say() -> None:
    steps = shown.steps(reduced(TWO, num_parameters=1_000, inner_steps=4))
    assert steps.step == [0, 1]
    assert steps.loss == [2.0, 1.0]
    assert steps.tokens == [16, 24]
    assert steps.time == [12.0, 22.0]
    assert steps.seconds == [11.0, 10.0], "the first one since its coordinator began"
    assert steps.participants == [2, 1]
    assert steps.there == [2, 2]
    assert steps.as_original == [0.8, 0.8]
    assert steps.end_to_end == pytest.approx([16 / 22, 8 / 20], rel=1e-4)
    assert (steps.norm, steps.cosine, steps.norm_low) == ([0.4, 0.4], [0.9, 0.9], [0.5, 0.5])
    assert steps.saved == [2 * 4 * 1_000 * 4 / 2_000, 0.0], "data-parallel training of one sends nothing"
    recent = steps.recent
    assert (recent.computing, recent.sending, recent.reducing) == ([8.0, 8.0], [1.0, 1.0], [1.0, 1.0])
    assert (recent.holding, recent.waiting) == ([1.0, 1.0], [0.0, 0.0])


def test_what_is_not_told_is_not_known_and_never_0() -> None:
    bare = e.Committed(
        step=0,
        time=5.0,
        tokens=8,
        loss=None,
        participants={"a": Contribution(tokens=8, inner_steps=4, loss=None, metrics=Metrics())},
        holders=(),
        root="ab",
    )
    steps = shown.steps(reduced([bare]))
    unknown = (
        steps.loss,
        steps.seconds,
        steps.as_original,
        steps.end_to_end,
        steps.saved,
        steps.norm,
        steps.cosine,
    )
    assert all(column == [None] for column in unknown)
    assert (
        steps.recent.sending
        == steps.recent.reducing
        == steps.recent.holding
        == steps.recent.waiting
        == [None]
    )
    now = shown.now(reduced([bare]), 6.0, None)
    assert (now.hosted, now.num_taking_part, now.open_tokens, now.loss, now.saved) == (
        None,
        0,
        None,
        None,
        None,
    )
    story = shown.story(reduced([bare]))
    assert story.consumed is None


def test_a_page_that_a_contributor_gives_is_told_and_stays_until_another_is_given() -> None:
    enrolled = e.Enrolled(time=0.0, island="a", contributor="ann", place="", link="https://example.org/ann")
    for events in ([enrolled], [enrolled, msgspec.structs.replace(enrolled, link="")]):
        (row,) = shown.islands(reduced(events))
        assert row.link == "https://example.org/ann"


def test_alive_taking_part_and_committed_are_three_things() -> None:
    opened = e.AttemptOpened(step=2, number=1, participants=("a",), left_out=("b",), num_owners=1)
    rows = {row.island: row for row in shown.islands(reduced([*TWO, joined("r", 23.0, relay=True), opened]))}
    assert (rows["a"].alive, rows["a"].taking_part, rows["a"].committed) == (True, True, True)
    assert (rows["b"].alive, rows["b"].taking_part, rows["b"].committed) == (True, False, False)
    assert "did not wait" in rows["b"].taking_part_why
    assert rows["b"].committed_why == "its last work that counts is in step 0"
    assert (rows["r"].alive, rows["r"].taking_part) == (True, False)
    left = e.Left(time=24.0, island="a", step=2, reason="its line broke")
    (gone,) = (row for row in shown.islands(reduced([*TWO, left])) if row.island == "a")
    assert (gone.alive, gone.alive_why, gone.since) == (False, "its line broke", 24.0)
    assert gone.committed, "what it gave stays"


def test_without_a_coordinator_nobody_can_say_who_is_there() -> None:
    reducer = reduced(TWO)
    reducer.see(None)
    assert {(row.alive, row.taking_part) for row in shown.islands(reducer)} == {(None, None)}
    now = shown.now(reducer, 99.0, None)
    assert (now.hosted, now.num_alive, now.num_taking_part) == (False, None, None)
    reducer.take(e.Finished(time=25.0, num_outer_steps=2))
    assert {row.alive for row in shown.islands(reducer)} == {True}, "it finished: all were there"


def test_a_rewind_takes_back_what_it_abandons() -> None:
    rewound = e.Rewound(time=30.0, step=1, num_abandoned=1, branch=1)
    reducer = reduced([*TWO, rewound, commit(1, 40.0, b=given(tokens=5))])
    steps, story = shown.steps(reducer), shown.story(reducer)
    assert (steps.step, steps.tokens) == ([0, 1], [16, 21])
    assert {each.name: each.tokens for each in story.contributors} == {"A": 8, "B": 13}
    assert story.consumed == {"books": 21}
    assert [mark.kind for mark in steps.marks] == ["reign", "join", "join", "rewind"]


def test_a_coordinator_that_starts_anew_has_nobody_until_they_dial_in() -> None:
    again = e.ReignBegan(time=30.0, step=2, run_id="reef-1", term=2)
    reducer = reduced([*TWO, again, joined("a", 31.0)])
    assert [row.island for row in shown.islands(reducer) if row.alive] == ["a"]


def test_alerts_are_shown_until_they_are_over() -> None:
    alert = e.Alert(time=23.0, island="a", what="silent", value=61.0, threshold=60.0)
    now = shown.now(reduced([*TWO, alert]), 24.0, None)
    assert [(each.what, each.island, each.text) for each in now.alerts] == [("silent", "a", alert.text)]
    assert (
        shown.now(reduced([*TWO, alert, msgspec.structs.replace(alert, over=True)]), 24.0, None).alerts == []
    )


def test_a_view_is_bounded_whatever_the_run_is() -> None:
    reducer = reduced(told.told(12, 1_300, 1e9, 10.0))
    steps, story = shown.steps(reducer), shown.story(reducer)
    assert len(steps.step) == view.MAX_POINTS
    assert steps.step[-1] == 1_299
    assert len(steps.marks) <= view.MAX_MARKS
    assert len(steps.recent.step) == view.MAX_RECENT
    assert len(story.lines) <= view.MAX_LINES
    history = reducer.history(shown.islands(reducer)[0].island)
    assert history is not None
    assert len(history.step) <= view.MAX_HISTORY
    assert history.tokens == sorted(history.tokens)
    size = sum(len(msgspec.json.encode(part)) for part in (steps, story, shown.islands(reducer)))
    assert size < 400_000
    assert steps.tokens == sorted(steps.tokens)


def test_points_put_rows_together_without_losing_any() -> None:
    column = np.arange(1.0, 11.0)
    column[3] = np.nan
    points = Points(10, 4)
    assert figures(points.last(column)) == [2, 5, 7, 10]
    assert figures(points.low(column)) == [1, 3, 6, 8]
    assert figures(points.high(column)) == [2, 5, 7, 10]
    assert figures(points.mean(column)) == [1.5, 4, 6.5, 9], "of what is known"
    assert figures(Points(0, 4).mean(column[:0])) == []


def test_words_of_strangers_are_one_line_of_visible_letters() -> None:
    told_of = [
        e.Enrolled(time=1.0, island=EVIL, contributor=EVIL, place=EVIL),
        e.Joined(time=2.0, island=EVIL, contributor=EVIL, relay=False),
        e.Left(time=3.0, island=EVIL, reason=EVIL),
        e.Evaluated(step=1, root="", scores={}, heldout_losses={EVIL: 1.0}, samples=(EVIL,)),
    ]
    reducer = reduced(told_of)
    parts = (
        shown.islands(reducer),
        shown.story(reducer),
        shown.steps(reducer),
        shown.now(reducer, 1.0, None),
    )
    for text in re.findall(r'"(?:[^"\\]|\\.)*"', msgspec.json.encode(parts).decode()):
        words = json.loads(text)
        assert len(words) <= 1_000
        assert words.isprintable(), repr(words)


# ---------------------------------------------------------------------------------------- where it is read
@pytest.fixture
def run_dir(tmp_path) -> RunDir:
    told.write(tmp_path / "events.jsonl", told.told(5, 12, 1e9))
    return RunDir(tmp_path)


def test_events_that_come_are_followed_and_torn_ones_told_of(run_dir) -> None:
    source = Source(run_dir)
    source.read_all()
    before = source.num_events
    assert source.reading is None
    with run_dir.events.open("ab") as file:
        file.write(b'{"torn\n{"kind":"of the future","version":9}\n')
        file.write(msgspec.json.encode({"version": 1, **msgspec.to_builtins(joined("z", 2e9))}) + b"\n")
    source.read_all()
    assert source.num_events == before + 1
    assert "skipped 1 lines that a crash cut off, and 1 that this atoll" in source.reader.complaint
    assert source.complaint == source.reader.complaint


def test_figures_that_no_run_can_have_are_left_out_and_told_of(run_dir) -> None:
    with run_dir.events.open("ab") as file:
        endless = msgspec.structs.replace(TWO[3], step=2**63 - 1, time=1e300)
        absurd = msgspec.structs.replace(TWO[3], step=2**80)
        for event in (endless, absurd):
            file.write(json.dumps({"version": 1, **msgspec.to_builtins(event)}).encode() + b"\n")
    source = Source(run_dir)
    source.read_all()
    assert "1 events name figures that no run can have" in source.complaint
    assert json.loads(msgspec.json.encode((shown.steps(source.reducer), shown.islands(source.reducer))))


def test_a_file_that_is_replaced_is_read_anew(run_dir) -> None:
    source = Source(run_dir)
    source.read_all()
    told.write(run_dir.events, itertools.islice(told.told(5, 12, 1e9), 3))
    source.read_all()
    assert (source.num_events, len(source.reducer.steps)) == (3, 0)


def test_a_foreign_file_gets_one_sentence(run_dir, tmp_path) -> None:
    run_dir.events.write_bytes(b"\x89PNG\r\n" + bytes(range(256)) * 20 + b"\n")
    with pytest.raises(UserError, match="not an events file of atoll"):
        html.write(run_dir, tmp_path / "run.html")
    assert not (tmp_path / "run.html").exists()
    with pytest.raises(UserError, match="no run here"):
        Source(RunDir(tmp_path / "nowhere"))


def test_a_line_without_end_is_skipped_and_not_kept_in_memory(run_dir) -> None:
    kept = run_dir.events.read_bytes()
    run_dir.events.write_bytes(b"x" * (2 * CHUNK_BYTES + 5) + b"\n" + kept)
    source = Source(run_dir)
    source.read_all()
    assert source.num_events == kept.count(b"\n")
    assert source.reader.num_torn == 1


# -------------------------------------------------------------------------------------------- page and file
def test_the_kept_file_has_everything_in_it_and_no_words_that_are_markup(run_dir, tmp_path) -> None:
    with run_dir.events.open("ab") as file:
        evil = e.Joined(
            time=2e9, island="f" * 16, contributor="</script><script>alert(1)</script>", relay=False
        )
        file.write(msgspec.json.encode({"version": 1, **msgspec.to_builtins(evil)}) + b"\n")
    target = tmp_path / "run.html"
    html.write(run_dir, target)
    text = target.read_text("utf-8")
    assert "alert(1)</script>" not in text
    (kept,) = re.findall(r'<script type="application/json" id="kept">(.*?)</script>', text, re.S)
    parts = json.loads(kept)
    assert "</script><script>alert(1)</script>" in {row["contributor"] for row in parts["islands"]}
    assert len(parts["steps"]["step"]) == 12
    outside = re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', text.replace(kept, ""))
    assert not outside, outside
    assert "script-src 'sha256-" in text


def test_the_live_page_names_only_files_that_are_served() -> None:
    text = page.live_page().decode()
    named = set(re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', text))
    assert named == page.files().keys() - {"world.json"}
    assert "style=" not in text, "the policy forbids it"


def test_places_are_where_they_are() -> None:
    (x, y), (east, south) = atlas.projected(0.0, 0.0), atlas.projected(-34.0, 151.0)
    assert x == atlas.WIDTH / 2
    assert 0 < y < atlas.height()
    assert x < east < atlas.WIDTH
    assert y < south < atlas.height()
    assert atlas.outline().startswith("M")
