"""Evolving instructions: what becomes of each seed, and of the server's moods."""

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai_server import Chat, serving

from atoll.errors import DiskError, UserError
from atoll.post.evolve import Report, evolve, paid
from atoll.post.evolve.method import FIRST_METHOD, evolving
from atoll.recipe.evolve import Evolve

SEEDS = [f"Explain how to {what} at home with simple tools" for what in ("bake", "solder", "sew", "paint")]


def seeds_file(tmp_path: Path, texts: list[str] = SEEDS) -> str:
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in texts))
    return str(path)


def settings(chat: Chat, seeds: str, **changed: Any) -> Evolve:
    values: dict[str, Any] = {
        "seeds": seeds,
        "server": chat.url,
        "model": "m",
        "concurrency": 2,
        "retries": 1,
        "timeout_seconds": 5.0,
        "method_steps": 0,
    }
    return Evolve(**(values | changed))


def evolved_of(body: dict[str, Any]) -> str | None:
    """The instruction that a request wants evolved; None for requests of another kind."""
    content = body["messages"][-1]["content"]
    found = re.search(r"Work by this method.*<old>\n(.*?)\n</old>", content, re.DOTALL)
    return found[1] if found else None


def kind(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    if "Work by this method" in content:
        return "evolve"
    if "Then write a better method" in content:
        return "critique"
    return (
        "follow up"
        if "what the user would say next" in content
        else "judge"
        if "<mark>" in content
        else "answer"
    )


def obliging(body: dict[str, Any]) -> str:
    """A model that does all that is asked of it."""
    what = kind(body)
    if what == "evolve":
        return f"<instruction>{evolved_of(body)}, and prove that 2 > 1 in the language of birds</instruction>"
    if what == "critique":
        return "<method>Make it longer.</method>"
    if what == "follow up":
        return "<instruction>And what would you do if it rained the whole time?</instruction>"
    return "<mark>7</mark>" if what == "judge" else "First take a bowl. Then think about birds."


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "evolved.jsonl").read_text().splitlines()]


def adds_up(report: Report) -> bool:
    return report.seeds == report.written + sum(report.left_out.values()) + report.not_reached


