"""The verbs about a run that goes on: `atoll status`, `invite`, `evict`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import Verbs, within
from atoll.errors import UserError
from atoll.words import command

if TYPE_CHECKING:
    from atoll.status import RunStatus
    from atoll.terminal import Keys, Watch

HOSTED_HERE = "the run's directory, on the machine that hosts it"
MIN_HOURS = 0.001  # of a ticket
WATCH_SECONDS = 2.0  # between two looks


def add_to(verbs: Verbs) -> None:
    """Add this group's verbs."""
    added = verbs.add_with_run(status, "who is in, what is committed, who gave how much")
    added.add_argument("--json", action="store_true", help="as JSON, for programs")
    text = "look again and again, until q or Ctrl-C; into a pipe, whenever something has changed"
    added.add_argument("--watch", action="store_true", help=text)
    added = verbs.add_with_run(invite, "print another ticket", HOSTED_HERE)
    added.add_argument("--uses", type=int, default=1, help="how many islands it is good for (default 1)")
    added.add_argument("--hours", type=float, default=24.0, help="how long it is good for (default 24)")
    added = verbs.add_with_run(evict, "exclude an island from a run, and void its ticket", HOSTED_HERE)
    text = "its id or the beginning of it, or its contributor, as `atoll status` shows them"
    added.add_argument("island", help=text)
    added.add_argument("--reason", default="", help="what the island is told")
    added.add_argument("--undo", action="store_true", help="take the eviction back")


def status(options: argparse.Namespace) -> None:
    import time

    with nothing_to_clean_up():
        import msgspec

        from atoll.run import operate
        from atoll.run.directory import RunDir
        from atoll.terminal import Keys, Terminal, Watch, status_table

    if options.watch and options.json:
        raise UserError("--watch is for people; a program asks for --json as often as it likes")
    if options.watch:
        with Terminal() as terminal, Keys() as keys, Watch(terminal) as watch:
            follow(lambda: operate.status(RunDir(options.run)), watch, keys)
        return
    answer = operate.status(RunDir(options.run))
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(answer), indent=1).decode())
    else:
        console = Terminal().console
        console.print(status_table(answer, console.width, time.time()))


def follow(ask: Callable[[], RunStatus], watch: Watch, keys: Keys) -> None:
    """Show a run's status until it is enough. Raises UserError if not even the first one can be had."""
    watch.show(ask())
    while not watch.is_over:
        if keys.pressed(WATCH_SECONDS).lower() == "q":
            return
        try:
            watch.show(ask())
        except UserError as error:
            watch.lost(str(error))


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
