"""The simulator finds defects: each of these is put in on purpose, and must be reported by its name."""

from typing import Any

import msgspec
import numpy as np
import pytest

from atoll.agent import diloco
from atoll.agent.codecs.fp32 import Fp32
from atoll.coordinator import attempts
from atoll.coordinator.leases import Leases
from atoll.simulate import Setting, run
from atoll.simulate import faults as f
from atoll.simulate.database import Database
from atoll.simulate.disk import Disk


def found(*faults: f.Fault, **setting: Any) -> str:
    """All violations that 30 seeds report."""
    results = (run(seed, faults, Setting(**setting)) for seed in range(30))
    return " ".join(text for result in results for text in result.violations)


def test_two_leaders_without_a_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Database, "check", lambda self, held: None)
    faults = f.Takeover(3.0, 20.0), f.Reset(3.5, 1, 5), f.Reset(4.0, 2, 5)
    assert "coordinator crashed: Conflict" in found(*faults)


def test_weights_that_are_not_by_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    make = attempts.make_attempt

    def equal_weights(*arguments: Any) -> Any:
        attempt = make(*arguments)
        weight = 1 / len(attempt.participants)
        shares = tuple(msgspec.structs.replace(share, weight=weight) for share in attempt.participants)
        return msgspec.structs.replace(attempt, participants=shares)

    monkeypatch.setattr("atoll.coordinator.protocol.make_attempt", equal_weights)
    assert "weights are not of the reduced set" in found(f.Slow(1.0, 1, 4.0, 20.0))


def test_a_payload_that_is_left_out_of_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Fp32):
        def add_decoded(self, data: Any, weight: Any, total: Any) -> None:
            pass

    monkeypatch.setattr("atoll.simulate.exchange.CODEC", Forgetful())
    assert "is not the sum of its payloads" in found()


def test_an_update_that_is_applied_with_other_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    def contracted(gradient: Any, momentum: Any, parameters: Any, lr: Any, mu: Any) -> None:
        momentum[:] = mu * momentum.astype(np.float64) + gradient
        parameters -= (lr * (gradient + np.float64(mu) * momentum)).astype(np.float32)

    monkeypatch.setattr(diloco, "nesterov", contracted)
    assert "leads to other bits" in found()


def test_leases_that_are_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leases, "give_back", lambda self, ranges: None)
    assert "leases have a gap" in found(f.Leave(3.0, 2))


def test_a_promise_that_is_not_kept_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Disk, "hold", lambda self, entry, data: None)
    assert "not on its disk" in found()


def test_an_owner_that_takes_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.simulate.exchange.check_piece", lambda table, index, data: True)
    assert "is not the sum of its payloads" in found(f.FalseBytes(1.0, 1, 30.0))