def test_each_seed_becomes_a_conversation_with_its_lineage(tmp_path: Path) -> None:
    with serving(obliging) as chat:
        report = evolve(
            settings(chat, seeds_file(tmp_path), rounds=2, turns=2, near=1.0), tmp_path / "out", "secret"
        )
    assert adds_up(report) and report.written == 4 and not report.end
    assert report.tokens_in == 10 * len(chat.requests) and chat.keys == {"Bearer secret"}
    first = rows(tmp_path / "out")[0]
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"] * 2
    assert first["lineage"]["seed"] == SEEDS[0] and first["lineage"]["row"] == 1
    assert first["lineage"]["rounds"][-1] == first["messages"][0]["content"] != SEEDS[0]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("I'm sorry, but I cannot do that.", "answer: a refusal"),
        ("As an AI language model I have no hands.", "answer: a refusal"),
        ("error: out of memory", "answer: an error message"),
        ("", "answer: empty"),
        ("It goes like thi<cut>", "answer: cut off"),
    ],
)
def test_an_answer_that_failed_is_no_data(said: str, reason: str, tmp_path: Path) -> None:
    with serving(lambda body: said if kind(body) == "answer" else obliging(body)) as chat:
        report = evolve(settings(chat, seeds_file(tmp_path)), tmp_path / "out", "")
    assert report.left_out == {reason: 4} and adds_up(report)
    assert rows(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("nothing in tags", "evolution: no new instruction"),
        ("<instruction>I cannot rewrite this one, sorry</instruction>", "evolution: a refusal"),
        ("<instruction>#Rewritten Prompt#: bake a cake</instruction>", "evolution: about the task"),
        ("<instruction>Bake</instruction>", "evolution: too short"),
        (None, "evolution: an echo"),
    ],
)
def test_an_evolution_that_failed_is_no_data(said: str | None, reason: str, tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        if kind(body) == "evolve":
            return said or f"<instruction>{evolved_of(body)}</instruction>"
        return obliging(body)

    with serving(answer) as chat:
        report = evolve(settings(chat, seeds_file(tmp_path)), tmp_path / "out", "")
    assert report.left_out == {reason: 4} and adds_up(report)


def test_an_answer_that_echoes_its_instruction_is_no_data(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        return body["messages"][-1]["content"] if kind(body) == "answer" else obliging(body)

    with serving(answer) as chat:
        report = evolve(settings(chat, seeds_file(tmp_path)), tmp_path / "out", "")
    assert report.left_out == {"answer: an echo": 4}


def test_the_same_command_again_asks_for_nothing_again(tmp_path: Path) -> None:
    with serving(obliging) as chat:
        first = evolve(settings(chat, seeds_file(tmp_path)), tmp_path / "out", "")
        before = (tmp_path / "out" / "evolved.jsonl").read_bytes()
        asked = len(chat.requests)
        again = evolve(settings(chat, seeds_file(tmp_path)), tmp_path / "out", "")
    assert len(chat.requests) == asked and again.requests == 0
    assert again.tokens_in == first.tokens_in
    assert (tmp_path / "out" / "evolved.jsonl").read_bytes() == before


def test_a_torn_line_of_what_was_paid_for_is_asked_again_alone(tmp_path: Path) -> None:
    with serving(obliging) as chat:
        evolve(settings(chat, seeds_file(tmp_path)), tmp_path / "out", "")
        before = (tmp_path / "out" / "evolved.jsonl").read_bytes()
        paid, asked = tmp_path / "out" / "paid.jsonl", len(chat.requests)
        paid.write_bytes(paid.read_bytes()[:-20])
        evolve(settings(chat, seeds_file(tmp_path)), tmp_path / "out", "")
    assert len(chat.requests) == asked + 1
    assert (tmp_path / "out" / "evolved.jsonl").read_bytes() == before


@pytest.mark.parametrize("seconds", [0.0, 60.0])  # while requests go on; at the end
def test_a_disk_that_is_full_only_when_it_is_flushed_is_said(seconds: float, tmp_path, monkeypatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(paid, "SYNC_SECONDS", seconds)
    monkeypatch.setattr(paid.os, "fsync", full)
    with serving(obliging) as chat, pytest.raises(DiskError, match=r"paid\.jsonl: no space left"):
        evolve(settings(chat, seeds_file(tmp_path)), tmp_path / "out", "")
    monkeypatch.undo()
    with serving(obliging) as chat:
        evolve(settings(chat, seeds_file(tmp_path)), tmp_path / "out", "")
    assert len(chat.requests) < 2 * len(SEEDS)  # what was written is there, and is not paid for again


def test_a_damaged_line_of_what_was_paid_for_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "paid.jsonl").write_text("what\n")
    with serving(obliging) as chat, pytest.raises(UserError, match="line 1 is damaged"):
        evolve(settings(chat, seeds_file(tmp_path)), tmp_path / "out", "")


def test_a_budget_ends_it_before_it_is_exceeded(tmp_path: Path) -> None:
    first = len(evolving(FIRST_METHOD, SEEDS[0])[0]["content"]) + 100
    with serving(obliging) as chat:
        wanted = settings(chat, seeds_file(tmp_path), concurrency=1, max_tokens=100, budget_tokens=first + 20)
        report = evolve(wanted, tmp_path / "out", "")
        assert report.end == "the budget is spent" and report.not_reached > 0 and adds_up(report)
        assert 0 < report.tokens_in + report.tokens_out <= first + 20
        more = settings(chat, seeds_file(tmp_path), concurrency=1, max_tokens=100, budget_tokens=100_000)
        assert evolve(more, tmp_path / "out", "").written == 4


def test_a_budget_of_money_goes_by_the_prices(tmp_path: Path) -> None:
    with serving(obliging) as chat:
        wanted = settings(chat, seeds_file(tmp_path), price_in=1.0, price_out=10.0, budget_money=0.0001)
        report = evolve(wanted, tmp_path / "out", "")
    assert report.written == 0 and report.not_reached == 4 and report.money <= 0.0001


def moody(*moods: Any) -> Callable[[dict[str, Any]], Any]:
    """First the moods, one a request; then a model that does what is asked."""
    remaining = list(moods)
    return lambda body: remaining.pop(0) if remaining else obliging(body)


def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    with serving(moody(429, 503)) as chat:
        report = evolve(settings(chat, seeds_file(tmp_path), retries=4), tmp_path / "out", "")
    assert report.written == 4 and len(chat.requests) == 8 + 2


def test_nonsense_from_the_server_costs_only_its_seed(tmp_path: Path) -> None:
    answer = moody(
        "<instruction>Explain it to a bird that never saw a house</instruction>", b'{"choices": []}'
    )
    with serving(answer) as chat:
        report = evolve(settings(chat, seeds_file(tmp_path), concurrency=1), tmp_path / "out", "")
    assert report.left_out == {"unanswered": 1} and report.written == 3 and adds_up(report)


def test_a_server_that_dies_ends_it_with_what_is_done(tmp_path: Path) -> None:
    texts = [f"{seed}, for the {n}th time in a row of many" for n in range(8) for seed in SEEDS]
    count = [0]

    def answer(body: dict[str, Any]) -> Any:
        count[0] += 1
        return obliging(body) if count[0] <= 6 else 500

    with serving(answer) as chat:
        wanted = settings(chat, seeds_file(tmp_path, texts), retries=0, near=1.0)
        report = evolve(wanted, tmp_path / "out", "")
    assert "does not answer any more" in report.end and report.written >= 1 and adds_up(report)
    with serving(obliging) as chat:
        wanted = settings(chat, seeds_file(tmp_path, texts), retries=0, near=1.0)
        assert evolve(wanted, tmp_path / "out", "").written == len(texts)


@pytest.mark.parametrize(("status", "words"), [(401, "OPENAI_API_KEY"), (404, "has no model m")])
def test_what_no_repetition_would_mend_ends_it_at_once(status: int, words: str, tmp_path: Path) -> None:
    with serving(lambda _: status) as chat, pytest.raises(UserError, match=words):
        evolve(settings(chat, seeds_file(tmp_path)), tmp_path / "out", "")
    assert len(chat.requests) <= 2
    assert not (tmp_path / "out" / "evolved.jsonl").exists()


@pytest.mark.parametrize("concurrency", [2, 64])  # of more at once than seeds, each is asked once
def test_nobody_at_the_address_is_said(concurrency: int, tmp_path: Path) -> None:
    with serving(obliging) as chat:
        pass
    wanted = settings(chat, seeds_file(tmp_path), retries=0, concurrency=concurrency)
    with pytest.raises(UserError, match="does not answer"):
        evolve(wanted, tmp_path / "out", "")
    assert not (tmp_path / "out" / "evolved.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"server": "http://127.0.0.1:99999/v1"}, "99999/v1: not a server's URL"),
        ({"server": "http://[::1/v1"}, "not a server's URL"),
        ({"budget_money": 1.0}, "budget_money: has no effect without prices"),
        ({"optimizer": "another"}, "optimizer: has no effect where method_steps is 0"),
    ],
)
def test_what_can_have_no_effect_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with serving(obliging) as chat, pytest.raises(UserError, match=words):
        evolve(settings(chat, seeds_file(tmp_path), **changes), tmp_path / "out", "")
    assert not chat.requests


def test_a_server_that_is_silent_is_given_up(tmp_path: Path) -> None:
    with serving(lambda _: 0.4) as chat, pytest.raises(UserError, match="does not answer"):
        evolve(settings(chat, seeds_file(tmp_path), retries=0, timeout_seconds=0.1), tmp_path / "out", "")


def test_repetitions_and_empty_seeds_are_left_out_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "seeds.jsonl"
    lines = [json.dumps({"instruction": text}) for text in (SEEDS[0], SEEDS[0] + " ", "", SEEDS[1])]
    file.write_text("\n".join([*lines, "no json", '{"other": 1}']) + "\n")
    with serving(obliging) as chat:
        report = evolve(settings(chat, str(file)), tmp_path / "out", "")
    assert report.seeds == 6 and report.written == 2 and adds_up(report)
    assert report.left_out["a repetition"] == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "holds no instruction"), ("ä".encode("latin-1"), "not UTF-8"), (None, "no such file")],
)
def test_seeds_that_cannot_be_used_are_refused(content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "seeds.txt").write_bytes(content)
    with serving(obliging) as chat, pytest.raises(UserError, match=words):
        evolve(settings(chat, str(tmp_path / "seeds.txt")), tmp_path / "out", "")


