"""The committed states that are at hand in a run's directory, each proven by the run's signed records.

A state is at hand if an outer checkpoint of it is here, or one of an earlier state and every update between.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atoll import recipe as recipes
from atoll.agent import checkpoint, diloco, membership
from atoll.agent.arrays import Floats
from atoll.agent.checkpoint import OuterCheckpoint
from atoll.agent.log import Update, UpdateLog
from atoll.agent.membership import Membership
from atoll.agent.pieces import FalsePieces
from atoll.agent.state import chunk_row
from atoll.errors import UserError
from atoll.recipe import Recipe
from atoll.run.directory import RunDir
from atoll.swarm.layout import Layout, root
from atoll.swarm.records import CommitRecord, Rewind


@dataclass(frozen=True, kw_only=True)
class CommittedState:
    """An outer state, and what the run has signed about it."""

    member: Membership  # of an island of the run: what the run is, and its certificate
    records: tuple[CommitRecord, ...]  # of all steps that led to this state
    rewinds: tuple[Rewind, ...]
    step: int
    table: bytes  # its root is the one that the last record names
    parameters: Floats  # [num_elements]

    @property
    def layout(self) -> Layout:
        """Where each tensor lies in `parameters`."""
        return self.member.run.layout

    @property
    def root(self) -> bytes:
        """The digest that names the state."""
        return root(self.table)

    @property
    def tokens(self) -> dict[str, int]:
        """The ledger: committed tokens by island."""
        counts = Counter[str]()
        for share in (share for record in self.records for share in record.participants):
            counts[share.island] += share.tokens
        return dict(counts)

    @property
    def recipe(self) -> Recipe:
        """The run's recipe, with the default [island] table."""
        return recipes.parse(self.member.run.recipe, self.member.run_id)


def committed_state(run_dir: RunDir, step: int | None = None) -> CommittedState:
    """The state `step`, or the newest at hand that the run's records prove, bytes included.

    Raises UserError where there is none, naming the states that there are.
    """
    try:
        return _Shelf(run_dir).take(step)
    except PermissionError as error:
        raise UserError(
            f"{error.filename}: not permitted to read; export as the user whose run this is"
        ) from error


def members_of(run_dir: RunDir) -> list[tuple[Membership, Path]]:
    """The islands of a run's directory that have enrolled, each with its own directory."""
    # `glob` would pass over a directory that may not be read.
    directories = sorted(run_dir.islands.iterdir()) if run_dir.islands.exists() else []
    loaded = ((membership.load(directory), directory) for directory in directories)
    return [(member, directory) for member, directory in loaded if member is not None]


class _Shelf:
    """What the islands of one run's directory hold together."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run_dir = run_dir
        self._members = members_of(run_dir)
        if not self._members:
            raise UserError(
                f"{run_dir.path}: no island of a run here, so nothing that the run has committed; name the "
                "directory of a run that this machine hosts or has joined"
            )
        self._member = self._members[0][0]
        run = self._member.run
        self._logs = [UpdateLog(where / "log", run.layout, run.record_key) for _, where in self._members]
        self._log = max(self._logs, key=lambda log: (len(log.rewinds), log.head))
        self._damaged = ""

    def take(self, step: int | None) -> CommittedState:
        """The state `step`, or the newest; the nearest checkpoint before it whose bytes are right is used."""
        found = [(saved, self._reach(saved)) for saved in self._checkpoints()]
        # State 0 is no result: it is given only to whoever asks for it.
        newest_first = sorted({reach for _, reach in found if reach}, reverse=True)
        for wanted in newest_first if step is None else [step]:
            for saved, reach in found:
                if saved.step <= wanted <= reach:
                    state = self._replayed(saved, wanted)
                    if state.root == self._root(wanted):
                        return state
                    self._damaged = f" ({saved.path}: checksum failed, the file is damaged)"
        raise UserError(f"{self._run_dir.path}: {self._missing(step, [(s.step, r) for s, r in found])}")

    def _checkpoints(self) -> Iterator[OuterCheckpoint]:
        """Those whose root the records name; what their files hold is not looked at yet."""
        directories = [directory / "outer" for _, directory in self._members]
        for saved in checkpoint.newest([*directories, self._run_dir.genesis]):
            is_known = saved.step <= self._log.head and saved.layout == self._member.run.layout
            if is_known and saved.root == self._root(saved.step):
                yield saved

    def _root(self, step: int) -> bytes:
        return self._log.root(step, self._member.run.genesis_root)

    def _update(self, step: int) -> Update | None:
        """The committed update of a step, from whichever island has it."""
        digest = self._log.records[step].update
        return next(filter(None, (log.update(step, digest) for log in self._logs)), None)

    def _reach(self, saved: OuterCheckpoint) -> int:
        """The newest state that a checkpoint and the updates that are here lead to."""
        step = saved.step
        while step < self._log.head and self._update(step) is not None:
            step += 1
        return step

    def _replayed(self, saved: OuterCheckpoint, step: int) -> CommittedState:
        """The state that the updates from a checkpoint on lead to; its table is hashed from what they give.

        A false piece leaves its chunk as it was, so the table's root will not be the right one.
        """
        layout = self._member.run.layout
        updates = [self._update(each) for each in range(saved.step, step)]
        parameters = np.empty(layout.num_elements, np.float32) if updates else saved.parameters
        rows: list[bytes] = []
        for chunk in range(layout.num_chunks):
            elements = layout.chunk(chunk)
            values = np.frombuffer(saved.chunk(chunk), np.float32).copy()
            half = len(values) // 2
            for update in updates:
                assert update is not None, "it was here a moment ago"
                try:
                    diloco.apply(update.header, update.pieces, chunk, values[:half], values[half:])
                except FalsePieces:
                    break
            if updates:
                parameters[elements] = values[:half]
            rows.append(chunk_row(values[:half], values[half:]))
        return CommittedState(
            member=self._member,
            records=tuple(self._log.records[:step]),
            rewinds=tuple(self._log.rewinds),
            step=step,
            table=b"".join(rows),
            parameters=parameters,
        )

    def _missing(self, step: int | None, at_hand: list[tuple[int, int]]) -> str:
        """Why there is no such state, and what to do."""
        if step is None:
            return (
                f"no outer state here that the run's commit records prove{self._damaged}; let the run commit "
                "some steps first (--step 0 gives the state that it began with)"
            )
        ranges = sorted({(first, last) for first, last in at_hand})
        texts = [str(first) if first == last else f"{first} to {last}" for first, last in ranges]
        there = f"; at hand are the states {', '.join(texts)}" if texts else ""
        return f"state {step} is not at hand{self._damaged}{there}"
