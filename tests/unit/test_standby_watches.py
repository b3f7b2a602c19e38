"""A standby that watches its database: a backup that is restored under it is not taken for the truth."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from atoll.coordinator import server
from atoll.coordinator.server import CoordinatorServer


@pytest.mark.parametrize(
    ("reached", "restored"),
    [([(1, 4), (1, 5), (1, 5)], False), ([(1, 4), (1, 3), (1, 3)], True), ([(2, 4), (1, 4), (1, 6)], True)],
)
def test_a_standby_knows_that_the_database_went_back(monkeypatch, reached, restored) -> None:
    monkeypatch.setattr(server, "RENEW_SECONDS", 0.0)
    told = iter(reached)
    left = len(reached)

    def silence() -> float:
        nonlocal left
        left -= 1
        return 0.0 if left else 10.0

    store = SimpleNamespace(reached=lambda: next(told), silence_seconds=silence, announce=lambda address: [])
    standby = cast(Any, SimpleNamespace(store=store, address="x:1"))
    assert asyncio.run(CoordinatorServer.stand_by(standby)) is restored
