"""`atoll status --watch`: on a terminal, in a pipe, without colours, narrow; and what ends it."""

import io
import os
import pty
import select
import subprocess
import sys
import threading

import msgspec
import pytest
from rich.console import Console

import examples
from atoll import cli
from atoll.cli.operate import follow
from atoll.errors import UserError
from atoll.status import RunStatus
from atoll.terminal import Keys, Terminal, Watch

ADA = examples.island_status(
    contributor="Ada\x1b[2J", note="training", inner_step=1, planned_inner_steps=2, committed_tokens=1000
)
STATUS = examples.run_status(time=1000.0, step=3, root="ab" * 32, committed_tokens=1000, islands=(ADA,))


def at(**values) -> RunStatus:
    return msgspec.structs.replace(STATUS, **values)


class Hand:
    """Presses keys, one at each look."""

    def __init__(self, keys: str = "") -> None:
        self._keys = list(keys)

    def pressed(self, seconds: float = 0.0) -> str:
        return self._keys.pop(0) if self._keys else ""


def watched(answers: list[RunStatus | str], keys: str = "", tty: bool = False, width: int = 80) -> str:
    """All that is written while these answers come; text stands for a coordinator that does not answer."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, height=24, force_terminal=tty, color_system=None, highlight=False
    )
    terminal, left = Terminal(console=console), list(answers)
    console.width = width

    def ask() -> RunStatus:
        answer = left.pop(0)
        if isinstance(answer, str):
            raise UserError(answer)
        return answer

    with Watch(terminal) as watch:
        follow(ask, watch, Hand(keys))
    return file.getvalue()


def test_a_pipe_gets_the_status_again_only_where_it_has_changed_and_ends_with_the_run() -> None:
    text = watched([STATUS, at(time=1002.0), at(step=4), "no coordinator", at(step=9, finished=True)])
    assert text.count("reef-1: ") == 3
    assert "outer step 4 of 9" in text
    assert text.rstrip().splitlines()[0].startswith("reef-1: outer step 3 of 9")
    assert "\x1b" not in text


def test_a_terminal_shows_one_status_in_place_of_the_last_and_gives_its_screen_back() -> None:
    text = watched([STATUS, at(step=4), at(step=9, finished=True)], keys="xxq", tty=True)
    assert text.startswith("\x1b[?1049h"), "the screen is put aside"
    assert text.rstrip().endswith("\x1b[?25h") or "\x1b[?1049l" in text[-40:]
    assert "q ends this" in text
    assert "Ada\x1b[2J" not in text, "names stay text"


def test_a_coordinator_that_does_not_answer_is_told_and_the_last_status_stays() -> None:
    text = watched([STATUS, "no coordinator answers"], keys=" q", tty=True, width=120)
    last = text.rpartition("no answer for")[2]
    assert "no coordinator answers" in last
    assert "reef-1: outer step 3 of 9" in last


def test_a_narrow_terminal_keeps_names_and_what_was_committed() -> None:
    text = watched([STATUS], keys="q", tty=True, width=40)
    assert "a" * 16 in text
    assert max(len(line) for line in text.splitlines() if "\x1b" not in line) <= 40


def test_a_run_that_cannot_be_had_at_all_is_the_users_mistake(capsys, tmp_path) -> None:
    assert cli.main(["status", str(tmp_path / "nothing"), "--watch"]) == 2
    assert "no run here" in capsys.readouterr().err
    assert cli.main(["status", str(tmp_path), "--watch", "--json"]) == 2
    assert "for people" in capsys.readouterr().err


PROGRAM = """
import sys, msgspec
from atoll import cli
from atoll.run import operate
from atoll.status import RunStatus
status = msgspec.json.decode(sys.argv[1], type=RunStatus)
operate.status = lambda run_dir: status
raise SystemExit(cli.main(["status", "run", "--watch"]))
"""


@pytest.mark.parametrize("colours", [True, False])
def test_q_ends_it_on_a_real_terminal_and_no_color_is_heeded(colours) -> None:
    ours, theirs = pty.openpty()
    stalled = msgspec.json.encode(at(stall="nobody is here")).decode()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    environment |= {} if colours else {"NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, stalled], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    seen = read_until(ours, b"q ends this")
    os.write(ours, b"q")
    seen += drained(ours)
    os.close(ours)
    assert process.wait(60) == 0
    assert (b"\x1b[1;31m" in seen) == colours, "a stall is bold and red"


def read_until(handle: int, wanted: bytes, seconds: float = 60.0) -> bytes:
    seen = b""
    while wanted not in seen:
        assert select.select([handle], [], [], seconds)[0], seen
        seen += os.read(handle, 65536)
    return seen


def drained(handle: int) -> bytes:
    seen = b""
    while True:
        try:
            data = os.read(handle, 65536)
        except OSError:  # the other end is gone
            return seen
        if not data:
            return seen
        seen += data


def test_keys_wait_where_there_is_no_keyboard() -> None:
    keys, done = Keys(), threading.Event()
    keys.there = False
    threading.Thread(target=lambda: (keys.pressed(0.01), done.set())).start()
    assert done.wait(30)
