"""The factor on the inner learning rate: a pure function of the inner step, so equal on every island."""

import math

from atoll.recipe import Schedule


def factor(schedule: Schedule, step: int, total_steps: int) -> float:
    """The factor for inner step `step`, counted from 0, of `total_steps`: linear warm-up, then the schedule.

    From step `total_steps` on it is `schedule.final` (1 for a constant schedule).
    """
    if step < schedule.warmup_steps:
        return (step + 1) / (schedule.warmup_steps + 1)
    if schedule.type == "constant":
        return 1.0
    # wsd decays over its last `decay_steps` steps; cosine and linear decay from the end of the warm-up.
    decay_start = total_steps - schedule.decay_steps if schedule.type == "wsd" else 0
    decay_start = max(decay_start, schedule.warmup_steps)
    if step < decay_start:
        return 1.0
    done = min(1.0, (step - decay_start) / (total_steps - decay_start)) if total_steps > decay_start else 1.0
    match schedule.type:
        case "wsd":
            shape = 1 - math.sqrt(done)
        case "cosine":
            shape = (1 + math.cos(math.pi * done)) / 2
        case "linear":
            shape = 1 - done
    return schedule.final + (1 - schedule.final) * shape


def rewarmed(step: int, start: int, num_steps: int) -> float:
    """A further factor, for an optimizer that began with fresh moments at inner step `start`.

    It grows linearly over the `num_steps` inner steps from `start` on, and is 1 afterwards.
    """
    return min(1.0, (step - start + 1) / (num_steps + 1))
