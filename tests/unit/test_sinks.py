"""A run's figures, as Prometheus, TensorBoard and Weights & Biases get them."""

import json
import re
import urllib.request
from pathlib import Path

import pytest

from atoll import cli
from atoll.events import (
    Committed,
    Enrolled,
    Evaluated,
    Event,
    Finished,
    Joined,
    Left,
    ReignBegan,
    Resumed,
    Rewound,
    Stalled,
)
from atoll.events.log import EventLog
from atoll.events.step import AttemptClosed, Contribution
from atoll.metrics import Exchange, Metrics, Score
from atoll.sinks.curves import Points, curve
from atoll.sinks.figures import FIGURES, Figure, Figures
from atoll.sinks.follow import Follower
from atoll.sinks.prometheus import PREFIX, Prometheus
from atoll.swarm.address import Address

ROOT = Path(__file__).parents[2]
ADA, BOB = "a" * 16, "b" * 16
EVIL = 'Ada "}\n\x1b[2J# EOF'


def commit(step: int, time: float = 0.0, **values) -> Committed:
    measured = Metrics(tokens_per_second=50.0, gradient_norm=0.5, compute_seconds=9.0, wait_seconds=1.0)
    given = Contribution(tokens=100, inner_steps=4, loss=5.0, metrics=measured)
    other = Contribution(
        tokens=60, inner_steps=3, loss=None, metrics=Metrics(), exchange=Exchange(sent_bytes=1000)
    )
    plain = {
        "tokens": 160,
        "loss": 4.5,
        "participants": {ADA: given, BOB: other},
        "holders": (ADA,),
        "root": "",
    }
    return Committed(step=step, time=time, **{**plain, **values})


STORY: list[Event] = [
    ReignBegan(run_id="reef-1", term=1),
    Enrolled(island=ADA, contributor=EVIL),
    Joined(island=ADA, contributor=EVIL, relay=False),
    Joined(island=BOB, contributor="", relay=False),
    Joined(island="c" * 16, contributor="relay", relay=True),
    commit(0, 10.0),
    commit(1, 14.0),
]


def told(*events: Event) -> dict[str, float]:
    """The figures without labels, and those of islands as name/first letter, at the end of a story."""
    figures = Figures()
    for event in events:
        figures.hear(event)
    return {
        "/".join([name, *(text[:1] for label, text in labels if label != "contributor")]): figure.value
        for (name, labels), figure in figures.known.items()
    }


def test_commits_become_totals_and_figures_of_islands() -> None:
    found = told(*STORY)
    assert (found["committed_steps"], found["committed_tokens"], found["loss"]) == (2, 320, 4.5)
    assert (found["participants"], found["islands"], found["step_seconds"]) == (2, 2, 4.0)
    assert (found["island_committed_tokens/a"], found["island_committed_tokens/b"]) == (200, 120)
    assert (found["island_utilisation/a"], found["island_sent_bytes/b"]) == (0.9, 1000)


def test_what_nobody_has_measured_is_no_figure() -> None:
    found = told(*STORY, commit(2, loss=None))
    assert "island_loss/b" not in found
    assert "island_gradient_norm/b" not in found
    assert "island_heldout_loss/a" not in found
    assert told(commit(0, loss=None)).get("loss") is None


def test_who_goes_is_gone_and_an_end_of_a_line_counts_once() -> None:
    found = told(*STORY, Left(island=ADA, reason="x"), Left(island=ADA, reason="again"))
    assert (found["islands"], found["island_present/a"], found["losses_of_islands"]) == (1, 0, 1)
    found = told(*STORY, ReignBegan(run_id="reef-1", term=2))
    assert (found["islands"], found["island_present/b"], found["term"]) == (0, 0, 2)


def test_a_rewind_takes_commits_back() -> None:
    found = told(*STORY, Rewound(step=1, num_abandoned=1, branch=1))
    assert (found["committed_steps"], found["committed_tokens"]) == (1, 160)
    assert told(*STORY, Rewound(step=1, num_abandoned=1, branch=1), commit(1))["committed_tokens"] == 320


def test_stalls_failed_attempts_evaluations_and_the_end_are_figures() -> None:
    found = told(
        Stalled(reason="x"),
        AttemptClosed(number=1, cause="fault", islands=()),
        AttemptClosed(number=2, cause="fault", islands=()),
        Evaluated(root="", scores={"arc": Score(0.5)}, heldout_losses={"books": 3.0}),
        Finished(num_outer_steps=2),
    )
    assert found == {"stalled": 1, "failed_attempts": 2, "score/a": 0.5, "heldout_loss/b": 3, "finished": 1}
    assert told(Stalled(reason="x"), Resumed())["stalled"] == 0


def test_every_figure_is_described() -> None:
    figures = Figures()
    evaluated = Evaluated(root="", scores={"arc": Score(0.5)}, heldout_losses={"books": 3.0})
    for event in (*STORY, evaluated, Left(island=ADA, reason="x")):
        figures.hear(event)
    assert {name for name, _ in figures.known} <= FIGURES.keys()


# ------------------------------------------------------------------------------------------------- following
def events_file(path: Path, *events: Event) -> Path:
    log = EventLog(path)
    for event in events:
        log.write(event)
    log.close()
    return path


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.points: list[tuple[int, bool, dict[str, float]]] = []

    def take(self, figures, step, time, notable) -> None:
        self.points.append((step, notable, {figure.name: figure.value for figure in figures}))

    def close(self) -> None: ...


