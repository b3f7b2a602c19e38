"""bench/gpu.py where there is no accelerator: a rehearsal of every row, in tiny shapes."""

import json
import os
import subprocess
import sys
import time

import gpu
import numpy as np
import pytest
from harness import children, flops
from harness.sides import Shape
from measurements import break_something, give, lack_something, run_out_of_memory

from atoll.model.presets import PRESETS

DEMO = PRESETS["demo"]


@pytest.fixture
def light(monkeypatch):
    """Children that import nothing heavy."""
    monkeypatch.setattr(children, "PRELOADED", [])


def test_a_rehearsal_has_every_row_and_none_fails():
    done = subprocess.run(
        [sys.executable, gpu.__file__, "--tiny"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = gpu.rows()
    assert [{key: row[key] for key in what} for row, what in zip(found, wanted, strict=True)] == wanted
    assert not [row for row in found if "failed" in row]
    for row in found:
        if "not_measured" in row:
            assert row["float8"]  # needs torchao, which is not among the tests' libraries
            assert "torchao" in row["not_measured"]
        elif row["row"] == "training step":
            assert row["tokens_per_second"] > 0
            assert row.get("graph_breaks", 0) == 0
        else:
            assert row["bytes"] > 0


def test_a_rehearsal_is_not_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench/gpu.py", "--tiny", "--save-to", str(tmp_path)])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "not saved" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_a_child_cannot_measure_is_one_sentence(light):
    assert children.in_child(give, (3,), 60.0) == {"number": 3}
    assert children.in_child(run_out_of_memory, (), 60.0) == {
        "not_measured": "it does not fit into the device's memory"
    }
    assert children.in_child(lack_something, (), 60.0) == {"not_measured": "island.float8 needs torchao"}
    assert children.in_child(break_something, (), 60.0) == {"failed": "ValueError: no such shape"}


def test_a_child_that_dies_or_hangs_is_told_of(light):
    assert children.in_child(os._exit, (3,), 60.0) == {"failed": "its process ended with status 3"}
    stopped = {"not_measured": "stopped after 1 s, its share of the time"}
    assert children.in_child(time.sleep, (600,), 1.0) == stopped


def test_what_no_time_is_left_for_is_not_begun():
    not_run = {"not_measured": "not run: no time left"}
    assert list(children.one_by_one(give, [(1,), (2,)], 0.0)) == [not_run, not_run]


def test_one_measurement_takes_at_most_three_times_its_share_of_what_is_left(monkeypatch):
    limits = []
    monkeypatch.setattr(children, "in_child", lambda call, arguments, limit: limits.append(limit) or {})
    assert list(children.one_by_one(give, [(n,) for n in range(10)], 500.0)) == [{}] * 10
    assert limits[0] == pytest.approx(150.0, abs=1.0)
    assert limits[-1] == pytest.approx(500.0, abs=1.0)


def test_a_step_needs_6_n_a_token_and_attention_only_between_tokens_that_see_each_other():
    shape = Shape(config=DEMO, num_windows=2, context_length=8, num_micro_batches=3)
    multiplied = DEMO.num_parameters - DEMO.vocab_size * DEMO.hidden_size  # the input embedding is looked up
    matrices = 6 * multiplied * shape.tokens_per_step
    width = DEMO.num_hidden_layers * DEMO.num_attention_heads * DEMO.head_dim

    def attention(lengths: list[int]) -> float:
        """Forward and backward: 12 for each pair of tokens, and half of the pairs see each other."""
        return 3 * 6 * width * sum(length**2 for length in lengths)

    whole = np.zeros((2, 8), np.int32)
    assert flops.step_flops(shape, whole) == matrices + attention([8, 8])
    packed = np.array([[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 2, 2]], np.int32)
    assert flops.step_flops(shape, packed) == matrices + attention([3, 5, 4, 2, 2])
    assert flops.whole_window_flops(shape) == matrices + 2 * attention([8, 8])
