"""Asking: what was paid for already is not asked again, and what would cost too much is not asked at all."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from atoll.errors import UserError
from atoll.post.evolve.budget import Budget, BudgetSpent
from atoll.post.evolve.paid import Paid
from atoll.post.evolve.server import Message, Reply, Server, Unanswered
from atoll.post.evolve.workers import workers
from atoll.recipe.evolve import Evolve

MAX_UNANSWERED = 8  # requests in a row, beyond those under way: then the server is taken for dead

Item = TypeVar("Item")
Made = TypeVar("Made")


class ServerGone(Exception):
    """One request after the other fails: going on is of no use."""


class Asker:
    """Asks a server's models, within a budget."""

    def __init__(self, settings: Evolve, server: Server, paid: Paid, budget: Budget) -> None:
        self._settings, self._server, self._paid = settings, server, paid
        self.budget = budget
        self._unanswered = 0  # in a row
        self._has_answered = False
        self._silence: UserError | None = None  # what is said where no request is ever answered
        self.end = ""  # why nothing more is asked; "" while there is no reason

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        model: str | None = None,
        temperature: float | None = None,
        again: int = 0,
    ) -> Reply:
        """The reply of `model`, or else of the one that evolves. `again` tells apart requests that are alike.

        Raises Unanswered where this request fails; BudgetSpent or ServerGone where nothing more shall be
        asked; UserError where the server was never there, or refuses the key or the model.
        """
        settings = self._settings
        model = model or settings.model
        temperature = settings.temperature if temperature is None else temperature
        key = self._paid.key(model, messages, temperature, settings.max_tokens, again)
        if (known := self._paid.get(key)) is not None:
            self.budget.count(known)
            return known
        if self._unanswered >= settings.concurrency + MAX_UNANSWERED:
            raise ServerGone
        promised = self.budget.promise(sum(len(message["content"]) for message in messages))
        reply = None
        try:
            reply = await self._server.ask(model, messages, temperature, settings.max_tokens)
            self._unanswered, self._has_answered = 0, True
            self._paid.add(key, reply)
            return reply
        except Unanswered as error:
            self._unanswered += 1
            self._silence = UserError(f"{settings.server}: does not answer ({error}); is it running?")
            if not self._has_answered and self._unanswered >= settings.concurrency:
                raise self._silence from error
            raise
        finally:
            self.budget.settle(promised, reply)

    def check_answered(self) -> None:
        """Raises UserError where requests were sent, and no reply is known, not even of an earlier run."""
        if self._silence is not None and not self.budget.tokens:
            raise self._silence

    async def each(self, items: Iterable[Item], work: Callable[[Item], Awaitable[Made]]) -> dict[int, Made]:
        """What `work` makes of each item, by the item's number; as many at once as the settings say.

        Items that were not reached before the end of budget or server are missing, and `end` says why.
        """
        made: dict[int, Made] = {}

        async def one(numbered: tuple[int, Item]) -> bool:
            try:
                made[numbered[0]] = await work(numbered[1])
            except BudgetSpent:
                self.end = self.end or "the budget is spent"
            except ServerGone:
                self.end = self.end or f"{self._settings.server} does not answer any more"
            return not self.end

        await workers(self._settings.concurrency, enumerate(items), one)
        return made
