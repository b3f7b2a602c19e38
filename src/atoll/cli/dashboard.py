"""The verb `atoll dashboard`."""

from __future__ import annotations

import argparse
from pathlib import Path

from atoll.cli.address import parse_address
from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import Verbs
from atoll.errors import UserError
from atoll.swarm.address import Address
from atoll.words import command

DEFAULT_PORT = 7703  # after the three of a host
DEFAULT_LISTEN = f"127.0.0.1:{DEFAULT_PORT}"


def add_to(verbs: Verbs) -> None:
    """Add this verb."""
    where = "the run's directory, on the machine that hosts it or hosted it; its events.jsonl is enough"
    added = verbs.add_with_run(dashboard, "show a run in a browser, while it goes on or long after", where)
    added.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help=f"where the page is (default {DEFAULT_LISTEN}: for this machine alone; 0.0.0.0:7703: for all)",
    )
    added.add_argument("--html", type=Path, metavar="FILE", help="write the page as one file, and end")


def free_address(option: str, text: str) -> Address:
    """Where a dashboard can listen; a port of 0 becomes one that is free. Raises UserError."""
    address = parse_address(option, text, DEFAULT_PORT, "127.0.0.1")
    from atoll.dashboard.server import listening

    with listening(address) as listener:
        return address.with_port(listener.getsockname()[1])


def dashboard(options: argparse.Namespace) -> None:
    if options.html is not None and options.listen is not None:
        raise UserError("--html writes a file and serves nothing: leave --listen out")
    with nothing_to_clean_up():
        from atoll.run.directory import RunDir
        from atoll.terminal import Terminal

    run_dir, terminal = RunDir(options.run), Terminal()
    if options.html is not None:
        with nothing_to_clean_up():
            from atoll.dashboard.html import write

        num_events = write(run_dir, options.html)
        terminal.tell(f"{options.html}: shows {num_events:,} events; any browser opens it, offline too")
        return
    address = parse_address("--listen", options.listen or DEFAULT_LISTEN, DEFAULT_PORT, "127.0.0.1")
    with nothing_to_clean_up():
        from atoll.dashboard.server import serve
        from atoll.run.host import run_until_signal

    def ready(at: object) -> None:
        terminal.tell(f"the dashboard of {run_dir.path}: http://{at}/")
        terminal.say(
            "Ctrl-C ends it, and nothing else; as a file to keep: "
            + command("dashboard", options.run, "--html", "run.html")
        )

    run_until_signal(serve(run_dir, address, ready))
