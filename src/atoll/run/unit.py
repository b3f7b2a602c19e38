"""systemd's user units, which keep an island going across logout, a crash and a reboot."""

import getpass
import os
import shutil
import subprocess
import sys
from pathlib import Path

from atoll.errors import UserError

SYSTEMD_SECONDS = 20.0
STOP_SECONDS = 60


def is_there() -> bool:
    """Whether a systemd of this user answers."""
    return shutil.which("systemctl") is not None and _systemctl("show-environment").returncode == 0


def lingers() -> bool:
    """Whether this user's units run while the user is not logged in."""
    if shutil.which("loginctl") is None:
        return False
    done = _run("loginctl", "show-user", getpass.getuser(), "--property=Linger", "--value")
    return done.returncode == 0 and done.stdout.strip() == "yes"


def text(description: str, command: list[str], directory: Path, log: Path) -> str:
    """A unit that runs a command in a directory."""
    return f"""[Unit]
Description={description.replace("%", "%%")}
After=network-online.target
StartLimitIntervalSec=0

[Service]
WorkingDirectory={_specified(str(directory))}
ExecStart={" ".join(map(_quoted, command))}
Restart=on-failure
RestartSec=5
# 2: a mistake that only a person can mend. 143: what SIGTERM ends with.
RestartPreventExitStatus=2
SuccessExitStatus=143
TimeoutStopSec={STOP_SECONDS}
StandardOutput=append:{_specified(str(log))}
StandardError=append:{_specified(str(log))}

[Install]
WantedBy=default.target
"""


def start(name: str, content: str) -> None:
    """Install and start a unit. Raises UserError where systemd refuses it; then nothing of it is left."""
    path = _path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, "utf-8")
    for arguments in (("daemon-reload",), ("enable", "--now", name)):
        done = _systemctl(*arguments)
        if done.returncode:
            stop(name)
            why = done.stderr.strip().splitlines()
            raise UserError(
                f"systemctl --user {' '.join(arguments)}: {why[-1] if why else 'failed'}; join without "
                "--background, in tmux say"
            )


def stop(name: str) -> None:
    """Stop a unit, so that it does not start again either, and remove it."""
    _systemctl("disable", "--now", name)
    _path(name).unlink(missing_ok=True)
    _systemctl("daemon-reload")


def is_active(name: str) -> bool:
    """Whether a unit runs, or waits to be started again."""
    state = _systemctl("show", name, "--property=ActiveState", "--value").stdout.strip()
    return state in ("active", "activating", "deactivating", "reloading")


def _path(name: str) -> Path:
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "systemd" / "user" / name


def _systemctl(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return _run("systemctl", "--user", *arguments)


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMD_SECONDS, check=False)
    except (subprocess.TimeoutExpired, OSError) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _specified(word: str) -> str:
    """A value of a unit; `%` begins a specifier there."""
    return word.replace("%", "%%")


def _quoted(word: str) -> str:
    """A word of a unit's command line, as systemd.service(5) reads it."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + _specified(plain).replace("$", "$$") + '"'


def python(*arguments: str) -> list[str]:
    """A command that runs a module with this Python."""
    return [sys.executable, "-m", *arguments]
