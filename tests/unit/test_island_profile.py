"""A profile of a few inner steps."""

import json
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from atoll.island.profile import TRACED_STEPS, profiled

CPU = torch.device("cpu")


def steps(count: int, closed: list[bool]) -> Generator[int]:
    try:
        yield from range(count)
    finally:
        closed.append(True)


def names(path: Path) -> list[str]:
    events = json.loads(path.with_suffix(".trace.json").read_text())["traceEvents"]
    return [event["name"] for event in events if event.get("cat") == "user_annotation"]


def train(path: Path, count: int, leave_at: int | None = None) -> list[bool]:
    closed: list[bool] = []
    batches = profiled(steps(count, closed), path, CPU)
    for step in batches:
        with torch.profiler.record_function(f"inner {step}"):
            torch.ones(8, 8) @ torch.ones(8, 8)
        if step == leave_at:
            break
    batches.close()
    return closed


def test_the_second_to_the_fourth_step_are_traced_once(tmp_path):
    assert train(tmp_path / "profile" / "outer-1", 20) == [True]
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["outer-1.trace.json"]
    found = [name for name in names(tmp_path / "profile" / "outer-1") if name.startswith("inner")]
    assert found == [f"inner {step}" for step in range(1, 1 + TRACED_STEPS)]
    text = (tmp_path / "profile" / "outer-1.trace.json").read_text()
    assert "aten::mm" in text
    assert '"Total Allocated"' in text


def test_leaving_early_keeps_what_was_traced(tmp_path):
    assert train(tmp_path / "outer-1", 20, leave_at=2) == [True]
    found = [name for name in names(tmp_path / "outer-1") if name.startswith("inner")]
    assert found == ["inner 1", "inner 2"]


def test_leaving_before_the_profiler_is_warm_writes_nothing(tmp_path):
    assert train(tmp_path / "outer-1", 20, leave_at=0) == [True]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("leave_at", [0, None])
def test_memory_is_recorded_where_torch_can_and_only_while_profiling(tmp_path, monkeypatch, leave_at):
    told: list[object] = []
    memory = SimpleNamespace(
        _record_memory_history=lambda enabled="all", max_entries=0: told.append(enabled),
        _dump_snapshot=lambda file: Path(file).write_bytes(b"snapshot"),
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(memory=memory))
    train(tmp_path / "outer-1", 6, leave_at)
    assert told == ["all", None]
    assert (tmp_path / "outer-1.memory.pickle").exists() == (leave_at is None)
