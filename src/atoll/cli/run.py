"""The verbs about a run: `atoll demo`, `host`, `join`, `train`, `status`, `invite`, `evict`, `simulate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.cli.verbs import Verbs
from atoll.errors import UserError
from atoll.swarm.address import WILDCARDS, Address, HostPorts

if TYPE_CHECKING:
    from atoll.run.join import JoinSettings

DEFAULT_PORT = 7700  # of a coordinator, for members
HOSTED_HERE = "the run's directory, on the machine that hosts it"


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
    added.add_argument("ticket", help="the line that `atoll host` or `atoll invite` printed")
    added.add_argument(
        "overrides", nargs="*", metavar="island.KEY=VALUE", help="for instance island.threads=2"
    )
    added.add_argument("--name", default="", help="directory of this island (default: the first free one)")
    added.add_argument("--dir", type=Path, help="the run's directory (default runs/NAME)")
    added.add_argument("--contributor", default="", help="who gets the credit")
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

    verbs.add_with_recipe(train, "train one island alone, a swarm of one")

    added = verbs.add_with_run(status, "who is in, what is committed, who gave how much")
    added.add_argument("--json", action="store_true", help="as JSON, for programs")
    added = verbs.add_with_run(invite, "print another ticket", HOSTED_HERE)
    added.add_argument("--uses", type=int, default=1, help="how many islands it is good for (default 1)")
    added.add_argument("--hours", type=float, default=24.0, help="how long it is good for (default 24)")
    added = verbs.add_with_run(evict, "exclude an island from a run for good", HOSTED_HERE)
    added.add_argument("island", help="its id, as `atoll status` shows it")
    added.add_argument("--reason", default="", help="what the island is told")

    text = "a swarm in virtual time, struck by faults: the protocol's own code, repeatable by its seed"
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


def demo(options: argparse.Namespace) -> None:
    from atoll.demo.demo import demo as show

    show(options.recipe, options.overrides, options.dir)


def host(options: argparse.Namespace) -> None:
    from atoll import recipe
    from atoll.run.directory import RunDir
    from atoll.run.host import HostSettings, run_until_signal
    from atoll.run.host import host as serve
    from atoll.terminal import Terminal

    loaded = recipe.load(options.recipe, options.overrides)
    run_dir = RunDir(options.dir or Path("runs") / loaded.name)
    listen, advertise = _ports_of(options)
    settings = HostSettings(
        listen=listen,
        advertise=advertise,
        relay=not options.no_relay,
        database=options.database,
        standby=options.standby,
        restored=options.restored,
        rewind=options.rewind,
    )
    terminal = Terminal()

    def ready(ticket: str, advice: list[str]) -> None:
        for sentence in advice:
            terminal.say(sentence)
        terminal.tell(f"{loaded.name} is hosted; run this on each machine that takes part:\n")
        print(f"atoll join {ticket}\n", flush=True)
        terminal.say(
            f"see who takes part: atoll status {run_dir.path}; Ctrl-C ends this coordinator; the run goes on "
            "when it is hosted again"
        )

    run_until_signal(serve(loaded, run_dir, settings, ready))


def join(options: argparse.Namespace) -> None:
    from atoll import recipe
    from atoll.run.directory import RunDir
    from atoll.run.join import join as join_run
    from atoll.swarm.identity import Ticket
    from atoll.terminal import Terminal

    # A ticket that was pasted with its line breaks has come in several arguments.
    ticket = "".join([options.ticket, *(part for part in options.overrides if "=" not in part)])
    overrides = [part for part in options.overrides if "=" in part]
    run_dir = RunDir(options.dir or Path("runs") / Ticket.parse(ticket).run_name)
    settings = join_settings(options)
    if options.relay:
        from atoll.agent.__main__ import relay

        directory = run_dir.islands / (options.name or "relay")
        relay(settings.agent(run_dir, directory), ticket)
    else:
        join_run(ticket, run_dir, settings, recipe.own_island(overrides), Terminal())


def train(options: argparse.Namespace) -> None:
    from atoll import recipe
    from atoll.run.directory import RunDir
    from atoll.run.join import train_alone
    from atoll.terminal import Terminal

    loaded = recipe.load(options.recipe, options.overrides)
    run_dir = RunDir(options.dir or Path("runs") / loaded.name)
    terminal = Terminal()
    train_alone(loaded, run_dir, terminal)
    terminal.tell(f"next: atoll export {run_dir.path} {run_dir.path / 'export'}")


def status(options: argparse.Namespace) -> None:
    import msgspec

    from atoll import terminal
    from atoll.run import operate
    from atoll.run.directory import RunDir

    answer = operate.status(RunDir(options.run))
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(answer), indent=1).decode())
    else:
        terminal.Terminal().console.print(terminal.status_table(answer))


def invite(options: argparse.Namespace) -> None:
    import asyncio

    from atoll.run import operate
    from atoll.run.directory import RunDir
    from atoll.swarm.messages import Invite, Invited

    answer = asyncio.run(operate.ask(RunDir(options.run), Invite(options.uses, options.hours)))
    assert isinstance(answer, Invited)
    print(f"atoll join {answer.ticket}")


def evict(options: argparse.Namespace) -> None:
    import asyncio

    from atoll.run import operate
    from atoll.run.directory import RunDir
    from atoll.swarm.messages import EvictIsland

    asyncio.run(operate.ask(RunDir(options.run), EvictIsland(options.island, options.reason)))
    print(f"{options.island} is evicted from the run")


def simulate(options: argparse.Namespace) -> int:
    from atoll import simulate as simulator
    from atoll.terminal import Terminal

    tally, terminal = simulator.Tally(), Terminal()
    seeds = range(options.seed, options.seed + options.schedules)
    for seed in terminal.track(seeds, "schedules"):
        setting = simulator.swarm(seed)
        if options.islands:
            setting = simulator.Setting(islands=options.islands, outer_steps=options.outer_steps)
        result = simulator.run(seed, simulator.storm(seed), setting, tell=len(seeds) == 1)
        tally.add(result)
        if result.story:
            terminal.tell("\n".join(result.story))
    terminal.simulated(tally)
    return 1 if tally.wrong else 0


def _ports_of(options: argparse.Namespace) -> tuple[HostPorts, HostPorts | None]:
    """Where a host listens, and where it says that others find it. Raises UserError."""
    listen = HostPorts.following(
        _address("--listen", options.listen, DEFAULT_PORT, WILDCARDS[0]),
        options.enrol_port,
        options.relay_port,
    )
    outside = options.advertise_enrol_port, options.advertise_relay_port
    if options.advertise is None:
        if outside != (None, None):
            raise UserError("--advertise-enrol-port and --advertise-relay-port need --advertise HOST:PORT")
        return listen, None
    return listen, HostPorts.following(_address("--advertise", options.advertise, 0), *outside)


def join_settings(options: argparse.Namespace) -> JoinSettings:
    """How this machine takes part, by the options of `atoll join`. Raises UserError."""
    from atoll.run.join import JoinSettings

    if options.dial_only and (options.relay or options.listen or options.advertise):
        raise UserError(
            "--dial-only: nobody could reach this machine; leave out --relay, --listen, --advertise"
        )
    advertise = tuple(_address("--advertise", text, 0) for text in options.advertise)
    port = advertise[0].port if advertise else 0  # a router most often forwards a port to the same one
    return JoinSettings(
        name=options.name,
        contributor=options.contributor,
        listen=_address("--listen", options.listen or "", port, WILDCARDS[0]),
        advertise=advertise,
        dial_only=options.dial_only,
        relay=options.relay,
    )


def _address(option: str, text: str, default_port: int, default_host: str = "") -> Address:
    """The address that an option gives. Raises UserError, which names the option."""
    try:
        return Address.parse(text, default_port, default_host)
    except UserError as error:
        raise UserError(f"{option} {error}") from None
