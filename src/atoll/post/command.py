"""A verb of atoll as a child process: what a person would type, with its output in a file."""

from pathlib import Path

from atoll.run.processes import Child, last_words


class Failed(Exception):
    """A verb did not do what it was asked for; the sentence says why."""


def atoll(*words: str, log: Path, output: Path | None = None) -> None:
    """Run a verb to its end. Its messages are appended to `log`; `output`: where what it prints goes, alone.

    Raises Failed for an exit status other than 0. An interrupt ends the child too.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    child = Child(["atoll", *words], log=log, output=output)
    try:
        status = child.process.wait()
    finally:
        child.stop()
    if status:
        raise Failed(f"atoll {words[0]} ended with status {status}; {last_words(child)}")
