"""A small run as a host and its relay leave it behind, made without processes: real data, records, states."""

import asyncio
from pathlib import Path

import msgspec
import numpy as np

from atoll import recipe as recipes
from atoll.agent import checkpoint, membership
from atoll.agent.assembly import Assembly
from atoll.agent.codecs import codec_named
from atoll.agent.log import UpdateLog
from atoll.agent.state import OuterState
from atoll.coordinator.database import sqlite_url
from atoll.coordinator.store import Store
from atoll.events import Committed, Enrolled, Joined, Left, ReignBegan
from atoll.events.step import Contribution
from atoll.metrics import Metrics
from atoll.run.directory import RunDir
from atoll.run.genesis import prepare
from atoll.run.host import _describe
from atoll.swarm.identity import RunKeys, island_key
from atoll.swarm.layout import root
from atoll.swarm.records import Assembled, Attempt, CommitRecord, Share, Slice, Term, encode, header

TERM = Term(1, "nonce")
PEOPLE = {"a" * 16: ("Ada", "London"), "b" * 16: ("Ada", "Kyoto, Japan"), "c" * 16: ("Emmy", "")}
RECIPE = {
    "name": "small",
    "model": {
        "preset": "demo",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 320,
    },
    "tokenizer": {"train": 300},
    "stage": [{"until": 4, "mixture": {"letters": 3, "notes": 1}}, {"until": 12, "mixture": {"notes": 1}}],
    "inner": {"context_length": 16, "tokens_per_step": 32},
    "outer": {"inner_steps": 2, "checkpoint_every": 2},
    "about": {"license": "apache-2.0", "languages": ["en"]},
}


def make_recipe(directory: Path, **changes: object) -> recipes.Recipe:
    """The recipe of a small run over two sources that are written into `directory`."""
    sources = {}
    for number, name in enumerate(("letters", "notes")):
        generator = np.random.default_rng(number)
        words = ["".join(generator.choice(list("aeioulmnrst"), 4)) for _ in range(1600)]
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        for part in range(8):
            (folder / f"{part}.txt").write_text(" ".join(words[200 * part : 200 * part + 200]))
        sources[name] = {"text": str(folder)}
    return recipes.parse({**RECIPE, "sources": sources, **changes}, "the recipe of a test")


