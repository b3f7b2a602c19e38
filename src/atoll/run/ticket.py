"""A ticket as people give it: the line itself, or where it is to be read, which no process list shows."""

import os
import sys
from pathlib import Path

from atoll.agent.process import TICKET
from atoll.errors import UserError
from atoll.given import named, read_text
from atoll.swarm.identity import TICKET_PREFIX

STANDARD_INPUT, ENVIRONMENT = "-", "env"
MAX_CHARACTERS = 4096


def given_ticket(given: str) -> str:
    """The ticket's text: `given` itself, a line of standard input, a variable's value, or a file's text.

    `atoll join` may be given the command that `atoll host` prints, in whatever of these: its first words are
    no part of the ticket. Raises UserError where nothing can be read.
    """
    if given == STANDARD_INPUT:
        text, where = sys.stdin.readline(MAX_CHARACTERS), "standard input"
    elif given == ENVIRONMENT:
        text, where = os.environ.get(TICKET, ""), f"the environment variable {TICKET}"
    elif not given.startswith(TICKET_PREFIX) and Path(given).is_file():
        text, where = read_text(Path(given))[:MAX_CHARACTERS], named(given)
    else:
        return given
    text = "".join(text.strip().removeprefix("atoll join ").split())
    if not text:
        raise UserError(f"{where}: no ticket there; put the line there that `atoll host` printed")
    return text
