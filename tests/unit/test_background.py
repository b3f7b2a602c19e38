"""Islands in the background: systemd's unit, the supervisor in its place, and what ends both."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from atoll import cli
from atoll.cli.join import again
from atoll.cli.verbs import parse
from atoll.errors import UserError
from atoll.run import background, unit
from atoll.run.background import Background
from atoll.run.directory import RunDir

# Stands in systemctl's place: writes down what it is asked, and answers as the files beside it say.
SYSTEMCTL = """#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/asked"
case "$*" in
  *show-environment*) exit 0;;
  *enable*) test ! -e "$here/refuses" || { echo 'Failed to enable unit: refused' >&2; exit 1; };;
  *ActiveState*) cat "$here/state";;
esac
"""
COUNTS = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text() + 'x')"


def until(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """A directory in which a systemctl that is none lies."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "systemctl").write_text(SYSTEMCTL)
    (programs / "systemctl").chmod(0o755)
    (programs / "state").write_text("active")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return programs


@pytest.fixture
def member(monkeypatch):
    """An island is a member as soon as anybody looks."""
    monkeypatch.setattr("atoll.run.background.membership.load", lambda directory: object())


# ------------------------------------------------------------------------------------------------ systemd
def test_a_unit_comes_back_after_a_crash_and_not_after_a_mistake() -> None:
    text = unit.text("an island", ["/bin/atoll", "join"], Path("/srv"), Path("/srv/log"))
    lines = text.splitlines()
    for line in ("Restart=on-failure", "RestartPreventExitStatus=2", "SuccessExitStatus=143"):
        assert line in lines
    assert "WantedBy=default.target" in lines


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_systemd_reads_a_unit_whatever_its_words_are(tmp_path) -> None:
    words = [sys.executable, "a b", "100%", "$HOME", 'say "hi"', "back\\slash", "ünï"]
    path = tmp_path / "atoll-test.service"
    path.write_text(unit.text("100% of an island", words, tmp_path, tmp_path / "a b.log"))
    done = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", str(path)], capture_output=True, text=True, timeout=60
    )
    ours = [line for line in done.stderr.splitlines() if path.name in line]
    assert not ours


def test_with_systemd_joining_in_the_background_is_a_unit_and_leaving_removes_it(
    tmp_path, systemd, member
) -> None:
    run_dir = RunDir(tmp_path / "runs" / "reef")
    told = background.start(run_dir, "a", "atoll-ticket", ["--metered"])
    (path,) = (tmp_path / "config" / "systemd" / "user").glob("*")
    assert path.name == "atoll-reef-a.service"
    text = path.read_text()
    assert '"--metered"' in text
    assert "atoll-ticket" not in text, "a unit can be read by everybody"
    ticket = run_dir.islands / "a" / "ticket"
    assert (ticket.read_text(), ticket.stat().st_mode & 0o077) == ("atoll-ticket", 0)
    assert "loginctl enable-linger" in told[0]
    assert background.leave(run_dir, "") == [run_dir.islands / "a"]
    assert "--user disable --now atoll-reef-a.service" in (systemd / "asked").read_text()
    assert not path.exists()
    assert not ticket.exists()


def test_a_unit_that_systemd_refuses_leaves_nothing(tmp_path, systemd, member) -> None:
    (systemd / "refuses").touch()
    with pytest.raises(UserError, match=r"enable --now .*: Failed to enable unit: refused"):
        background.start(RunDir(tmp_path / "run"), "a", "atoll-ticket", [])
    assert not list((tmp_path / "config" / "systemd" / "user").glob("*"))


def test_a_unit_that_ends_at_once_is_told_with_its_last_words(tmp_path, systemd) -> None:
    (systemd / "state").write_text("failed")
    run_dir = RunDir(tmp_path / "run")
    with pytest.raises(UserError, match=r"ended at once; .*background.log is empty"):
        background.start(run_dir, "a", "atoll-ticket", [])
    assert not list(run_dir.islands.glob(f"*/{background.FILE}"))


# -------------------------------------------------------------------------------------------- the supervisor
def supervised(directory: Path, *command: str) -> subprocess.Popen:
    path = os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "atoll.run.supervisor", str(directory), *command],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_crashes_is_started_again_until_it_has_finished(tmp_path) -> None:
    counter = tmp_path / "count"
    counter.write_text("")
    (tmp_path / "crashes.py").write_text(f"{COUNTS}\nsys.exit(0 if len(p.read_text()) > 1 else 1)")
    process = supervised(tmp_path, "crashes", str(counter))
    _, said = process.communicate(timeout=60)
    assert (process.returncode, counter.read_text()) == (0, "xx")
    assert "ended with status 1; again in" in said


def test_a_mistake_is_not_tried_again(tmp_path) -> None:
    (tmp_path / "mistaken.py").write_text("import sys; sys.exit(2)")
    process = supervised(tmp_path, "mistaken")
    process.communicate(timeout=60)
    assert process.returncode == 2


def test_sigterm_ends_the_supervisor_and_what_it_keeps(tmp_path) -> None:
    (tmp_path / "works.py").write_text(
        "import os, pathlib, sys, time\n"
        "from atoll.run.processes import watch_leash\n"
        "watch_leash()\n"
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    pid = tmp_path / "pid"
    process = supervised(tmp_path, "works", str(pid))
    until(lambda: pid.exists() and pid.read_text())
    assert not background._is_ended(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not Path(f"/proc/{pid.read_text()}").exists()
    assert background._is_ended(tmp_path)


# -------------------------------------------------------------------------------------------------- the verbs
def test_leaving_a_run_in_which_nothing_is_in_the_background_says_so(capsys, tmp_path) -> None:
    assert cli.main(["leave", str(tmp_path / "run")]) == 2
    assert "atoll join --background" in capsys.readouterr().err


def test_an_island_whose_process_a_reboot_has_ended_can_still_be_left(tmp_path) -> None:
    directory = RunDir(tmp_path).islands / "a"
    directory.mkdir(parents=True)
    (directory / background.FILE).write_bytes(msgspec.json.encode(Background(pid=os.getpid())))
    assert background.leave(RunDir(tmp_path), "a") == [directory], "this test's process is not its supervisor"
    assert not (directory / background.FILE).exists()


def test_what_goes_on_in_the_background_has_the_same_options() -> None:
    given = [
        *("--contributor", "Ada", "--place", "Kyoto, JP", "--link", "https://example.org"),
        *("--listen", "0.0.0.0:7800", "--advertise", "a:1", "--advertise", "b:2", "--metered"),
    ]
    options = parse(cli.parser(), ["join", "atoll-ticket", *given, "--background"])
    assert again(options) == [*given, "--no-check"]


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "example.org", "https://a b", "https://" + "x" * 300]
)
def test_a_link_that_leads_nowhere_on_the_web_is_refused(capsys, link) -> None:
    assert cli.main(["join", "atoll-ticket", "--link", link]) == 2
    assert "--link: not the address of a web page" in capsys.readouterr().err