class SmallRun:
    """A run of three islands; `commit` adds outer steps. Its relay keeps states, log and updates."""

    def __init__(
        self, directory: Path, people: dict[str, tuple[str, str]] = PEOPLE, **changes: object
    ) -> None:
        """`people`: contributor and place by island; `changes`: of the recipe."""
        self.recipe = make_recipe(directory / "sources", **changes)
        self.dir = RunDir(directory / "run")
        self.people = people
        prepare(self.recipe, self.dir, lambda _: None)
        self.keys = RunKeys(self.dir.coordinator, self.recipe.name)
        self.info, _ = _describe(self.recipe, self.dir, self.keys)
        self.store = Store(sqlite_url(self.dir.coordinator))
        self.store.claim(encode(self.info))
        self.store.term = self.store.begin_term()
        self.island = self.dir.islands / "relay"
        certificate = self.keys.issue(island_key(self.island)[2])
        membership._keep(
            self.island,
            membership.Membership(
                addresses=(),
                run_id=self.info.run_id,
                certificate=certificate,
                authority=self.keys.authority,
                run=self.info,
            ),
        )
        self.events: list[object] = [ReignBegan(time=0.0, run_id=self.info.run_id, term=1)]
        for island, (contributor, place) in people.items():
            self.store.redeem(self.store.new_ticket(1, 1.0), island, contributor, b"", place=place)
            self.events.append(Enrolled(time=0.0, island=island, contributor=contributor, place=place))
            self.events.append(Joined(time=0.0, island=island, contributor=contributor, relay=False))
        layout, state_0 = self.info.layout, self.dir.state_0()
        self.log = UpdateLog(self.island / "log", layout, self.keys.record_key)
        self.state = OuterState(self.island / "state", layout)
        for chunk in range(layout.num_chunks):
            self.state.write(chunk, 0, state_0.chunk(chunk))
        self.next_sample = 0

    def commit(self, count: int = 1, seed: int = 0) -> "SmallRun":
        """Commit outer steps; checkpoints are kept as the recipe says."""
        for _ in range(count):
            self._commit(seed)
        (self.dir.path / "events.jsonl").write_bytes(
            b"".join(
                msgspec.json.encode({"version": 1, "text": "", **msgspec.to_builtins(e)}) + b"\n"
                for e in self.events
            )
        )
        return self

    def _commit(self, seed: int) -> None:
        step, layout, codec = self.log.head, self.info.layout, codec_named(self.recipe.outer.codec)
        windows = self.recipe.windows_per_step * self.recipe.outer.inner_steps
        islands = sorted(self.people)[: 2 + step % 2]
        tokens = windows * self.recipe.inner.context_length
        part = Slice(islands[0], 0, layout.num_pieces)
        parent = self.log.root(step, self.info.genesis_root)
        attempt = Attempt(
            term=TERM,
            step=step,
            number=1,
            parent=parent,
            codec=codec.name,
            lr=self.recipe.objective.outer_lr,
            momentum=self.recipe.objective.outer_momentum,
            participants=tuple(
                Share(island=each, payload=b"p" * 32, tokens=tokens, weight=1 / len(islands))
                for each in islands
            ),
            slices=(part,),
            addresses={},
        )
        assembly = Assembly(self.log.directory, layout, attempt)
        values = np.random.default_rng(100 * step + seed).standard_normal(layout.num_elements) * 1e-3
        for tensor, where in zip(layout.tensors, layout.offsets, strict=False):
            values[where + tensor.num_elements : layout.offsets[layout.tensors.index(tensor) + 1]] = 0
        for index in range(layout.num_pieces):
            piece = values[layout.piece(index)].astype(np.float32)
            out = np.empty(codec.max_bytes(len(piece)), np.uint8)
            asyncio.run(assembly.put(index, out[: codec.encode(piece, out)].data))
        made = header(
            attempt, Assembled(term=TERM, step=step, number=1, digests=(root(assembly.slice_table(part)),))
        )
        table = assembly.apply_and_finish(self.state, self.log, made)
        leases = {each: ((self.next_sample + n * windows, windows),) for n, each in enumerate(islands)}
        self.next_sample += windows * len(islands)
        per_step = self.recipe.outer.inner_steps
        starts = (0,) if step * per_step < self.recipe.stage[0].until else (0, self._second_stage())
        record = CommitRecord(
            term=TERM,
            branch=0,
            step=step,
            number=1,
            parent=parent,
            update=made.digest(),
            next_root=root(table),
            participants=attempt.participants,
            leases=tuple(sorted(leases.items())),
            previous=self.log.records[-1].digest() if self.log.records else b"",
            stage_starts=starts,
        )
        record = msgspec.structs.replace(record, signature=self.keys.sign(record.unsigned()))
        self.log.append(record)
        self.store.append([record])
        update = self.log.committed(step)
        for chunk in range(layout.num_chunks):
            row = table[64 * chunk : 64 * (chunk + 1)]
            assert self.state.apply(update.header, update.pieces, chunk, row)
        if (step + 1) % self.recipe.outer.checkpoint_every == 0:
            checkpoint.save(
                self.island / "outer",
                layout,
                step + 1,
                root(table),
                self.state.parameters,
                self.state.momentum,
            )
        self.events.append(self._told(record, islands, tokens))

    def _second_stage(self) -> int:
        """The sample at which the second stage began: where the first step of it took its first one."""
        first_steps = self.recipe.stage[0].until // self.recipe.outer.inner_steps
        windows = self.recipe.windows_per_step * self.recipe.outer.inner_steps
        return sum(windows * (2 + step % 2) for step in range(first_steps))

    def _told(self, record: CommitRecord, islands: list[str], tokens: int) -> Committed:
        number = record.step + 1
        metrics = Metrics(compute_seconds=8.0 * number, communicate_seconds=2.0 * (number - 1))
        given = Contribution(tokens=tokens, inner_steps=2, loss=5.0, metrics=metrics)
        return Committed(
            time=10.0 * number,
            step=record.step,
            tokens=tokens * len(islands),
            loss=6.0 - 0.25 * record.step,
            participants=dict.fromkeys(islands, given),
            holders=tuple(islands),
            root=record.next_root.hex(),
        )

    def leave(self, island: str) -> None:
        """An island goes away."""
        self.events.append(Left(time=10.0 * self.log.head, island=island, reason="its line has ended"))
