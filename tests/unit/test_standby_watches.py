"""A standby watches its database, and so notices when a backup is restored."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from atoll.coordinator import server
from atoll.coordinator.server import CoordinatorServer
from atoll.swarm.address import HostPorts


@pytest.mark.parametrize(
    ("answers", "restored"),  # (counter of the term, number of commits) at each look
    [([(1, 4), (1, 5), (1, 5)], False), ([(1, 4), (1, 3), (1, 3)], True), ([(2, 4), (1, 4), (1, 6)], True)],
)
def test_a_standby_knows_that_the_database_went_back(monkeypatch, answers, restored) -> None:
    monkeypatch.setattr(server, "RENEW_SECONDS", 0.0)
    looks = iter(answers)
    num_left = len(answers)

    def silence_seconds() -> float:
        nonlocal num_left
        num_left -= 1
        return 0.0 if num_left else 10.0

    store = SimpleNamespace(
        term_and_num_commits=lambda: next(looks),
        silence_seconds=silence_seconds,
        announce=lambda address: [],
    )
    standby = cast(Any, SimpleNamespace(store=store, reach=SimpleNamespace(hosts=(HostPorts("x", 1, 2, 3),))))
    assert asyncio.run(CoordinatorServer.stand_by(standby)) is restored
