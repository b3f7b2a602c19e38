"""The verbs of whoever takes part: `atoll join`, `leave`."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.cli.address import parse_address, parse_advertised
from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import TICKET, Verbs
from atoll.errors import UserError
from atoll.swarm.address import WILDCARDS

if TYPE_CHECKING:
    from atoll.recipe import Island
    from atoll.run.directory import RunDir
    from atoll.run.join import JoinSettings
    from atoll.terminal import Terminal


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
        "--link", default="", metavar="URL", help="a page about the contributor; told at the first join"
    )
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
    text = (
        "go on without this terminal: across logout, a crash and, with systemd, a reboot; see `atoll leave`"
    )
    added.add_argument("--background", action="store_true", help=text)
    text = "start at once, without looking at this machine and asking the run first"
    added.add_argument("--no-check", action="store_true", help=text)
    text = "end what `atoll join --background` has started here; it returns its lease"
    added = verbs.add_with_run(leave, text)
    added.add_argument("--name", default="", help="of the island's directory (default: all of this run here)")


def join(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll import recipe
        from atoll.run.background import start
        from atoll.run.directory import RunDir
        from atoll.run.join import join as join_run
        from atoll.run.ticket import given_ticket
        from atoll.swarm.identity import Ticket
        from atoll.terminal import Terminal
        from atoll.words import LINK, MAX_LINK_LENGTH, MAX_NAME_LENGTH, one_line

    for option, name in (("--contributor", options.contributor), ("--place", options.place)):
        if name != one_line(name, MAX_NAME_LENGTH):
            raise UserError(
                f"{option}: not a name on one line, of at most {MAX_NAME_LENGTH} characters that can be seen"
            )
    if len(options.link) > MAX_LINK_LENGTH or not re.search(LINK, options.link):
        raise UserError(
            f"--link: not the address of a web page, of at most {MAX_LINK_LENGTH} characters; write it as in "
            "https://example.org/ada"
        )
    # A ticket that was pasted with its line breaks has come in several arguments.
    given = "".join([options.ticket, *(part for part in options.overrides if "=" not in part)])
    ticket = given_ticket(given)
    overrides = [part for part in options.overrides if "=" in part]
    own = recipe.own_island(overrides)
    run_dir = RunDir(options.dir or Path("runs") / Ticket.parse(ticket).run_name)
    settings = join_settings(options)
    with Terminal(quiet=options.quiet) as terminal:
        if not (options.quiet or options.no_check) and os.environ.get("RANK", "0") == "0":
            _say_what_is_given(ticket, run_dir, settings, own, terminal)
        if options.background:
            for line in start(run_dir, options.name, ticket, [*overrides, *again(options)]):
                terminal.tell(line)
            return
        join_run(ticket, run_dir, settings, own, terminal)


def leave(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.agent import membership
        from atoll.run.background import leave as end
        from atoll.run.contributed import contributed
        from atoll.run.directory import RunDir

    run_dir = RunDir(options.run)
    for directory in end(run_dir, options.name):
        member = membership.load(directory)
        said = contributed(run_dir, member.island) if member else "it had not joined yet"
        print(f"{directory.name} has left; {said}")


def again(options: argparse.Namespace) -> list[str]:
    """The options of `atoll join` once more, for the process that goes on in the background."""
    given: list[str] = []
    for name in ("contributor", "place", "link", "listen"):
        if value := getattr(options, name):
            given += [f"--{name}", value]
    for address in options.advertise:
        given += ["--advertise", address]
    given += [f"--{n.replace('_', '-')}" for n in ("dial_only", "relay", "metered") if getattr(options, n)]
    return [*given, "--no-check"]


def _say_what_is_given(
    ticket: str, run_dir: RunDir, settings: JoinSettings, own: Island, terminal: Terminal
) -> None:
    """Say, before anything starts, what this machine is about to give, and what that takes."""
    from atoll.agent import membership
    from atoll.doctor.joining import Joining, offer

    found = sorted(run_dir.islands.glob(settings.name or "*"))
    terminal.busy("looking at this machine and asking the run")
    lines = offer(
        Joining(
            ticket=ticket,
            run_dir=run_dir.path,
            member_dir=next((path for path in found if membership.load(path)), None),
            listen=None if settings.dial_only else settings.listen,
            relay=settings.relay,
            metered=settings.metered,
            own=own,
        )
    )
    terminal.clear()
    for line in lines:
        terminal.say(line)


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
        link=options.link,
        listen=parse_address("--listen", options.listen or "", port, WILDCARDS[0]),
        advertise=advertise,
        dial_only=options.dial_only,
        relay=options.relay,
        metered=options.metered,
    )
