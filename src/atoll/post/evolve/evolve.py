"""From seed instructions to conversations: the story of `atoll evolve`.

What is written is a function of seeds, settings and replies; and replies that were paid for are kept. So the
same command, after whatever ended it, goes on where it was.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from atoll.errors import UserError
from atoll.files import DirectoryLock, atomic_path, write_atomic
from atoll.given import named
from atoll.post.evolve.asker import Asker
from atoll.post.evolve.budget import Budget
from atoll.post.evolve.conversation import Conversation, conversation
from atoll.post.evolve.method import Trial, best_method
from atoll.post.evolve.paid import Paid
from atoll.post.evolve.seeds import Seed, Seeds
from atoll.post.evolve.server import Server
from atoll.post.evolve.similar import Contaminated, Near
from atoll.recipe.evolve import Evolve

RESULT, PAID, METHOD, REPORT = "evolved.jsonl", "paid.jsonl", "method.txt", "report.json"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the seeds: `seeds` is `written`, and all of `left_out`, and `not_reached`."""

    seeds: int  # rows of the file
    written: int
    left_out: dict[str, int]  # rows, by reason
    not_reached: int
    end: str  # why some were not reached; "" where all were
    tokens_in: int  # over all runs
    tokens_out: int
    money: float  # in the unit of the prices
    requests: int  # of this run
    method_failure_rate: float | None  # on the development seeds; None where the method was not tried


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """How far evolving is."""

    done: int  # seeds
    seeds: int
    tokens: int
    money: float
    requests: int  # of this run
    requests_per_second: float


Show = Callable[[Moment], None]


def evolve(settings: Evolve, out: Path, key: str, show: Show = lambda _: None) -> Report:
    """Write conversations with their lineage to `out/evolved.jsonl`, and say what became of each seed.

    `key`: for the server. Beside the result stand the replies that were paid for, the method that was used
    and this report. Raises UserError for seeds or settings that are wrong, where nobody answers, and where
    another process works in `out`; DiskError for a full disk.
    """
    _check(settings)
    seeds = Seeds.read(settings.seeds, settings.column)
    contaminated, near = Contaminated(settings.decontaminate, settings.ngram), Near(settings.near)
    lock = DirectoryLock(out)
    if not lock.acquire():
        raise UserError(f"{named(out)}: another process evolves instructions here; wait for it or stop it")
    with lock, Paid(out / PAID) as paid:
        budget = Budget(settings)
        trial, made, end = asyncio.run(_made(settings, seeds.kept, key, paid, budget, show))
    left_out = seeds.left_out.copy()
    kept = list(_kept(made, left_out, contaminated, near))
    write_atomic(out / METHOD, trial.method.encode() + b"\n")
    digest = blake3(trial.method.encode()).hexdigest(16)
    with atomic_path(out / RESULT) as temporary, temporary.open("wb") as file:
        for one in kept:
            file.write(msgspec.json.encode(_row(one, digest, settings)) + b"\n")
    report = Report(
        seeds=len(seeds.kept) + seeds.left_out.total(),
        written=len(kept),
        left_out=dict(left_out),
        not_reached=len(seeds.kept) - len(made),
        end=end,
        tokens_in=budget.tokens_in,
        tokens_out=budget.tokens_out,
        money=budget.money,
        requests=budget.requests,
        method_failure_rate=trial.failure_rate if trial.evolutions else None,
    )
    write_atomic(out / REPORT, msgspec.json.format(msgspec.json.encode(report)))
    return report


def _check(settings: Evolve) -> None:
    """Raises UserError for a setting that would have no effect."""
    if settings.budget_money is not None and not settings.price_in + settings.price_out:
        raise UserError("budget_money: has no effect without prices; give price_in, price_out or both")
    if settings.optimizer is not None and not settings.method_steps:
        raise UserError("optimizer: has no effect where method_steps is 0; leave it out")


async def _made(
    settings: Evolve, seeds: list[Seed], key: str, paid: Paid, budget: Budget, show: Show
) -> tuple[Trial, list[Conversation], str]:
    """(the method that was used, what became of each seed that was reached, why not all were)."""
    async with Server(settings.server, key, settings.timeout_seconds, settings.retries) as server:
        asker = Asker(settings, server, paid, budget)
        trial = await best_method(asker, settings, seeds)
        done = 0

        async def one(seed: Seed) -> Conversation:
            nonlocal done
            made = await conversation(asker, settings, trial.method, seed)
            done += 1
            show(
                Moment(
                    done=done,
                    seeds=len(seeds),
                    tokens=budget.tokens,
                    money=budget.money,
                    requests=budget.requests,
                    requests_per_second=budget.requests_per_second,
                )
            )
            return made

        made = {} if asker.end else await asker.each(seeds, one)
        asker.check_answered()
        return trial, [made[number] for number in sorted(made)], asker.end


def _kept(
    made: list[Conversation], left_out: Counter[str], contaminated: Contaminated, near: Near
) -> Iterator[Conversation]:
    """Yield the conversations that are written; count the others by reason."""
    for one in made:
        said = "\n".join(message["content"] for message in one.messages)
        if one.failure:
            left_out[one.failure] += 1
        elif contaminated.has(said):
            left_out["in an evaluation set"] += 1
        elif not near.is_new(one.messages[0]["content"]):
            left_out["nearly a repetition"] += 1
        else:
            yield one


def _row(one: Conversation, method: str, settings: Evolve) -> dict[str, Any]:
    """A line of the result: `messages`, as chat data has them, and where they came from."""
    lineage = {
        "seed": one.seed.text,
        "row": one.seed.row,
        "rounds": one.instructions,
        "method": method,
        "model": settings.model,
    }
    return {"messages": one.messages, "lineage": lineage | ({} if one.mark is None else {"mark": one.mark})}
