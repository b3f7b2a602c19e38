"""The evolving method: the words that tell a model how to make an instruction harder, and how they improve.

After Auto Evol-Instruct (arXiv 2406.00770): a method is tried on a few seeds; a model reads what became of
them, says what failed, and writes a better method; of several such, the one that fails least often is kept.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from atoll.post.evolve.asker import Asker
from atoll.post.evolve.rules import between, why_no_answer, why_no_instruction, why_no_reply
from atoll.post.evolve.seeds import Seed
from atoll.post.evolve.server import Message, Unanswered
from atoll.recipe.evolve import Evolve

FIRST_METHOD: Final = """\
1. Think of several ways to make the instruction more demanding: another constraint, a concrete case instead
of a general one, a further step of reasoning, a form that the answer must have, knowledge of the field.
2. Choose two or three that suit this instruction and belong together.
3. Write the new instruction. It must stand alone, be answerable, and keep the subject of the old one. Add ten
to twenty words at most.
4. Read it once more: remove what contradicts itself, what depends on material that is not given, and whatever
only makes it longer."""
FRAME: Final = """\
Rewrite an instruction into one that is harder to carry out well. Work by this method:

{method}

The instruction:
<old>
{instruction}
</old>

Do not carry it out. End with the new instruction, and nothing else, between <instruction> and
</instruction>."""
CRITIQUE: Final = """\
A method is used to make instructions harder to carry out well. The method:

<old>
{method}
</old>

What became of some instructions:

{cases}

Which of the new instructions are no better, or worse: not harder, unanswerable, of another subject,
repetitive? Say briefly why the method allowed it. Then write a better method, which works for instructions
of every kind, between <method> and </method>."""
MAX_METHOD_CHARACTERS: Final = 6000


class Evolution(NamedTuple):
    """What became of an instruction in one round."""

    before: str
    after: str  # "" where it failed
    failure: str  # "" for none


class Trial(NamedTuple):
    """A method, tried on the development seeds."""

    method: str
    evolutions: list[Evolution]

    @property
    def failures(self) -> Counter[str]:
        return Counter(one.failure for one in self.evolutions if one.failure)

    @property
    def failure_rate(self) -> float:
        return self.failures.total() / len(self.evolutions) if self.evolutions else 1.0


def evolving(method: str, instruction: str) -> list[Message]:
    """The request for a harder instruction."""
    return [{"role": "user", "content": FRAME.format(method=method, instruction=instruction)}]


async def evolved(asker: Asker, method: str, instruction: str) -> Evolution:
    """One round. Raises as `Asker.ask` does."""
    reply = await asker.ask(evolving(method, instruction))
    if failure := why_no_reply(reply):
        return Evolution(instruction, "", failure)
    after = between(reply.text, "instruction")
    failure = why_no_instruction(after, instruction) if after else "no new instruction"
    return Evolution(instruction, "" if failure else after, failure)


async def best_method(asker: Asker, settings: Evolve, seeds: Sequence[Seed]) -> Trial:
    """The method that fails least often on the development seeds, after the settings' steps.

    With `method_steps` 0 it is the first one, untried. What budget or server end meanwhile is not compared.
    """
    chosen = random.Random(settings.seed).sample(seeds, min(settings.development, len(seeds)))
    if not settings.method_steps:
        return Trial(FIRST_METHOD, [])
    best = await _tried(asker, FIRST_METHOD, chosen)
    for _ in range(settings.method_steps):
        if asker.end or not best.evolutions:
            break
        written = await asker.each(
            range(settings.method_candidates), lambda again, best=best: _written(asker, settings, best, again)
        )
        for method in sorted({text for text in written.values() if text}):
            trial = await _tried(asker, method, chosen)
            if len(trial.evolutions) == len(chosen) and trial.failure_rate < best.failure_rate:
                best = trial
    return best


async def _tried(asker: Asker, method: str, seeds: Sequence[Seed]) -> Trial:
    async def one(seed: Seed) -> Evolution:
        """An evolution counts as failed, too, where its instruction gets no answer."""
        try:
            evolution = await evolved(asker, method, seed.text)
            if evolution.failure:
                return evolution
            reply = await asker.ask([{"role": "user", "content": evolution.after}])
        except Unanswered:
            return Evolution(seed.text, "", "unanswered")
        failure = why_no_reply(reply) or why_no_answer(reply.text, evolution.after)
        return evolution._replace(failure=failure and f"its answer is {failure}")

    made = await asker.each(seeds, one)
    return Trial(method, [made[number] for number in sorted(made)])


async def _written(asker: Asker, settings: Evolve, trial: Trial, again: int) -> str:
    """A better method, by the model that betters; "" where it wrote none."""
    cases = "\n\n".join(
        f"old: {one.before}\nnew: {one.after or '(none)'}"
        + (f"\nfailed: {one.failure}" if one.failure else "")
        for one in trial.evolutions
    )
    content = CRITIQUE.format(method=trial.method, cases=cases)
    try:
        reply = await asker.ask(
            [{"role": "user", "content": content}], model=settings.optimizer, temperature=1.0, again=again
        )
    except Unanswered:
        return ""
    method = "" if why_no_reply(reply) else between(reply.text, "method")
    return method if len(method) <= MAX_METHOD_CHARACTERS else ""
