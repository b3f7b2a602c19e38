"""The answers of a model on disk: what a kill leaves of them, and that no value changes on the way."""

import math

from atoll.evaluate.answers import Answers, Batch


def batch(*answers, num_cut: int = 0) -> Batch:
    return Batch(answers=list(answers), num_cut=num_cut, seconds=1.0)


def test_answers_of_an_earlier_start_are_known_to_the_last_bit(tmp_path):
    path = tmp_path / "a.jsonl"
    values = (0.1 + 0.2, True), (-math.inf, False), "text\n"
    with Answers(path) as first:
        for number, value in enumerate(values):
            first.add(batch((str(number), value), num_cut=number))
    with Answers(path) as again:
        assert [again[str(number)] for number in range(3)] == [list(values[0]), list(values[1]), values[2]]
        assert (again.num_cut, again.seconds, len(again)) == (3, 3.0, 3)


def test_a_batch_that_a_kill_cut_short_counts_for_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    with Answers(path) as first:
        first.add(batch(("a", 1), ("b", 2)))
        first.add(batch(("c", 3), ("d", 4)))
    path.write_bytes(path.read_bytes()[:-1])
    with Answers(path) as again:
        assert "b" in again
        assert "c" not in again
        again.add(batch(("c", 3), ("d", 5)))
    with Answers(path) as last:
        assert last["d"] == 5


def test_discarded_answers_leave_no_file(tmp_path):
    with Answers(tmp_path / "deep" / "a.jsonl") as answers:
        answers.add(batch(("a", 1)))
        answers.discard()
    assert not list((tmp_path / "deep").iterdir())
