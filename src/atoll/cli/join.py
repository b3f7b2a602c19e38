"""The verb `atoll join`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.cli.address import parse_address, parse_advertised
from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import TICKET, Verbs
from atoll.errors import UserError
from atoll.swarm.address import WILDCARDS

if TYPE_CHECKING:
    from atoll.run.join import JoinSettings


def add_to(verbs: Verbs) -> None:
    """Add this group's verbs."""
    added = verbs.add(join, "become an island of a run")
    text = (
        "the line that `atoll host` or `atoll invite` printed; or, so that no process list shows it: a file "
        "with that line, - for standard input, or env for the variable ATOLL_TICKET"
    )
    verbs.add_overrides(added, TICKET, text, "island.KEY=VALUE", "island.threads=2")
    added.add_argument("--name", default="", help="directory of this island (default: the first free one)")
    added.add_argument("--dir", type=Path, help="the run's directory (default runs/NAME)")
    added.add_argument("--contributor", default="", help="who gets the credit, from the first join on")
    text = (
        "where this machine stands, for the model card's map, as in 'Reykjavik, IS'; told at the first join"
    )
    added.add_argument("--place", default="", help=text)
    added.add_argument(
        "--listen", metavar="HOST[:PORT]", help="for peers (default: the advertised port, else any)"
    )
    added.add_argument(
        "--advertise",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="where peers reach this machine, if a router forwards a port to it; may be given several times",
    )
    added.add_argument("--dial-only", action="store_true", help="do not listen: own nothing, donate nothing")
    added.add_argument("--relay", action="store_true", help="an agent without a trainer: it owns and donates")
    added.add_argument("--metered", action="store_true", help="give others no state and no data")
    added.add_argument("--quiet", action="store_true", help="print nothing of what happens")


def join(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll import recipe
        from atoll.run.directory import RunDir
        from atoll.run.join import join as join_run
        from atoll.run.ticket import given_ticket
        from atoll.swarm.identity import Ticket
        from atoll.terminal import Terminal
        from atoll.words import MAX_NAME_LENGTH, one_line

    for option, name in (("--contributor", options.contributor), ("--place", options.place)):
        if name != one_line(name, MAX_NAME_LENGTH):
            raise UserError(
                f"{option}: not a name on one line, of at most {MAX_NAME_LENGTH} characters that can be seen"
            )
    # A ticket that was pasted with its line breaks has come in several arguments.
    given = "".join([options.ticket, *(part for part in options.overrides if "=" not in part)])
    ticket = given_ticket(given)
    own = recipe.own_island([part for part in options.overrides if "=" in part])
    run_dir = RunDir(options.dir or Path("runs") / Ticket.parse(ticket).run_name)
    settings = join_settings(options)
    with Terminal(quiet=options.quiet) as terminal:
        join_run(ticket, run_dir, settings, own, terminal)


def join_settings(options: argparse.Namespace) -> JoinSettings:
    """How this machine takes part, by the options of `atoll join`. Raises UserError."""
    from atoll.run.join import JoinSettings

    if options.dial_only and (options.relay or options.listen or options.advertise):
        raise UserError(
            "--dial-only: nobody could reach this machine; leave out --relay, --listen, --advertise"
        )
    if options.metered and options.relay:
        raise UserError(
            "--metered: a relay is there to send; leave it out, or cap it (island.upload_mbit=20)"
        )
    advertise = tuple(map(parse_advertised, options.advertise))
    port = advertise[0].port if advertise else 0  # a router most often forwards a port to the same one
    return JoinSettings(
        name=options.name,
        contributor=options.contributor,
        place=options.place,
        listen=parse_address("--listen", options.listen or "", port, WILDCARDS[0]),
        advertise=advertise,
        dial_only=options.dial_only,
        relay=options.relay,
        metered=options.metered,
    )
