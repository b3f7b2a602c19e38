"""The verbs. Each imports what it needs only when it runs, so that `--help` answers at once."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from atoll import __version__
from atoll.errors import UserError

EXIT_TERMINATED, EXIT_INTERRUPTED = 143, 130
Verb = Callable[[argparse.Namespace], int | None]


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; the exit status: 0, 2 for a user's mistake, 1 for a failure, 130 for Ctrl-C."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log lines say less than our errors
    parser = _parser()
    options = parser.parse_args(arguments)
    from atoll.processes import watch_leash

    watch_leash()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))  # so that nothing half-written is left
    try:
        status = options.verb(options) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read our output has enough; Python's own last flush would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UserError as error:
        print(f"atoll: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers", "tokenizers", "pyarrow"):
            raise
        print(f"atoll: this verb needs {error.name}; install it with: pip install 'atoll[train]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def prepare(options: argparse.Namespace) -> None:
    from atoll import genesis, recipe
    from atoll.terminal import Terminal

    loaded = recipe.load(options.recipe, options.overrides)
    run_dir = genesis.RunDir(options.dir or Path("runs") / loaded.name)
    if options.check or options.show is not None:
        from atoll.data import show

        if options.check:
            print(show.checked(loaded, run_dir.data))
        if options.show is not None:
            print(show.sample(loaded, run_dir.data, options.show))
        return
    terminal = Terminal()
    if options.partition:
        terminal.prepared(genesis.prepare_partition(loaded, run_dir, options.partition, terminal.preparing))
        terminal.tell(f"it stays in {run_dir.private}; islands of this directory train on it from their next start on")
        return
    terminal.prepared(genesis.prepare(loaded, run_dir, terminal.preparing))
    terminal.tell(f"state 0 and data are in {run_dir.path}; next: atoll host {' '.join([options.recipe, *options.overrides])}")


def host(options: argparse.Namespace) -> None:
    from atoll import genesis, recipe
    from atoll.host import HostSettings, run_until_told
    from atoll.host import host as serve
    from atoll.terminal import Terminal

    loaded = recipe.load(options.recipe, options.overrides)
    run_dir = genesis.RunDir(options.dir or Path("runs") / loaded.name)
    listen, port = _address(options.listen)
    settings = HostSettings(
        listen, port, options.advertise, not options.no_relay, options.database, options.standby,
        options.restored, options.rewind,
    )  # fmt: skip
    terminal = Terminal()

    def ready(ticket: str) -> None:
        terminal.tell(f"{loaded.name} is hosted; on each machine that takes part:\n")
        print(f"atoll join {ticket}\n", flush=True)
        terminal.say(f"who is in: atoll status {run_dir.path}; end with Ctrl-C, the run goes on when you host it again")

    run_until_told(serve(loaded, run_dir, settings, ready))


def join(options: argparse.Namespace) -> None:
    from atoll import genesis, recipe
    from atoll.join import agent_settings
    from atoll.join import join as join_run
    from atoll.swarm.identity import Ticket
    from atoll.terminal import Terminal

    ticket = Ticket.parse(options.ticket)
    run_dir = genesis.RunDir(options.dir or Path("runs") / ticket.run_name)
    _address(options.listen)
    if options.relay:
        from atoll.agent.__main__ import relay

        directory = run_dir.islands / (options.name or "relay")
        relay(agent_settings(run_dir, directory, options.contributor, options.listen, False, relay=True), options.ticket)
        return
    own = recipe.own_island(options.overrides)
    join_run(options.ticket, run_dir, options.name, options.contributor, options.listen, options.dial_only, own, Terminal())


def train(options: argparse.Namespace) -> None:
    from atoll import genesis, recipe
    from atoll.join import train_alone
    from atoll.terminal import Terminal

    loaded = recipe.load(options.recipe, options.overrides)
    run_dir = genesis.RunDir(options.dir or Path("runs") / loaded.name)
    terminal = Terminal()
    train_alone(loaded, run_dir, terminal)
    terminal.tell(f"next: atoll export {run_dir.path} {run_dir.path / 'export'}")


def status(options: argparse.Namespace) -> None:
    from atoll import genesis, operate, terminal

    facts = operate.status(genesis.RunDir(options.run))
    if options.json:
        print(json.dumps(facts, indent=1))
    else:
        terminal.Terminal().console.print(terminal.status_table(facts))


def invite(options: argparse.Namespace) -> None:
    import asyncio

    from atoll import genesis, operate
    from atoll.swarm.messages import Invite, Invited

    answer = asyncio.run(operate.ask(genesis.RunDir(options.run), Invite(options.uses, options.hours)))
    assert isinstance(answer, Invited)
    print(f"atoll join {answer.ticket}")


def evict(options: argparse.Namespace) -> None:
    import asyncio

    from atoll import genesis, operate
    from atoll.swarm.messages import EvictIsland

    asyncio.run(operate.ask(genesis.RunDir(options.run), EvictIsland(options.island, options.reason)))
    print(f"{options.island} is out of the run")


def export(options: argparse.Namespace) -> None:
    from atoll import genesis
    from atoll.publish.export import export as write

    out, saved = write(genesis.RunDir(options.run), options.out)
    print(f"state {saved.step}, root {saved.root.hex()[:12]}, is in {out}; next: atoll generate {out} 'Once upon a time'")


def generate(options: argparse.Namespace) -> None:
    from atoll.publish.sample import sample

    print(sample(options.model, options.prompt, options.tokens, options.temperature, options.seed))


def demo(options: argparse.Namespace) -> None:
    from atoll.demo import demo as run

    run(options.recipe, options.overrides, options.dir)


def simulate(options: argparse.Namespace) -> int:
    from atoll import simulate as simulator
    from atoll.terminal import Terminal

    tally, terminal, seeds = simulator.Tally(), Terminal(), range(options.seed, options.seed + options.schedules)
    for seed in terminal.track(seeds, "schedules"):
        made = simulator.Setting(options.islands, outer_steps=options.outer_steps) if options.islands else simulator.swarm(seed)
        result = simulator.run(seed, simulator.storm(seed), made, tell=len(seeds) == 1)
        tally.add(result)
        if result.story:
            terminal.tell("\n".join(result.story))
    terminal.simulated(tally)
    return 1 if tally.wrong else 0


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise UserError(f"--listen {text}: not an address; write it as HOST:PORT, as in 0.0.0.0:7700")
    return host or "0.0.0.0", int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="atoll", description="Train a language model together, across the internet.",
                                     epilog="First: atoll demo. `atoll VERB --help` tells more.")  # fmt: skip
    parser.add_argument("--version", action="version", version=f"atoll {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(function: Verb, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(function.__name__, help=text, description=text)
        added.set_defaults(verb=function)
        return added

    def with_recipe(function: Verb, text: str) -> argparse.ArgumentParser:
        added = verb(function, text)
        added.add_argument("recipe", help="a TOML file, or the name of a built-in recipe (demo)")
        added.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for instance outer.inner_steps=50")
        added.add_argument("--dir", type=Path, help="the run's directory (default runs/NAME)")
        return added

    added = verb(demo, "three islands on this machine, a death, a return, a checkpoint: the whole idea in minutes")
    added.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for instance outer.codec=fp32")
    added.add_argument("--recipe", default="demo", help="another recipe (default demo)")
    added.add_argument("--dir", type=Path, default=Path("runs/demo"), help="where (default runs/demo)")
    added = with_recipe(prepare, "sources -> tokenizer -> token shards, and state 0")
    added.add_argument("--check", action="store_true", help="only verify what is prepared, all of it")
    added.add_argument("--partition", metavar="SOURCE/NAME=KIND:PATH", help="only this machine's part of a partitioned source")
    added.add_argument("--show", type=int, metavar="N", help="only print sample N, decoded")
    added = with_recipe(host, "the coordinator (and a relay) of a run; prints a ticket")
    added.add_argument("--listen", default="0.0.0.0:7700", help="HOST:PORT; strangers enrol on the next port")
    added.add_argument("--advertise", default="", help="name or address of this machine that tickets give")
    added.add_argument("--no-relay", action="store_true", help="no relay beside the coordinator")
    added.add_argument("--database", default="", help="SQLAlchemy URL (default: SQLite in the run's directory)")
    added.add_argument("--standby", action="store_true", help="take over when the leader is silent (same --database)")
    added.add_argument("--restored", action="store_true", help="the database is a backup: hear the islands first")
    added.add_argument("--rewind", type=int, metavar="STEP", help="abandon what was committed after this state")
    added = verb(join, "this machine becomes an island of a run")
    added.add_argument("ticket", help="the line that `atoll host` or `atoll invite` printed")
    added.add_argument("overrides", nargs="*", metavar="island.KEY=VALUE", help="for instance island.threads=2")
    added.add_argument("--name", default="", help="directory of this island (default: the first free one)")
    added.add_argument("--dir", type=Path, help="the run's directory (default runs/NAME)")
    added.add_argument("--contributor", default="", help="who gets the credit")
    added.add_argument("--listen", default="0.0.0.0:0", help="HOST:PORT for peers (default: any port)")
    added.add_argument("--dial-only", action="store_true", help="do not listen: own nothing, donate nothing")
    added.add_argument("--relay", action="store_true", help="an agent without a trainer: it owns and donates")
    with_recipe(train, "one island alone, a swarm of one")
    added = verb(status, "who is in, what is committed, who gave how much")
    added.add_argument("run", type=Path, help="the run's directory")
    added.add_argument("--json", action="store_true")
    added = verb(invite, "another ticket")
    added.add_argument("run", type=Path, help="the run's directory, on the machine that hosts it")
    added.add_argument("--uses", type=int, default=1)
    added.add_argument("--hours", type=float, default=24.0)
    added = verb(evict, "a member out")
    added.add_argument("run", type=Path, help="the run's directory, on the machine that hosts it")
    added.add_argument("island", help="its id, as `atoll status` shows it")
    added.add_argument("--reason", default="")
    added = verb(simulate, "a swarm in virtual time, struck by faults: the protocol's own code, replayed by seed")
    added.add_argument("--seed", type=int, default=0, help="of the swarm, its faults, and everything else (default 0)")
    added.add_argument("--schedules", type=int, default=1, help="so many seeds; the story of a single one is told (default 1)")
    added.add_argument("--islands", type=int, default=0, help="a swarm of so many (default: by seed)")
    added.add_argument("--outer-steps", type=int, default=8, help="of such a swarm (default 8)")
    added = verb(export, "a checkpoint for transformers, with its card")
    added.add_argument("run", type=Path, help="the run's directory")
    added.add_argument("out", type=Path, help="a directory that is empty or not there")
    added = verb(generate, "text from an exported model")
    added.add_argument("model", type=Path, help="a directory that `atoll export` made")
    added.add_argument("prompt")
    added.add_argument("--tokens", type=int, default=100)
    added.add_argument("--temperature", type=float, default=0.8)
    added.add_argument("--seed", type=int, default=0)
    return parser
