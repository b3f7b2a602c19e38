"""What a swarm would do that is not there yet, in a few lines."""

from typing import Any

from atoll.terminal.figures import duration, human
from atoll.terminal.terminal import Terminal


def tell_outlook(case: Any, outlook: Any, terminal: Terminal) -> None:
    """A case and its outlook (`simulate/plan.py`), for people."""
    relays = f" and {len(case.relays)} relays" if case.relays else ""
    terminal.tell(f"{len(case.links)} islands{relays}, {human(case.num_parameters)} parameters, {case.codec}")
    parts = {
        "inner steps": outlook.train_seconds,
        "encode": outlook.encode_seconds,
        "reduce": outlook.reduce_seconds,
        "hold": outlook.hold_seconds,
        "adopt": outlook.adopt_seconds,
    }
    shown = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items())
    terminal.tell(f"an outer step: {duration(outlook.outer_step_seconds)} ({shown})")
    if outlook.relays_own:
        terminal.tell(f"relays reduce {outlook.relays_own:.0%} of it")
    terminal.tell(
        f"utilisation: {outlook.utilisation:.1%} end to end, {outlook.reduce_utilisation:.1%} if only "
        "reducing counts as lost"
    )
    sent = outlook.gb_sent_a_day
    terminal.tell(
        f"an island sends {min(sent):.1f} to {max(sent):.1f} GB a day and receives as much, takes "
        f"{outlook.disk_gb:.1f} GB of disk, and {outlook.memory_gb:.1f} GB of memory beside its trainer's"
    )
    if outlook.gained_seconds > 0.01 * outlook.reduce_seconds:
        up, down = case.links[outlook.slowest]
        less = duration(outlook.gained_seconds)
        terminal.tell(
            f"improve first: the link of island {outlook.slowest + 1} ({up:g} up, {down:g} down); if it were "
            f"twice as fast, reducing would be {less} shorter"
        )
    else:
        terminal.tell("improve first: no single link; reducing gets faster only if several do")
