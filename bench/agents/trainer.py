"""A trainer without torch: its line to its agent is the one that ships, but it sleeps instead of training.

`python -m agents.trainer OPTIONS` (JSON). Everything that it does goes, with the time, into a journal of JSON
lines that its own death does not tear.
"""

import os
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from atoll.agent.line import AgentLine
from atoll.agent.mapped import OuterMapping
from atoll.agent.settings import Settings
from atoll.errors import UserError
from atoll.run.processes import watch_leash
from atoll.samples import num_samples
from atoll.swarm.address import Address, Addresses
from atoll.swarm.messages import Adopt
from atoll.swarm.records import Plan

TOKENS_PER_SAMPLE = 1024  # swarm.py's context length
STRIDE = 1 << 20  # elements perturbed at once
TARGET = np.float32(3.0)  # where every trainer pulls the parameters
LOSS = 1.0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    directory: str
    ticket: str
    genesis: str  # where state 0 lies; "" when it must come from peers
    listen: Address  # for peers
    advertise: Addresses = ()
    dial_only: bool = False
    elements: int  # fp32 parameters of its model
    step_seconds: float  # of one inner step
    seed: int


class Trainer:
    """Lives as long as its island is to live; its agents may come and go."""

    def __init__(self, options: Options) -> None:
        self._directory = Path(options.directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._journal = os.open(
            self._directory / "journal.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644
        )
        self._step_seconds = options.step_seconds
        self._noise = np.random.default_rng(options.seed).standard_normal(STRIDE).astype(np.float32)
        self._noise *= np.float32(1e-3)
        self._note("started")
        settings = Settings(
            directory=self._directory,
            contributor=self._directory.name,
            listen=options.listen,
            advertise=options.advertise,
            dial_only=options.dial_only,
            checkpoint_dirs=(Path(options.genesis),) if options.genesis else (),
        )
        self._line = AgentLine(
            settings,
            options.ticket,
            self._directory / "agent.log",
            replaced=lambda why, status: self._note("agent", why=why, status=status),
        )
        self._weights = np.ones(options.elements, np.float32)  # as a model is made: while the agent enrols

    def run(self) -> int:
        """Until the run is finished (0) or this island may not go on (2)."""
        try:
            for order in self._line.orders():
                if isinstance(order, Adopt):
                    self._adopt(order)
                else:
                    self._train(order)
        except UserError as error:
            self._note("stopped", reason=str(error))
            return 2
        self._note("stopped", reason="")
        return 0

    def _adopt(self, order: Adopt) -> None:
        """Copy the outer state into our weights and prove what they hold."""
        whole = self._mapping.read(
            lambda outer: np.copyto(self._weights, outer), lambda: self._line.agent_alive
        )
        self._mapping.local[:] = self._weights
        loaded = self._mapping.proof(order.table)
        self._note("adopted", step=order.step, root=loaded.hex(), torn=not whole)
        self._line.adopted(order, loaded)

    def _train(self, plan: Plan) -> None:
        self._note("work", step=plan.step, inner_steps=plan.inner_steps)
        done, has_time = 0, True
        while has_time and done < plan.inner_steps:
            time.sleep(self._step_seconds)
            done += 1
            self._note("inner", step=plan.step, inner=done)
            has_time = self._line.progress(LOSS, TOKENS_PER_SAMPLE)
        if self._line.moved_on:
            self._note("overtaken", step=plan.step)
            return
        for start in range(0, len(self._weights), STRIDE):
            part = self._weights[start : start + STRIDE]
            part += np.float32(0.02) * (TARGET - part) + self._noise[: len(part)]
        self._mapping.local[:] = self._weights
        tokens = TOKENS_PER_SAMPLE * num_samples(plan.used_lease(done))
        self._note("proposed", step=plan.step, tokens=tokens)
        self._line.propose(tokens, LOSS)

    @cached_property
    def _mapping(self) -> OuterMapping:
        return OuterMapping(self._directory, self._line.membership().run.layout)

    def _note(self, what: str, **facts: Any) -> None:
        os.write(self._journal, msgspec.json.encode({"time": time.time(), "what": what, **facts}) + b"\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    watch_leash()
    sys.exit(Trainer(msgspec.json.decode(sys.argv[1], type=Options)).run())
