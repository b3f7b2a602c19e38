"""Ctrl-C ends everything that the demo has started, and leaves no half-written file."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults.test_demo import SHORT

from atoll.events.log import EventReader


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
