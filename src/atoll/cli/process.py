"""What a command expects of its process: streams that can be written to, and a Ctrl-C that it can answer."""

import io
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager


def open_streams() -> None:
    """Make standard input, output and error usable, whatever the shell has done with them.

    One that is closed leads nowhere; else a file or connection would get its number. A character that the
    encoding of a terminal lacks is shown as a question mark.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, and so this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def answer_interrupts() -> None:
    """From now on Ctrl-C is a KeyboardInterrupt, so that a verb can clean up; unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def nothing_to_clean_up() -> Generator[None]:
    """Around a verb's imports, which take seconds: Ctrl-C ends the process at once.

    As an exception it would end in a module that is half imported, with a traceback or unnoticed.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
