"""The verb `atoll simulate`: a swarm in virtual time; with `--plan`, what would my swarm do?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import Verbs
from atoll.errors import UserError

if TYPE_CHECKING:  # `--help` does without
    from atoll.simulate.plan import Case

MAX_ISLANDS = 1000


def add_to(verbs: Verbs) -> None:
    """Add this verb."""
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
    _add_plan_options(added)


def simulate(options: argparse.Namespace) -> int:
    if options.plan:
        return _plan(options)
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


def _add_plan_options(added: argparse.ArgumentParser) -> None:
    """What the verb takes for a plan; how many islands there are it takes anyway."""
    added.add_argument(
        "--plan",
        metavar="RECIPE",
        help="play nothing: say what --islands of this recipe would do (or preset)",
    )
    text = "with --plan: each island's link, up and down; the last one counts for the rest (default 100/100)"
    added.add_argument("--mbit", default="100/100", metavar="UP/DOWN,...", help=text)
    added.add_argument(
        "--relay-mbit", default="", metavar="UP/DOWN,...", help="with --plan: links of relays (default none)"
    )
    added.add_argument(
        "--rtt-ms", type=float, default=100.0, help="with --plan: a round trip between islands (default 100)"
    )
    added.add_argument(
        "--inner-step-seconds", type=float, default=10.0, help="with --plan: of each island (default 10)"
    )


def _plan(options: argparse.Namespace) -> int:
    """Measure this machine, and print what the swarm would do on such machines. Raises UserError."""
    from pathlib import Path

    from atoll.simulate.plan import outlook
    from atoll.simulate.plan_machine import measure
    from atoll.terminal import Terminal
    from atoll.terminal.outlook import tell_outlook

    case = _case(options)
    tell_outlook(case, outlook(case, measure(Path.cwd(), case.codec)), Terminal())
    return 0


def _case(options: argparse.Namespace) -> Case:
    from atoll import recipe
    from atoll.cli.verbs import within
    from atoll.model.presets import PRESETS, resolve
    from atoll.recipe import Outer
    from atoll.simulate.plan import Case

    num_islands = options.islands or 4
    within("--islands", num_islands, 1, MAX_ISLANDS)
    within("--rtt-ms", options.rtt_ms, 0, 10_000)
    within("--inner-step-seconds", options.inner_step_seconds, 1e-3, 1e6)
    if options.plan in PRESETS:
        outer, config = Outer(inner_steps=100), PRESETS[options.plan]
    else:
        loaded = recipe.load(options.plan, [])
        if loaded.model.own or loaded.model.from_:
            raise UserError(
                f"{options.plan}: its model is no preset; name the preset nearest to it in --plan"
            )
        vocabulary = loaded.model.vocab_size or PRESETS[loaded.model.preset or ""].vocab_size
        outer, config = loaded.outer, resolve(loaded.model, vocabulary)
    links = parse_links("--mbit", options.mbit)
    if len(links) > num_islands:
        raise UserError(f"--mbit {options.mbit}: {len(links)} links for {num_islands} islands")
    return Case(
        num_parameters=config.num_parameters,
        links=(*links, *(links[-1:] * (num_islands - len(links)))),
        relays=parse_links("--relay-mbit", options.relay_mbit) if options.relay_mbit else (),
        round_trip_seconds=options.rtt_ms / 1e3,
        inner_steps=outer.inner_steps,
        inner_step_seconds=options.inner_step_seconds,
        codec=outer.codec,
        checkpoint_every=outer.checkpoint_every,
    )


def parse_links(option: str, text: str) -> tuple[tuple[float, float], ...]:
    """(up, down) of each link in UP/DOWN,UP/DOWN,... Raises UserError."""
    found: list[tuple[float, float]] = []
    for part in text.split(","):
        up, _, down = part.partition("/")
        try:
            link = (float(up), float(down or up))
        except ValueError:
            link = (0.0, 0.0)
        if not all(0 < mbit <= 1e6 for mbit in link):
            raise UserError(f"{option} {text}: {part!r} is not UP/DOWN in Mbit/s, as in 50/500")
        found.append(link)
    return tuple(found)
