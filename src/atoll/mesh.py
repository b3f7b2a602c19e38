"""ElasticDeviceMesh: the two sides of an island. `local` is its fixed ranks, `swarm` whoever is in the run.

Bring your own module and loop (`examples/own_loop.py`), or read `train.py`, which is one.

Under torchrun every rank calls everything here, in the same order. The first rank talks to the island's agent
(agent/line.py), and the others learn what came of it. Each rank moves its own rows between its parameters and
the files that the agent maps as well (agent/mapped.py).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from atoll.agent.line import AgentLine
from atoll.agent.mapped import Floats, OuterMapping
from atoll.agent.membership import Membership
from atoll.agent.settings import Settings
from atoll.errors import UserError
from atoll.island.parallelize import device as device_named
from atoll.island.ranks import Ranks, own_rows
from atoll.swarm.layout import Layout
from atoll.swarm.messages import Adopt, Pulse
from atoll.swarm.records import Plan, RunInfo

__all__ = ["Adopt", "ElasticDeviceMesh", "Plan", "Swarm"]


class ElasticDeviceMesh:
    """`local`: the ranks of this island, a `torch.distributed` DeviceMesh. `swarm`: the run's islands."""

    def __init__(self, ranks: Ranks, swarm: "Swarm") -> None:
        self.ranks = ranks
        self.swarm = swarm
        self._local: DeviceMesh | None = None

    @staticmethod
    def join(
        ticket: str,
        directory: Path,
        contributor: str = "",
        *,
        settings: Settings | None = None,
        log: Path | None = None,
    ) -> "ElasticDeviceMesh":
        """Become an island of the run that `ticket` names (it may be empty where `directory` already is one).

        Under torchrun all its processes are this one island, and the first rank's arguments count.
        """
        ranks = Ranks.of_torchrun()
        settings = settings or Settings(directory=directory, contributor=contributor)
        return ElasticDeviceMesh(ranks, Swarm.start(ranks, settings, ticket, log))

    @property
    def local(self) -> DeviceMesh:
        """The ranks, on the device given to `place`, else on an accelerator if there is one, else the CPU."""
        return self._local or self.place("auto")

    def place(self, device: str) -> DeviceMesh:
        """Choose the device of `local`, once, before it is used. Raises UserError when there is none such."""
        self._local = self.ranks.device_mesh(device_named(device))
        return self._local

    def __enter__(self) -> "ElasticDeviceMesh":
        return self

    def __exit__(self, *_: object) -> None:
        self.swarm.close()
        self.ranks.close()