def test_near_repetitions_are_left_out(tmp_path: Path) -> None:
    texts = [SEEDS[0], SEEDS[0] + " today", "Write a poem about rain that falls upwards in the mountains"]
    with serving(obliging) as chat:
        report = evolve(settings(chat, seeds_file(tmp_path, texts)), tmp_path / "out", "")
    assert report.left_out == {"nearly a repetition": 1} and report.written == 2


def test_what_an_evaluation_set_holds_is_left_out(tmp_path: Path) -> None:
    exam = tmp_path / "exam.jsonl"
    exam.write_text(json.dumps({"q": {"text": "so: " + SEEDS[2].upper() + ", and PROVE that"}}) + "\n")
    with serving(obliging) as chat:
        wanted = settings(chat, seeds_file(tmp_path), decontaminate=[str(exam)], ngram=9)
        report = evolve(wanted, tmp_path / "out", "")
    assert report.left_out == {"in an evaluation set": 1} and report.written == 3


def test_the_judge_leaves_out_what_it_marks_low(tmp_path: Path) -> None:
    with serving(obliging) as chat:
        kept = evolve(settings(chat, seeds_file(tmp_path), judge_minimum=0.7), tmp_path / "a", "")
        low = evolve(settings(chat, seeds_file(tmp_path), judge_minimum=0.8), tmp_path / "b", "")
    assert kept.written == 4 and rows(tmp_path / "a")[0]["lineage"]["mark"] == 0.7
    assert low.left_out == {"marked low": 4}


def test_the_method_that_fails_less_is_kept(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        if kind(body) == "evolve" and "Make it longer." not in body["messages"][0]["content"]:
            return "<instruction>Bake</instruction>"  # the first method fails always
        return obliging(body)

    with serving(answer) as chat:
        report = evolve(settings(chat, seeds_file(tmp_path), method_steps=1), tmp_path / "out", "")
    assert report.written == 4 and report.method_failure_rate == 0
    assert (tmp_path / "out" / "method.txt").read_text() == "Make it longer.\n"


def test_a_method_that_fails_more_is_not_kept(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        if kind(body) == "evolve" and "Make it longer." in body["messages"][0]["content"]:
            return "<instruction>Bake</instruction>"
        return obliging(body)

    with serving(answer) as chat:
        report = evolve(settings(chat, seeds_file(tmp_path), method_steps=1), tmp_path / "out", "")
    assert report.written == 4
    assert "Make it longer." not in (tmp_path / "out" / "method.txt").read_text()
