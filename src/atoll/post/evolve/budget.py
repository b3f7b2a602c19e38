"""What was spent, and how much may be: so that evolving ends in time, with what it has."""

import time
from collections.abc import Callable

from atoll.post.evolve.server import Reply
from atoll.recipe.evolve import Evolve

MILLION = 1_000_000


class BudgetSpent(Exception):
    """The next request might cost more than what is left."""


class Budget:
    """Tokens and money of one `atoll evolve`, over all its runs."""

    def __init__(self, settings: Evolve, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock, self._started = clock, clock()
        self._promised = 0  # tokens that requests under way may cost at most
        self.tokens_in = self.tokens_out = 0  # also those of earlier runs
        self.requests = 0  # of this run

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out

    @property
    def money(self) -> float:
        """In the unit of the prices."""
        return self._cost(self.tokens_in, self.tokens_out)

    @property
    def requests_per_second(self) -> float:
        return self.requests / max(self._clock() - self._started, 1e-9)

    def promise(self, prompt_characters: int) -> int:
        """Set aside what a request may cost at most, in tokens. Raises BudgetSpent where that is not left.

        A character is counted as a token, since a token has at least one in nearly all text.
        """
        most = prompt_characters + self._settings.max_tokens
        limit, money = self._settings.budget_tokens, self._settings.budget_money
        if limit is not None and self.tokens + self._promised + most > limit:
            raise BudgetSpent
        # What is under way is taken for replies, which cost more.
        if money is not None and self.money + self._cost(0, self._promised + most) > money:
            raise BudgetSpent
        self._promised += most
        return most

    def settle(self, promised: int, reply: Reply | None) -> None:
        """A request has ended, with a reply or without one."""
        self._promised -= promised
        if reply is not None:
            self.requests += 1
            self.count(reply)

    def count(self, reply: Reply) -> None:
        """A reply was paid for, now or earlier."""
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        settings = self._settings
        return (tokens_in * settings.price_in + tokens_out * settings.price_out) / MILLION
