"""The factor on the inner learning rate: pure functions of the step, equal on every island."""

import math

from atoll.recipe import Schedule


def factor(schedule: Schedule, step: int, total_steps: int) -> float:
    """The factor for inner step `step` (from 0) of `total_steps`: linear warm-up, then the schedule's own
    shape.

    Steps at and beyond the end get `final` (1 for constant).
    """
    if step < schedule.warmup_steps:
        return (step + 1) / (schedule.warmup_steps + 1)
    if schedule.type == "constant":
        return 1.0
    # wsd decays over its last `decay_steps`; cosine and linear from the warm-up's end.
    first = total_steps - schedule.decay_steps if schedule.type == "wsd" else 0
    first = max(first, schedule.warmup_steps)
    if step < first:
        return 1.0
    done = min(1.0, (step - first) / (total_steps - first)) if total_steps > first else 1.0
    match schedule.type:
        case "wsd":
            shape = 1 - math.sqrt(done)
        case "cosine":
            shape = (1 + math.cos(math.pi * done)) / 2
        case "linear":
            shape = 1 - done
    return schedule.final + (1 - schedule.final) * shape


def rewarmed(step: int, since: int, steps: int) -> float:
    """A further factor: linear over the `steps` inner steps from `since` on, at which an optimizer began
    anew.
    """
    return min(1.0, (step - since + 1) / (steps + 1))
