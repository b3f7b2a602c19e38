"""Islands without a terminal: `atoll join --background` starts one, `atoll leave` ends it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from atoll.agent import membership
from atoll.errors import UserError
from atoll.files import DirectoryLock, write_atomic, write_private
from atoll.run import unit
from atoll.run.directory import IslandDir, RunDir
from atoll.run.supervisor import LOG, STOP_SECONDS, lock_of
from atoll.words import command

FILE, TICKET = "background.json", "ticket"
START_SECONDS = 45.0  # until an island has enrolled, or says why not: agents try for 30
LEAVE_SECONDS = 2 * STOP_SECONDS
LOOK_SECONDS = 0.1
PROCESS = "in the background: it survives logout and a crash; without systemd a reboot ends it"


class Background(msgspec.Struct, frozen=True, kw_only=True):
    """How an island is kept going; kept in its directory."""

    unit: str = ""  # of systemd; "": a process
    pid: int = 0  # of its supervisor


def start(run_dir: RunDir, name: str, ticket: str, options: Sequence[str]) -> list[str]:
    """Start an island in the background, and return sentences about it once it has enrolled.

    `name`: of its directory; "": the first that is free. `options`: of `atoll join`, without ticket, --dir
    and --name. Raises UserError if it cannot be started, or ends at once.
    """
    island = IslandDir(run_dir, name)
    directory = island.path.absolute()
    island.release()
    write_private(directory / TICKET, ticket.encode())
    log = directory / LOG
    log.touch()
    since = log.stat().st_size
    where = ["--dir", str(run_dir.path.absolute()), "--name", directory.name]
    arguments = ["atoll", "join", str(directory / TICKET), *options, *where]
    if unit.is_there():
        told, kept = _start_unit(run_dir, directory, arguments)

        def is_alive() -> bool:
            return unit.is_active(kept.unit)
    else:
        process = _start_process(directory, arguments)
        told, kept = [PROCESS], Background(pid=process.pid)

        def is_alive() -> bool:
            return process.poll() is None

    write_atomic(directory / FILE, msgspec.json.encode(kept))
    if not _until_member(directory, is_alive):
        (directory / FILE).unlink()
        if kept.unit:
            unit.stop(kept.unit)
        raise UserError(f"the island ended at once; {_last_words(log, since)}")
    return [*told, f"what it says is in {log}", f"it leaves with {command('leave', run_dir.path)}"]


def leave(run_dir: RunDir, name: str) -> list[Path]:
    """End the island called `name`, or all that are in the background here; the directories of those ended.

    Each returns its lease. Raises UserError if there is none, or one does not end.
    """
    found = [path.parent for path in sorted(run_dir.islands.glob(f"{name or '*'}/{FILE}"))]
    if not found:
        which = f"no island called {name}" if name else "no island"
        raise UserError(
            f"{run_dir.path}: {which} is in the background here (atoll join --background); one in a terminal "
            "ends with Ctrl-C"
        )
    for directory in found:
        kept = msgspec.json.decode((directory / FILE).read_bytes(), type=Background)
        if kept.unit:
            unit.stop(kept.unit)
        elif not _is_ended(directory):
            os.kill(kept.pid, signal.SIGTERM)
        deadline = time.monotonic() + LEAVE_SECONDS
        while not _is_ended(directory):
            if time.monotonic() > deadline:
                raise UserError(
                    f"{directory}: does not end; its processes are {kept.unit or kept.pid} and those below it"
                )
            time.sleep(LOOK_SECONDS)
        (directory / FILE).unlink()
        (directory / TICKET).unlink(missing_ok=True)
    return found


def _start_unit(run_dir: RunDir, directory: Path, arguments: list[str]) -> tuple[list[str], Background]:
    name = f"atoll-{run_dir.path.absolute().name}-{directory.name}.service"
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    content = unit.text(
        f"atoll island {directory.name} of {run_dir.path.name}",
        unit.python(*arguments),
        Path.cwd(),
        directory / LOG,
    )
    unit.start(name, content)
    told = [f"in the background as {name}: it survives logout, a crash and a reboot"]
    if not unit.lingers():
        told = [
            f"in the background as {name}: it survives a crash; for logout and a reboot, let this user's "
            "services run without a login: loginctl enable-linger"
        ]
    return told, Background(unit=name)


def _start_process(directory: Path, arguments: list[str]) -> "subprocess.Popen[bytes]":
    with (directory / LOG).open("ab") as log:
        return subprocess.Popen(
            unit.python("atoll.run.supervisor", str(directory), *arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # the end of this terminal's session is not its end
        )


def _until_member(directory: Path, is_alive: Callable[[], bool]) -> bool:
    """Wait until the island has enrolled, or time is over; False if it has ended instead."""
    deadline = time.monotonic() + START_SECONDS
    while membership.load(directory) is None and time.monotonic() < deadline:
        if not is_alive():
            return membership.load(directory) is not None
        time.sleep(LOOK_SECONDS)
    return True


def _is_ended(directory: Path) -> bool:
    """Whether neither a supervisor nor a trainer works in a directory, where none is being started."""
    with lock_of(directory) as supervisor, DirectoryLock(directory / "trainer") as trainer:
        return supervisor.acquire() and trainer.acquire()


def _last_words(log: Path, since: int) -> str:
    """The last line that was added to a log."""
    lines = log.read_bytes()[since:].decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"its last words in {log}: {last}" if last else f"{log} is empty"
