"""The verbs about a run: `atoll demo`, `host`, `join`, `train`, `status`, `invite`, `evict`, `simulate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.cli import plan
from atoll.cli.opened import has_variants, opened, started
from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import TICKET, Verbs, within
from atoll.errors import UserError
from atoll.swarm.address import MAX_PORT, WILDCARDS, Address, HostPorts
from atoll.words import command

if TYPE_CHECKING:
    from atoll.run.join import JoinSettings

DEFAULT_PORT = 7700  # of a coordinator, for members
HOSTED_HERE = "the run's directory, on the machine that hosts it"
MAX_AWAITED = 10_000  # islands
MIN_HOURS = 0.001  # of a ticket


def add_to(verbs: Verbs) -> None:
    """Add this group's verbs."""
    text = "three islands on this machine; one is killed and comes back; a checkpoint: the idea in minutes"
    added = verbs.add(demo, text)
    added.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for instance outer.codec=fp32")
    added.add_argument("--recipe", default="demo", help="another recipe (default demo)")
    added.add_argument("--dir", type=Path, default=Path("runs/demo"), help="where (default runs/demo)")

    added = verbs.add_with_recipe(host, "coordinate a run (and keep a relay); prints a ticket")
    added.add_argument(
        "--listen",
        default="0.0.0.0",
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

    added = verbs.add_with_recipe(train, "train one island alone, a swarm of one")
    verbs.add_start(added)

    added = verbs.add_with_run(status, "who is in, what is committed, who gave how much")
    added.add_argument("--json", action="store_true", help="as JSON, for programs")
    added = verbs.add_with_run(invite, "print another ticket", HOSTED_HERE)
    added.add_argument("--uses", type=int, default=1, help="how many islands it is good for (default 1)")
    added.add_argument("--hours", type=float, default=24.0, help="how long it is good for (default 24)")
    added = verbs.add_with_run(evict, "exclude an island from a run, and void its ticket", HOSTED_HERE)
    text = "its id or the beginning of it, or its contributor, as `atoll status` shows them"
    added.add_argument("island", help=text)
    added.add_argument("--reason", default="", help="what the island is told")
    added.add_argument("--undo", action="store_true", help="take the eviction back")

    text = "a swarm in virtual time, struck by faults: the program's own code, repeatable by its seed"
    added = verbs.add(simulate, text)
    added.add_argument("--seed", type=int, default=0, help="decides the swarm and its faults (default 0)")
    added.add_argument(
        "--schedules",
        type=int,
        default=1,
        help="how many seeds, from --seed on (default 1); of a single one the story is told",
    )
    added.add_argument("--islands", type=int, default=0, help="size of the swarm (default: by the seed)")
    added.add_argument("--outer-steps", type=int, default=8, help="with --islands: how many (default 8)")
    plan.add_options(added)


def demo(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.demo.demo import demo as show

    show(options.recipe, options.overrides, options.dir)


def host(options: argparse.Namespace) -> None:
    within("--wait-for", options.wait_for, 1, MAX_AWAITED)
    with nothing_to_clean_up():
        from atoll.run.host import HostSettings, run_until_signal
        from atoll.run.host import host as serve
        from atoll.terminal import Host, Terminal

    loaded, run_dir = opened(options)
    listen, advertise = _ports_of(options)
    settings = HostSettings(
        listen=listen,
        advertise=advertise,
        relay=not options.no_relay,
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
        if options.wait_for > 1:
            terminal.say(f"no step begins before {options.wait_for} islands are ready at once (--wait-for)")
        terminal.say(
            f"see who takes part: {command('status', run_dir.path)}; Ctrl-C ends this coordinator; the run "
            f"goes on when it is hosted again: {command('host', run_dir.path)}"
        )

    speaker = Host(terminal, loaded.num_outer_steps)
    run_until_signal(serve(loaded, run_dir, settings, ready, speaker.hears))


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


def train(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.run.join import train_alone
        from atoll.terminal import Terminal

    if not options.variant and has_variants(options.recipe):
        _train_variants(options)
        return
    loaded, run_dir = opened(options)
    with Terminal() as terminal:
        train_alone(loaded, run_dir, terminal, started(options))
        terminal.tell(f"next: {command('export', run_dir.path, run_dir.path / 'export')}")


def _train_variants(options: argparse.Namespace) -> None:
    """Train all variants of a recipe, one after the other, and tell how well each did."""
    from atoll.post.variants import keep_ranking, train_all
    from atoll.recipe.read import find
    from atoll.terminal import Terminal

    directory = options.dir or Path("runs") / find(options.recipe).stem
    with Terminal() as terminal:
        ranked = train_all(
            options.recipe, options.overrides, directory, start=started(options), say=terminal.tell
        )
        keep_ranking(ranked, directory / "ranking.txt")
        terminal.tell((directory / "ranking.txt").read_text().rstrip())
        terminal.tell(f"the best: {ranked[0].model}")


def status(options: argparse.Namespace) -> None:
    import time

    with nothing_to_clean_up():
        import msgspec

        from atoll.run import operate
        from atoll.run.directory import RunDir
        from atoll.terminal import Terminal, status_table

    answer = operate.status(RunDir(options.run))
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(answer), indent=1).decode())
    else:
        console = Terminal().console
        console.print(status_table(answer, console.width, time.time()))


def invite(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.run import operate
        from atoll.run.directory import RunDir
        from atoll.swarm.messages.operator import MAX_HOURS, MAX_USES, Invite, Invited

    within("--uses", options.uses, 1, MAX_USES)
    within("--hours", options.hours, MIN_HOURS, MAX_HOURS)
    answer = operate.answered(RunDir(options.run), Invite(options.uses, options.hours), Invited)
    print(f"atoll join {answer.ticket}")


def evict(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.run import operate
        from atoll.run.directory import RunDir
        from atoll.swarm.messages import EvictIsland, IslandEvicted, IslandReadmitted, ReadmitIsland
        from atoll.words import one_line, visible

    run_dir, called = RunDir(options.run), one_line(options.island)
    if options.undo:
        back = operate.answered(run_dir, ReadmitIsland(called), IslandReadmitted)
        print(f"{visible(back.contributor)} {back.island} may join again".strip())
        return
    out = operate.answered(run_dir, EvictIsland(called, one_line(options.reason)), IslandEvicted)
    stay = (
        "1 other that came by it stays"
        if out.num_others == 1
        else f"{out.num_others} others that came by it stay"
    )
    others = f"{stay}, and " if out.num_others else ""
    print(
        f"{visible(out.contributor)} {out.island} is evicted from the run\n".lstrip()
        + f"The ticket by which it came is void, else it could come back under another id; {others}"
        + f"whoever has yet to come needs a new one: {command('invite', options.run)}\n"
        + f"To take this back: {command('evict', options.run, out.island, '--undo')}"
    )


def simulate(options: argparse.Namespace) -> int:
    if options.plan:
        return plan.plan(options)
    with nothing_to_clean_up():
        from atoll import simulate as simulator
        from atoll.terminal import Terminal
        from atoll.terminal.simulated import tell_tally

    tally, terminal = simulator.Tally(), Terminal()
    seeds = range(options.seed, options.seed + options.schedules)
    for seed in terminal.track(seeds, "schedules"):
        setting = simulator.swarm(seed)
        if options.islands:
            setting = simulator.Setting(islands=options.islands, outer_steps=options.outer_steps)
        faults = simulator.storm(seed)
        result = simulator.run(seed, faults, setting, tell=len(seeds) == 1)
        tally.add(result)
        if result.story:
            terminal.tell("\n".join(result.story))
        if result.story and result.wrong:
            short = simulator.shortest(seed, faults, setting)
            terminal.tell("\n".join(["as wrong with these faults alone:", *map(str, short), f"in {setting}"]))
    tell_tally(tally, terminal)
    return 1 if tally.wrong else 0


def _ports_of(options: argparse.Namespace) -> tuple[HostPorts, HostPorts | None]:
    """Where a host listens, and where it says that others find it. Raises UserError."""
    for name in ("enrol_port", "relay_port", "advertise_enrol_port", "advertise_relay_port"):
        if (port := getattr(options, name)) is not None:
            within(f"--{name.replace('_', '-')}", port, 0, MAX_PORT)
    if options.no_relay and (options.relay_port, options.advertise_relay_port) != (None, None):
        raise UserError("--no-relay: no relay needs a port; leave out --relay-port, --advertise-relay-port")
    no_port = 0 if options.no_relay else None
    first = _address("--listen", options.listen, DEFAULT_PORT, WILDCARDS[0])
    ports = options.enrol_port, no_port if options.relay_port is None else options.relay_port
    listen = HostPorts.following(first, *ports)
    outside = options.advertise_enrol_port, options.advertise_relay_port
    if options.advertise is None:
        if outside != (None, None):
            raise UserError("--advertise-enrol-port and --advertise-relay-port need --advertise HOST:PORT")
        return _differing(listen), None
    advertised = HostPorts.following(_advertised(options.advertise), *outside)
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
    advertise = tuple(map(_advertised, options.advertise))
    port = advertise[0].port if advertise else 0  # a router most often forwards a port to the same one
    return JoinSettings(
        name=options.name,
        contributor=options.contributor,
        place=options.place,
        listen=_address("--listen", options.listen or "", port, WILDCARDS[0]),
        advertise=advertise,
        dial_only=options.dial_only,
        relay=options.relay,
        metered=options.metered,
    )


def _advertised(text: str) -> Address:
    """The address of `--advertise`. Raises UserError, also for one at which nothing can be reached."""
    address = _address("--advertise", text, 0)
    if address.host in WILDCARDS:
        raise UserError(
            f"--advertise {text}: means all addresses of a machine, to listen at; say one where the others "
            "reach it"
        )
    return address


def _address(option: str, text: str, default_port: int, default_host: str = "") -> Address:
    """The address that an option gives. Raises UserError, which names the option."""
    try:
        return Address.parse(text, default_port, default_host)
    except UserError as error:
        raise UserError(f"{option} {error}") from None
