"""Ctrl-C ends everything that the demo has started, and leaves no half-written file."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from faults.test_demo import SHORT

from atoll.events.log import EventReader
from atoll.run.genesis import prepare_own


def processes_of(directory: Path) -> list[str]:
    """The command lines of all processes that name the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(directory) in line:
            found.append(line)
    return found


@pytest.mark.parametrize("moment", ["enrolled", pytest.param("committed", marks=pytest.mark.slow)])
def test_ctrl_c_ends_the_demo_and_its_processes(tmp_path, moment) -> None:
    directory = tmp_path / "run"
    command = [sys.executable, "-m", "atoll", "demo", "--dir", str(directory), *SHORT]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 90
        while not any(e.kind == moment for e in EventReader(directory / "events.jsonl").read()):
            assert demo.poll() is None, demo.stdout.read() if demo.stdout else ""
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert processes_of(directory)
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 130, output
    assert "Traceback" not in output
    deadline = time.monotonic() + 15
    while (left := processes_of(directory)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    assert not list(directory.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("tenths", range(3, 30, 2))
def test_ctrl_c_ends_a_coordinator_without_a_traceback_at_any_moment(tmp_path, tenths) -> None:
    prepare_own(tmp_path / "run", "own", {"w": torch.zeros(3)})
    command = [sys.executable, "-m", "atoll", "host", str(tmp_path / "run"), "--listen", "127.0.0.1:0"]
    host = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(tenths / 10)  # the moment is by chance: imports, kernels, ports, the relay
    host.send_signal(signal.SIGINT)
    output, _ = host.communicate(timeout=60)
    assert host.returncode in (0, -signal.SIGINT)
    assert "Traceback" not in output