def test_a_follower_gives_the_past_and_then_what_comes(tmp_path) -> None:
    path, kept = events_file(tmp_path / "events.jsonl", *STORY), Kept()
    follower = Follower(path)
    assert follower.run_id == "reef-1"
    assert follower.step([kept]) == len(STORY)
    assert follower.step([kept]) == 0
    events_file(path, commit(2))
    assert follower.step([kept]) == 1
    step, notable, figures = kept.points[-1]
    assert (step, notable, figures["committed_tokens"]) == (3, True, 480)


def test_a_torn_line_is_skipped_and_told_of(tmp_path) -> None:
    path = events_file(tmp_path / "events.jsonl", *STORY)
    path.write_bytes(b'{"kind":"comm\n{"kind":"unheard of"}\n' + path.read_bytes())
    follower, kept = Follower(path), Kept()
    follower.step([kept])
    assert len(kept.points) == len(STORY)
    assert "skipped 1 lines that a crash cut off, and 1" in follower.complaint


# ----------------------------------------------------------------------------------------------------- sinks
def scraped(sink: Prometheus) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{sink.port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def test_prometheus_scrapes_the_newest_figures_and_names_stay_text() -> None:
    sink, figures = Prometheus(Address("127.0.0.1", 0)), Figures()
    try:
        for event in STORY:
            sink.take(figures.hear(event), figures.committed_steps, 0.0, True)
        text = scraped(sink)
    finally:
        sink.close()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert "atoll_committed_tokens 320.0" in samples
    assert len([line for line in samples if line.startswith("atoll_island_present{")]) == 2
    assert "\x1b" not in text
    assert all(re.fullmatch(r"atoll_\w+(\{.*\})? [-+.\w]+", line) for line in samples)


def test_a_port_that_is_taken_is_the_users_mistake(capsys, tmp_path) -> None:
    path, sink = events_file(tmp_path / "events.jsonl", *STORY), Prometheus(Address("127.0.0.1", 0))
    try:
        assert cli.main(["metrics", str(path), "--prometheus", str(sink.port)]) == 2
    finally:
        sink.close()
    assert "choose another port" in capsys.readouterr().err


def test_tensorboard_reads_the_curves_and_a_second_follower_replaces_them(tmp_path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    path = events_file(tmp_path / "events.jsonl", *STORY)
    for _ in range(2):
        assert cli.main(["metrics", str(path), "--tensorboard", str(tmp_path / "board"), "--once"]) == 0
    (file,) = (tmp_path / "board" / "reef-1").glob("events.out.tfevents.*")
    points = [
        (value.tag, event.step, value.tensor.float_val[0])
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    ]
    assert [p for p in points if p[0] == "loss"] == [("loss", 1, 4.5), ("loss", 2, 4.5)]
    assert [p[1:] for p in points if p[0] == f"island/{BOB[:4]}/committed_tokens"] == [(1, 60.0), (2, 120.0)]


def test_weights_and_biases_is_given_each_point_once(tmp_path, monkeypatch) -> None:
    class Run:
        def __init__(self) -> None:
            self.logged: list[dict[str, float]] = []
            self.finished = False

        def define_metric(self, name: str, step_metric: str) -> None: ...

        def log(self, points: dict[str, float]) -> None:
            self.logged.append(points)

        def finish(self) -> None:
            self.finished = True

    run = Run()

    class Module:
        Settings = staticmethod(lambda **values: values)
        init = staticmethod(lambda **values: run)

    monkeypatch.setitem(__import__("sys").modules, "wandb", Module())
    path = events_file(tmp_path / "events.jsonl", *STORY)
    assert cli.main(["metrics", str(path), "--wandb", "reefs", "--once"]) == 0
    assert [points["outer step"] for points in run.logged] == [1, 2]
    assert run.logged[1]["committed_tokens"] == 320
    assert run.finished


def test_weights_and_biases_itself_keeps_a_run_offline(tmp_path, monkeypatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'atoll[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    path = events_file(tmp_path / "events.jsonl", *STORY)
    assert cli.main(["metrics", str(path), "--wandb", "reefs", "--once"]) == 0
    assert list(tmp_path.rglob("*.wandb"))


def test_curves_have_names_that_tools_group_by() -> None:
    labels = (("island", ADA), ("contributor", "a/b"))
    assert curve(Figure("island_loss", 1.0, labels)) == "island/a_b-aaaa/loss"
    assert curve(Figure("score", 1.0, (("task", "arc"),))) == "score/arc"
    points = Points()
    assert points.until([Figure("islands", 2.0)], notable=False) == {}
    assert points.until([Figure("loss", 1.0)], notable=True) == {"islands": 2.0, "loss": 1.0}
    assert points.until([], notable=True) == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say where to"),
        (["--once", "--prometheus"], "--once"),
        (["--prometheus", "host:port:x"], "--prometheus"),
    ],
)
def test_what_metrics_are_asked_for_wrongly_is_the_users_mistake(capsys, tmp_path, arguments, said) -> None:
    path = events_file(tmp_path / "events.jsonl", *STORY)
    assert cli.main(["metrics", str(path), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert cli.main(["metrics", str(tmp_path / "nothing"), "--tensorboard", str(tmp_path)]) == 2
    assert "no events file" in capsys.readouterr().err


def test_the_board_shows_figures_that_there_are() -> None:
    board = json.loads((ROOT / "docs" / "grafana.json").read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    names = set(re.findall(rf"\b{PREFIX}(\w+)", " ".join(shown)))
    assert len(shown) > 8
    assert names <= FIGURES.keys()
