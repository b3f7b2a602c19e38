"""The verb `atoll doctor`."""

from __future__ import annotations

import argparse
from pathlib import Path

from atoll.cli.address import parse_address
from atoll.cli.process import nothing_to_clean_up
from atoll.cli.simulate import parse_links
from atoll.cli.verbs import Verbs
from atoll.errors import UserError
from atoll.swarm.address import WILDCARDS


def add_to(verbs: Verbs) -> None:
    """Add this verb."""
    added = verbs.add(doctor, "what is right and wrong on this machine, and what to do about it")
    text = "ask the run of this ticket too, without joining it (the ticket, a file with it, - or env)"
    added.add_argument("--ticket", default="", help=text)
    added.add_argument("--dir", type=Path, help="where the run lies or would lie (default runs/NAME)")
    added.add_argument("--listen", default="", metavar="HOST[:PORT]", help="where an agent would listen")
    added.add_argument("--mbit", default="", metavar="UP/DOWN", help="what this machine's link carries")
    added.add_argument("--relay", action="store_true", help="look at what a relay needs, and not a trainer")
    added.add_argument("--json", action="store_true", help="as JSON, for programs")


def doctor(options: argparse.Namespace) -> int:
    links = parse_links("--mbit", options.mbit) if options.mbit else ()
    if len(links) > 1:
        raise UserError(f"--mbit {options.mbit}: one link, that of this machine; write UP/DOWN")
    with nothing_to_clean_up():
        import msgspec

        from atoll.doctor.doctor import Request, examine
        from atoll.doctor.finding import prevents
        from atoll.run.ticket import given_ticket
        from atoll.terminal import Terminal, findings_table

    request = Request(
        ticket=given_ticket(options.ticket) if options.ticket else "",
        run_dir=options.dir,
        listen=parse_address("--listen", options.listen, 0, WILDCARDS[0]),
        mbit=links[0] if links else None,
        relay=options.relay,
    )
    terminal = Terminal(quiet=options.json)
    with terminal:
        terminal.busy("looking at this machine")
        found = examine(request)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    else:
        terminal.console.print(findings_table(found))
        last = "something here prevents joining" if prevents(found) else "nothing here prevents joining"
        terminal.tell(f"\n{last}")
    return 1 if prevents(found) else 0
