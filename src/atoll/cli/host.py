"""The verb `atoll host`."""

from __future__ import annotations

import argparse
from urllib.parse import urlsplit

from atoll.cli.address import parse_address, parse_advertised
from atoll.cli.dashboard import DEFAULT_LISTEN, free_address
from atoll.cli.opened import opened
from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import Verbs, within
from atoll.errors import UserError
from atoll.swarm.address import MAX_PORT, WILDCARDS, HostPorts
from atoll.words import command

DEFAULT_HOST = "0.0.0.0"
DEFAULT_PORT = 7700  # of a coordinator, for members
MAX_AWAITED = 10_000  # islands


def add_to(verbs: Verbs) -> None:
    """Add this verb."""
    added = verbs.add_with_recipe(host, "coordinate a run (and keep a relay); prints a ticket")
    added.add_argument(
        "--listen",
        default=DEFAULT_HOST,
        metavar="HOST[:PORT]",
        help="for members (default 0.0.0.0:7700: port 7700 of all addresses, those of IPv6 too)",
    )
    added.add_argument("--enrol-port", type=int, help="for strangers with a ticket (default: the next port)")
    added.add_argument("--relay-port", type=int, help="of the relay (default: the port after that)")
    added.add_argument(
        "--advertise",
        metavar="HOST[:PORT]",
        help="where others find this host (default: this machine's own address)",
    )
    added.add_argument(
        "--advertise-enrol-port",
        type=int,
        help="where a router forwards --enrol-port from (default: the next)",
    )
    added.add_argument(
        "--advertise-relay-port",
        type=int,
        help="where it forwards --relay-port from (default: the one after)",
    )
    added.add_argument("--no-relay", action="store_true", help="no relay beside the coordinator")
    added.add_argument(
        "--wait-for",
        type=int,
        default=1,
        metavar="N",
        help="begin no step before N islands are ready at once (default 1)",
    )
    added.add_argument(
        "--dashboard",
        nargs="?",
        const=DEFAULT_LISTEN,
        metavar="HOST:PORT",
        help=f"show the run in a browser there (default {DEFAULT_LISTEN}: for this machine alone)",
    )
    added.add_argument("--quiet", action="store_true", help="print the ticket, and nothing of what happens")
    added.add_argument(
        "--database", default="", help="SQLAlchemy URL (default: SQLite in the run's directory)"
    )
    added.add_argument(
        "--standby", action="store_true", help="take over when the leader is silent (same --database)"
    )
    added.add_argument(
        "--restored", action="store_true", help="the database is a backup: ask the islands what it lacks"
    )
    added.add_argument(
        "--rewind", type=int, metavar="STEP", help="go back to state STEP: abandon all later commits"
    )


def host(options: argparse.Namespace) -> None:
    within("--wait-for", options.wait_for, 1, MAX_AWAITED)
    with nothing_to_clean_up():
        from atoll.run.host import HostSettings, run_until_signal
        from atoll.run.host import host as serve
        from atoll.terminal import Host, Terminal

    loaded, run_dir = opened(options)
    listen, advertise = host_ports(options)
    dashboard = None if options.dashboard is None else free_address("--dashboard", options.dashboard)
    settings = HostSettings(
        listen=listen,
        advertise=advertise,
        relay=not options.no_relay,
        dashboard=dashboard,
        database=options.database,
        standby=options.standby,
        restored=options.restored,
        rewind=options.rewind,
        num_awaited=options.wait_for,
    )
    terminal = Terminal(quiet=options.quiet)

    def ready(ticket: str, advice: list[str]) -> None:
        for sentence in advice:
            terminal.say(sentence)
        if loaded.model.own:
            terminal.say(
                f"{loaded.name} is hosted. It trains a module of its own: on each machine that takes part, "
                "give its program this ticket, as in examples/own_loop.py; only a relay is started by "
                "atoll join TICKET --relay\n"
            )
            print(f"{ticket}\n", flush=True)
        else:
            terminal.say(f"{loaded.name} is hosted; run this on each machine that takes part:\n")
            print(f"atoll join {ticket}\n", flush=True)
        if dashboard is not None:
            terminal.say(f"see it in a browser: http://{dashboard}/")
        if options.wait_for > 1:
            terminal.say(f"no step begins before {options.wait_for} islands are ready at once (--wait-for)")
        terminal.say(
            f"see who takes part: {command('status', run_dir.path)}; Ctrl-C ends this coordinator; the run "
            f"goes on when it is hosted again: {command('host', run_dir.path, *again(options))}"
        )

    speaker = Host(terminal, loaded.num_outer_steps)
    run_until_signal(serve(loaded, run_dir, settings, ready, speaker.hears))


def again(options: argparse.Namespace) -> list[str]:
    """The options of `atoll host` once more, for the command that hosts the run again from its directory."""
    given = [] if options.listen == DEFAULT_HOST else ["--listen", options.listen]
    for name in ("enrol_port", "relay_port", "advertise", "advertise_enrol_port", "advertise_relay_port"):
        if (value := getattr(options, name)) is not None:
            given += [f"--{name.replace('_', '-')}", str(value)]
    given += [f"--{name.replace('_', '-')}" for name in ("no_relay", "standby") if getattr(options, name)]
    if options.dashboard is not None:
        given += ["--dashboard", *([] if options.dashboard == DEFAULT_LISTEN else [options.dashboard])]
    if options.database:  # but no password on a screen, or in a journal
        given += ["--database", "URL" if urlsplit(options.database).password else options.database]
    return given


def host_ports(options: argparse.Namespace) -> tuple[HostPorts, HostPorts | None]:
    """Where a host listens, and where it says that others find it. Raises UserError."""
    for name in ("enrol_port", "relay_port", "advertise_enrol_port", "advertise_relay_port"):
        if (port := getattr(options, name)) is not None:
            within(f"--{name.replace('_', '-')}", port, 0, MAX_PORT)
    if options.no_relay and (options.relay_port, options.advertise_relay_port) != (None, None):
        raise UserError("--no-relay: no relay needs a port; leave out --relay-port, --advertise-relay-port")
    no_port = 0 if options.no_relay else None
    first = parse_address("--listen", options.listen, DEFAULT_PORT, WILDCARDS[0])
    ports = options.enrol_port, no_port if options.relay_port is None else options.relay_port
    listen = HostPorts.following(first, *ports)
    outside = options.advertise_enrol_port, options.advertise_relay_port
    if options.advertise is None:
        if outside != (None, None):
            raise UserError("--advertise-enrol-port and --advertise-relay-port need --advertise HOST:PORT")
        return _differing(listen), None
    advertised = HostPorts.following(parse_advertised(options.advertise), *outside)
    return _differing(listen), _differing(advertised)


def _differing(ports: HostPorts) -> HostPorts:
    """The same ports. Raises UserError if two of them are one; 0 is any that is free."""
    named = {"members": ports.members, "enrolment": ports.enrolment, "the relay": ports.relay}
    by_port: dict[int, str] = {}
    for what, port in named.items():
        if port and by_port.setdefault(port, what) != what:
            raise UserError(
                f"{ports.host}: port {port} is given to {by_port[port]} and to {what}; each needs its own"
            )
    return ports
