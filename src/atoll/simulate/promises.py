"""What an island says must be so: each promise is compared with what a power cut would leave on its disk."""

from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

import msgspec

from atoll.simulate import bits
from atoll.simulate.bits import State
from atoll.swarm import messages as m
from atoll.swarm.layout import Layout
from atoll.swarm.records import Message, Term, UpdateHeader

if TYPE_CHECKING:
    from atoll.simulate.invariants import Invariants
    from atoll.simulate.site import Site

STATE_FILES = ("parameters.f32", "momentum.f32")
K = TypeVar("K", bound=msgspec.Struct)
ROW_BYTES = 36  # of a table of pieces: digest and size


class Entry(msgspec.Struct):
    """What lies beside a held update on an island's disk."""

    header: UpdateHeader
    piece_table: bytes
    next_table: bytes


class Kept(msgspec.Struct):
    """What lies beside a payload."""

    proposal: m.Propose
    codec: str
    table: bytes


class Promises:
    """Listens to all islands."""

    def __init__(self, invariants: "Invariants", layout: Layout) -> None:
        self.ready_at: dict[str, bytes] = {}  # by island: the root that its last Ready named
        self._invariants, self._layout = invariants, layout
        self._must = invariants.must
        self._held_by: defaultdict[str, set[tuple[int, bytes]]] = defaultdict(set)
        # Of each agent's life: the steps at which it was ready.
        self._ready_steps: defaultdict[object, set[int]] = defaultdict(set)

    def said(self, site: "Site", message: Message) -> None:
        """An island says something to the coordinator or another."""
        match message:
            case m.Ready():
                self._ready(site, message)
            case m.Held():
                self._held(site, message)
            case m.Propose():
                self._proposed(site, message)
            case _:
                pass

    def said_by_liar(self, site: "Site", message: Message) -> None:
        """A liar says something: only what it has is noted."""
        if isinstance(message, m.Ready):
            self.ready_at[site.name] = message.root

    def _ready(self, site: "Site", message: m.Ready) -> None:
        self.ready_at[site.name] = message.root
        state = self._invariants.states.get(message.root)
        right = state is not None and state.step == message.step
        self._must(right, f"{site.name} is ready at {message.step} with another root than the committed one")
        self._must(message.loaded in (b"", message.root), f"{site.name}'s trainer loaded other bits")
        log = site.directory / "log"
        if state is None or (log / f"{message.step:08d}.commit").exists():
            return  # it is moving on
        has = self.has_state(site, state)
        self._must(has, f"{site.name} says that it is ready with bits that it has not")
        for step in range(message.step):
            raw = site.disk.durable(log / f"{step:08d}.commit")
            known = raw is not None and bits.hash_of(raw) in self._invariants.records
            self._must(known, f"{site.name} is ready at {message.step} without the true record of {step}")
        self._keeps_what_others_need(site, message.step)

    def _keeps_what_others_need(self, site: "Site", step: int) -> None:
        """Outer checkpoints are durable, and update bytes stay for two of their intervals."""
        world = self._invariants.world
        every, before = world.setting.checkpoint_every, self._ready_steps[site.agent_process]
        if site.disk.is_rotten:
            return
        if before and step < max(before):
            before.clear()  # it went back, and what it had no need of at a later state stays gone
        due = step - 1 - (step - 1) % every  # the newest that must be written by now
        if due > 0 and due in before and due + 1 in before:
            raw = site.disk.durable(site.directory / "outer" / f"{due:08d}.safetensors")
            state = self._invariants.states.get(self._invariants.root_at(due))
            there = raw is not None and state is not None and state.parameters.tobytes() in raw
            self._must(there, f"{site.name} has no durable checkpoint of state {due}")
        for of in range(max(0, step - 2 * every), step):
            if {of, of + 1, step - 1} <= before | {step}:
                record = self._invariants.history[of] if of < len(self._invariants.history) else None
                held = record is None or (of, record.update) not in self._held_by[site.name]
                stem = site.directory / "log" / f"{of:08d}-"
                there = held or bool(list(stem.parent.glob(f"{stem.name}*.update")))
                self._must(there, f"{site.name} has dropped the update of step {of} too early")
        before.add(step)

    def _held(self, site: "Site", message: m.Held) -> None:
        if (site.directory / "log" / f"{message.step:08d}.commit").exists():
            return  # it is over
        kept = self.holds(site, message.step, message.update, message.next_root)
        self._must(kept, f"{site.name} promised to hold an update of step {message.step} that it would lose")
        self._held_by[site.name].add((message.step, message.update))
        attempts = self._invariants.attempts.values()
        terms = [a.term for a in attempts if (a.step, a.number) == (message.step, message.number)]
        raw = site.disk.durable(site.directory / "term.json")
        seen = msgspec.json.decode(raw, type=Term).counter if raw is not None else 0
        self._must(
            seen >= min((term.counter for term in terms), default=0),
            f"{site.name} takes part in a term that it would forget",
        )

    def _proposed(self, site: "Site", message: m.Propose) -> None:
        known = message.payload in self._invariants.payloads
        self._must(known, f"{site.name} proposes a payload that is not its trainer's")
        if (site.directory / "log" / f"{message.step:08d}.commit").exists():
            return  # it is over, and another may be encoded by now
        raw = site.disk.durable(site.directory / "payload.kept")
        data = site.disk.durable(site.directory / "payload.bytes")
        kept = _read(raw, Kept)
        there = (
            kept is not None
            and data is not None
            and kept.proposal.payload == message.payload
            and self._are_pieces(data, kept.table)
        )
        self._must(there, f"{site.name} proposes a payload that it would lose")

    # -------------------------------------------------------------------------------------- what is on a disk
    def has_state(self, site: "Site", state: State) -> bool:
        """Whether the files of a site are this state."""
        parts = zip(STATE_FILES, (state.parameters, state.momentum), strict=True)
        return all((site.directory / "state" / name).read_bytes() == part.tobytes() for name, part in parts)

    def holds(self, site: "Site", step: int, update: bytes, next_root: bytes) -> bool:
        """Whether an update, and the table that it leads to, would survive a power cut there."""
        stem = site.directory / "log" / f"{step:08d}-{update[:8].hex()}"
        raw, data = (site.disk.durable(stem.with_suffix(suffix)) for suffix in (".entry", ".update"))
        entry = _read(raw, Entry)
        if entry is None or data is None:
            return False
        if entry.header.digest() != update or bits.hash_of(entry.next_table) != next_root:
            return False
        for first, count, slice_root in entry.header.slices:
            rows = entry.piece_table[ROW_BYTES * first : ROW_BYTES * (first + count)]
            if bits.hash_of(rows) != slice_root:
                return False
        return self._are_pieces(data, entry.piece_table)

    def _are_pieces(self, slots: bytes, table: bytes) -> bool:
        """Whether the pieces in a file of slots are those of a table."""
        count = self._layout.num_pieces
        slot = len(slots) // count
        ends = [ROW_BYTES * (index + 1) for index in range(count)]
        sizes = [int.from_bytes(table[end - 4 : end], "little") for end in ends]
        pieces = [slots[index * slot : index * slot + size] for index, size in enumerate(sizes)]
        return bits.piece_table(pieces) == table


def _read(raw: bytes | None, kind: type[K]) -> K | None:
    """The struct in a file; None where it is not there, or damaged."""
    try:
        return None if raw is None else msgspec.msgpack.decode(raw, type=kind)
    except msgspec.DecodeError:
        return None
