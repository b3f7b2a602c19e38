"""How an agent's process is started, and what it is told."""

from pathlib import Path

import msgspec

from atoll.agent.settings import Settings
from atoll.run.processes import Child

TICKET = "ATOLL_TICKET"  # environment variable


def agent_process(settings: Settings, ticket: str, log: Path | None) -> Child:
    """An agent's process, a child of this one. A member of its run needs no `ticket`.

    The ticket travels in the environment: a command line can be read by everybody on the machine.
    """
    arguments = ["atoll.agent", msgspec.json.encode(settings, enc_hook=str).decode()]
    return Child(arguments, log=log, environment={TICKET: ticket})


def settings_of(text: str) -> Settings:
    """What `agent_process` said."""
    return msgspec.json.decode(text, type=Settings, dec_hook=lambda _, path: Path(path))