class Swarm:
    """The elastic side, through this island's agent. Orders come in; progress and proposals go out."""

    def __init__(self, ranks: Ranks, line: AgentLine | None) -> None:
        """`line` leads to this island's agent: the first rank has it, the others None."""
        self.moved_on = False  # the swarm has decided the step under way without us
        self._ranks = ranks
        self._first_ranks_line = line
        self._settings = ranks.first(lambda: self._line.settings)

    @staticmethod
    def start(
        ranks: Ranks,
        settings: Settings,
        ticket: str,
        log: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
        told: Callable[[Pulse, bool], None] = lambda pulse, waits: None,
    ) -> "Swarm":
        """Start the agent. `ticket` may be empty where the directory is a member of its run already.

        `log` takes the agent's standard error; `say` hears, in sentences, of agents that die and are
        replaced; `check` is called every few seconds of waiting, and ends it by an exception; `told` is given
        the agent's signs of life, which say how the run is, and whether this process waits for its agent. All
        but `ranks` is the first rank's to give.
        """

        def replaced(why: str, status: int) -> None:
            say(f"the agent has ended ({why}, exit status {status}) and is started again; its log: {log}")

        if ranks.number > 0:
            return Swarm(ranks, None)
        line = AgentLine(settings, ticket, log, replaced=replaced, check=check, told=told)
        return Swarm(ranks, line)

    def orders(self) -> Iterator[Adopt | Plan]:
        """What to do next, until the run is finished. Raises UserError when this island may not go on.

        `Adopt`: an update is committed, for all of us; load the outer state. `Plan`: train on these samples.
        """
        orders = self._line.orders() if self._ranks.number == 0 else iter(())
        while (order := self._ranks.first(lambda: next(orders, None))) is not None:
            self.moved_on = False
            yield order

    def adopt(self, order: Adopt, parameters: Mapping[str, Tensor]) -> None:
        """Copy the outer state into these parameters, in place, and prove to the swarm what they now hold.

        Each rank loads its own rows of DTensors; the proof is over what all ranks hold. Raises UserError
        unless names and shapes are exactly the run's.
        """
        layout = self._checked_layout(parameters)

        @torch.no_grad()
        def copy(outer: Floats) -> None:
            for elements, rows in own_elements(layout, parameters):
                rows.copy_(torch.from_numpy(np.array(outer[elements])).view(rows.shape))
            self._ranks.wait()

        self._mapping.read(copy, lambda: self._line.agent_alive, self._ranks.first)
        self._hand_over(layout, parameters)
        if self._ranks.number == 0:
            self._line.adopted(order, self._mapping.proof(order.table))

    def measured(self, **figures: float | None) -> None:
        """Note figures that go out with the next progress or proposal, for the run's status and events file.

        They are named as in `Metrics`: `gradient_norm`, `learning_rate`, `heldout_loss`, what an objective
        adds. The first rank's count.
        """
        if self._ranks.number == 0:
            self._line.measured(**figures)

    def progress(self, loss: float | None, tokens: int, inner_steps: int = 1) -> bool:
        """Report inner steps, their tokens and the last one's loss; whether to do as many more.

        False when there is no time for them: propose what is done. False, too, when the swarm has `moved_on`:
        go on to the next order.
        """

        def report() -> tuple[bool, bool]:
            return self._line.progress(loss, tokens, inner_steps), self._line.moved_on

        go_on, self.moved_on = self._ranks.first(report)
        return go_on

    def propose(
        self, parameters: Mapping[str, Tensor], tokens: int, loss: float | None, count: int | None = None
    ) -> None:
        """Contribute the parameters after the inner steps, with their tokens and mean loss.

        `count`: what the loss is a mean over, by which the island is weighed in the update; None: its tokens.
        All the plan's inner steps are taken for done unless `progress` has said that there is no time for
        more. Raises UserError unless names and shapes are exactly the run's.
        """
        self._hand_over(self._checked_layout(parameters), parameters)
        if self._ranks.number == 0:
            self._line.propose(tokens, loss, count)

    def data_dir(self) -> Path:
        """Where the run's prepared data is: manifest and tokenizer, fetched if need be, and what `provide`
        brings. Before `orders`. Raises UserError when this island may not go on.
        """
        return self._ranks.first(lambda: self._line.data_dir())

    def provide(self, needed: Callable[[], Mapping[str, tuple[int, ...]]]) -> bool:
        """Have blocks (by file) of the prepared data here; False when the swarm has `moved_on` meanwhile.

        `needed` runs on the first rank. Ask for all of a lease at once, before training on it, and in the
        thread that trains: the line to the agent is for one.
        """
        self.moved_on = self._ranks.first(lambda: self._line.provide(needed()) is None)
        return not self.moved_on

    @property
    def private_dir(self) -> Path:
        """Where this island's parts of partitioned sources lie; they stay there."""
        return self._settings.private_dir

    @property
    def run(self) -> RunInfo:
        """What the run is; waits for this island's enrolment. Raises UserError when it is not enrolled."""
        return self._membership.run

    @property
    def island(self) -> str:
        """This island's id; waits for its enrolment. Raises UserError when it is not enrolled."""
        return self._membership.island

    def close(self) -> None:
        """Let the agent end; it leaves the swarm and keeps its files."""
        if self._first_ranks_line is not None:
            self._first_ranks_line.close()

    @property
    def _line(self) -> AgentLine:
        assert self._first_ranks_line is not None, "the first rank alone talks to the agent"
        return self._first_ranks_line

    @cached_property
    def _membership(self) -> Membership:
        return self._ranks.first(lambda: self._line.membership())

    @cached_property
    def _mapping(self) -> OuterMapping:
        return OuterMapping(self._settings.directory, self.run.layout)

    def _checked_layout(self, parameters: Mapping[str, Tensor]) -> Layout:
        """The run's layout, which these parameters have, too; else UserError."""
        theirs = {tensor.name: tensor.shape for tensor in self.run.layout.tensors}
        ours = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
        if ours != theirs:
            wrong = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
            raise UserError(f"this model is not the run's: {', '.join(wrong[:5])} differ in name or shape")
        return self.run.layout

    def _hand_over(self, layout: Layout, parameters: Mapping[str, Tensor]) -> None:
        """Put the parameters where the agent reads them: every rank its rows, and all when this returns."""
        for elements, rows in own_elements(layout, parameters):
            self._mapping.local[elements] = rows.detach().float().cpu().numpy().reshape(-1)
        self._ranks.wait()


def own_elements(layout: Layout, parameters: Mapping[str, Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """For each parameter: where this rank's rows lie in a flat [num_elements], and those rows, not copied."""
    for tensor, place in layout.tensor_slices():
        elements_before, rows = own_rows(parameters[tensor.name])
        start = place.start + elements_before
        yield slice(start, start + rows.numel()), rows
