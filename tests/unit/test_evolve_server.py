"""Evolving with servers that are broken or hostile: counts in are counts out, and nothing hangs."""

import json
from pathlib import Path
from typing import Any

import pytest
from openai_server import Torn, Trickle, serving
from test_evolve import adds_up, moody, obliging, rows, seeds_file, settings

from atoll.errors import UserError
from atoll.post.evolve import evolve


def body(content: Any = "First take a bowl.", **changed: Any) -> bytes:
    """A reply of the right form, but for what is changed."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]} | changed).encode()


WHOLE = body()
NONSENSE = {
    "a page": b"<html><body>502 Bad Gateway</body></html>",
    "a list": b"[]",
    "a text": b'"hello"',
    "nothing": b"",
    "no JSON": b'{"choices": [',
    "no UTF-8": b"\xff\xfe\x00",
    "no choices": body(choices=None),
    "a choice that is none": body(choices=[7]),
    "content that is a number": body(5),
    "content that is a table": body({"text": "x"}),
    "half a letter": body("\ud800 and so on"),
    "a reply that ends in the middle": Torn(WHOLE[:40]),
    "a reply that never ends": Trickle(WHOLE),
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE)
def test_what_is_no_reply_costs_its_seed_and_no_other(said: bytes, tmp_path: Path) -> None:
    with serving(moody("<instruction>Tell it to a bird that never saw a house</instruction>", said)) as chat:
        wanted = settings(chat, seeds_file(tmp_path), concurrency=1, retries=0, timeout_seconds=1.0)
        report = evolve(wanted, tmp_path / "out", "")
    assert report.left_out == {"unanswered": 1} and report.written == 3 and adds_up(report)
    with serving(obliging) as chat:  # later, when the server is well again
        wanted = settings(chat, seeds_file(tmp_path), concurrency=1)
        assert evolve(wanted, tmp_path / "out", "").written == 4
    assert len(rows(tmp_path / "out")) == 4


@pytest.mark.parametrize("said", [*NONSENSE.values()][:5], ids=[*NONSENSE][:5])
def test_a_server_of_nonsense_alone_is_given_up(said: bytes, tmp_path: Path) -> None:
    with serving(lambda _: said) as chat, pytest.raises(UserError, match="does not answer"):
        evolve(settings(chat, seeds_file(tmp_path), retries=0), tmp_path / "out", "")
    assert len(chat.requests) <= 4


@pytest.mark.parametrize("usage", [{"prompt_tokens": "many", "completion_tokens": -5}, {}, 7, None])
def test_a_server_that_cannot_count_is_counted_for(usage: Any, tmp_path: Path) -> None:
    def answer(asked: dict[str, Any]) -> bytes:
        return body(obliging(asked), usage=usage)

    with serving(answer) as chat:
        report = evolve(settings(chat, seeds_file(tmp_path)), tmp_path / "out", "")
        again = evolve(settings(chat, seeds_file(tmp_path)), tmp_path / "out", "")
    assert report.written == again.written == 4 and again.requests == 0
    assert report.tokens_in > 100 and report.tokens_out > 20 and report.tokens_in == again.tokens_in


def test_silence_for_some_costs_these_alone(tmp_path: Path) -> None:
    with serving(lambda asked: 3.0 if "solder" in str(asked) else obliging(asked)) as chat:
        wanted = settings(chat, seeds_file(tmp_path), retries=0, timeout_seconds=0.5)
        report = evolve(wanted, tmp_path / "out", "")
    assert report.left_out == {"unanswered": 1} and report.written == 3 and adds_up(report)


def test_a_server_that_is_always_busy_is_given_up_after_the_retries(tmp_path: Path) -> None:
    with serving(lambda _: 429) as chat, pytest.raises(UserError, match="does not answer"):
        evolve(settings(chat, seeds_file(tmp_path), retries=2), tmp_path / "out", "")
    assert 3 <= len(chat.requests) <= 2 * 3 + 3  # two at once, each asked three times
