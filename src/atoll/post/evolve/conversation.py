"""From one seed to one conversation: evolve, answer, go on for as many turns as wanted, judge."""

import re
from typing import Final, NamedTuple

from atoll.post.evolve.asker import Asker
from atoll.post.evolve.method import evolved
from atoll.post.evolve.rules import between, why_no_answer, why_no_instruction, why_no_reply
from atoll.post.evolve.seeds import Seed
from atoll.post.evolve.server import Message, Unanswered
from atoll.recipe.evolve import Evolve

FOLLOW_UP: Final = """\
Here is a conversation between a user and an assistant.

{conversation}

Write what the user would say next: a question or a task that builds on the last answer and cannot be
understood without it. Write it, and nothing else, between <instruction> and </instruction>."""
JUDGE: Final = """\
How well does the answer carry out the instruction? Give a mark from 0 (not at all) to 10 (perfectly), for
correctness first, then for completeness and clarity.

<old>
{instruction}
</old>

<answer>
{answer}
</answer>

End with the mark, and nothing else, between <mark> and </mark>."""


class Conversation(NamedTuple):
    """What became of a seed."""

    seed: Seed
    instructions: list[str]  # after each round
    messages: list[Message]  # user and assistant in turns; empty where it failed
    failure: str  # why it is not kept; "" for none
    mark: float | None = None  # from 0 to 1, where there is a judge


async def conversation(asker: Asker, settings: Evolve, method: str, seed: Seed) -> Conversation:
    """The conversation of a seed, or why there is none. Raises as `Asker.ask`, but never Unanswered."""
    instructions: list[str] = []
    messages: list[Message] = []

    def failed(reason: str) -> Conversation:
        return Conversation(seed, instructions, [], reason)

    try:
        text = seed.text
        for number in range(settings.rounds):
            evolution = await evolved(asker, method, text)
            if evolution.failure and not number:
                return failed(f"evolution: {evolution.failure}")
            if evolution.failure:
                break  # a later round that fails leaves what the earlier ones made
            text = evolution.after
            instructions.append(text)
        for turn in range(settings.turns):
            if turn:
                text, failure = await _next_turn(asker, messages)
                if failure:
                    return failed(f"turn {turn + 1}: {failure}")
            messages.append({"role": "user", "content": text})
            reply = await asker.ask(messages)
            if failure := why_no_reply(reply) or why_no_answer(reply.text, text):
                return failed(f"answer: {failure}")
            messages.append({"role": "assistant", "content": reply.text.strip()})
        if settings.judge_minimum is None:
            return Conversation(seed, instructions, messages, "")
        mark = await _mark(asker, messages)
    except Unanswered:
        return failed("unanswered")
    if mark is None:
        return failed("no mark")
    if mark < settings.judge_minimum:
        return failed("marked low")
    return Conversation(seed, instructions, messages, "", mark)


async def _next_turn(asker: Asker, messages: list[Message]) -> tuple[str, str]:
    """(what the user says next, why there is nothing)."""
    told = "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
    reply = await asker.ask([{"role": "user", "content": FOLLOW_UP.format(conversation=told)}])
    if failure := why_no_reply(reply):
        return "", failure
    text = between(reply.text, "instruction")
    return text, why_no_instruction(text, messages[-2]["content"]) if text else "no new instruction"


async def _mark(asker: Asker, messages: list[Message]) -> float | None:
    """The judge's mark of the last answer, from 0 to 1; None where it gave none."""
    content = JUDGE.format(instruction=messages[-2]["content"], answer=messages[-1]["content"])
    reply = await asker.ask([{"role": "user", "content": content}], temperature=0.0)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*10)?\s*", between(reply.text, "mark"))
    value = float(found[1]) / 10 if found else None
    return value if value is not None and value <= 1 else None
