"""Where the facts of a run are taken from: its signed records, its recipe, its events, its status."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from atoll import __version__
from atoll.agent.codecs import codec_named
from atoll.data.manifest import Manifest
from atoll.data.mixture import Mixture
from atoll.errors import UserError
from atoll.evaluate import results
from atoll.evaluate.checkpoint import Files
from atoll.events.log import EventReader
from atoll.publish import facts as f
from atoll.publish.places import located
from atoll.publish.states import CommittedState
from atoll.publish.told import told
from atoll.recipe import Recipe
from atoll.run import operate
from atoll.run.directory import RunDir
from atoll.run.kept import kept_in
from atoll.samples import number_of
from atoll.status import IslandStatus
from atoll.swarm.identity import fingerprint
from atoll.swarm.records import CommitRecord

FACTS_FILE = "facts.json"
FP32_BYTES = 4


def facts_of(run_dir: RunDir, state: CommittedState, export_dir: Path, is_proven: bool) -> f.Facts:
    """The facts of a run up to a state whose model and tokenizer are in `export_dir`."""
    recipe, run = state.recipe, state.member.run
    config = _json(export_dir / "config.json")
    tokens = state.tokens
    known = {island.island: island for island in islands_of(run_dir)}
    optimizer, schedule = recipe.inner.optimizer, recipe.inner.schedule
    base_dir = recipe.model.checkpoint if recipe.model.from_ else None
    return f.Facts(
        atoll=__version__,
        name=recipe.name,
        run_id=run.run_id,
        recipe_digest=recipe.digest(),
        step=state.step,
        num_outer_steps=recipe.num_outer_steps,
        root=state.root.hex(),
        fingerprint=fingerprint(state.member.authority).hex(),
        record_key=run.record_key.hex(),
        is_proven=is_proven,
        dtype="bf16" if config.get("dtype") == "bfloat16" else "fp32",
        license=recipe.about.license,
        languages=tuple(recipe.about.languages),
        base_model=recipe.about.base_model or (base_dir.name if base_dir else None),
        is_base_on_hub=recipe.about.base_model is not None,
        base=_facts_in(base_dir) if base_dir else None,
        shape=_shape(state, recipe, config),
        bos_token=_bos_token(export_dir),
        has_chat_template=(export_dir / "chat_template.jinja").exists(),
        objective=str(recipe.objective.__struct_config__.tag),
        is_of_chats=recipe.objective.rows != "stream",
        inner_optimizer={"adamw": "AdamW", "muon": "Muon"}[str(optimizer.__struct_config__.tag)],
        inner_lr=optimizer.lr,
        inner_schedule=schedule.type,
        tokens_per_inner_step=recipe.inner.tokens_per_step,
        inner_steps=recipe.outer.inner_steps,
        outer_lr=recipe.objective.outer_lr,
        outer_momentum=recipe.objective.outer_momentum,
        traffic=_traffic(recipe, state.layout.piece_elements),
        num_islands=len(tokens),
        most_at_once=max((len(record.participants) for record in state.records), default=0),
        tokens=sum(tokens.values()),
        contributors=contributors(tokens, known),
        places=_places(tokens, known),
        sources={name: _source(recipe, name) for name in sorted(recipe.sources)},
        stages=_stages(recipe, Mixture.of(recipe, Manifest.load(run_dir.data)), state.records),
        told=told(EventReader(run_dir.events).read(), state.records),
        scores=_scores(run_dir, state, export_dir),
    )


def islands_of(run_dir: RunDir) -> tuple[IslandStatus, ...]:
    """What is known of the run's islands, by the coordinator's database or, where that is not, by itself.

    Empty where neither can be asked: then nobody here knows the contributors.
    """
    try:
        kept = kept_in(run_dir) or operate.status(run_dir)
    except UserError:
        return ()
    return kept.islands


def contributors(tokens: Mapping[str, int], known: Mapping[str, IslandStatus]) -> tuple[f.Contributor, ...]:
    """Who gets the credit, most tokens first. One name may stand for several islands."""
    groups: dict[tuple[str, bool], dict[str, int]] = {}  # islands and their tokens
    for island, count in tokens.items():
        name = known[island].contributor if island in known else ""
        groups.setdefault((name or island, bool(name)), {})[island] = count
    found = [
        f.Contributor(
            name=name,
            is_named=is_named,
            num_islands=len(counts),
            tokens=sum(counts.values()),
            links=tuple(sorted({known[island].link for island in counts if island in known} - {""})),
        )
        for (name, is_named), counts in groups.items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.tokens, each.name)))


def _places(tokens: Mapping[str, int], known: Mapping[str, IslandStatus]) -> tuple[f.Place, ...]:
    """Where the islands stood that took part, as far as that was told; sorted."""
    names = {known[island].place for island in tokens if island in known} - {""}
    return tuple(f.Place(name, located(name)) for name in sorted(names))


def _source(recipe: Recipe, name: str) -> f.Source:
    source = recipe.sources[name]
    return f.Source(
        kind=next(iter(source.kinds), ""), dataset=source.dataset or "", revision=source.revision or ""
    )


def _stages(recipe: Recipe, mixture: Mixture, records: Sequence[CommitRecord]) -> tuple[f.Stage, ...]:
    """What the records spend, by stage and source. Turns of partitions count for the stage of their step."""
    samples = [Counter[str]() for _ in recipe.stage]
    for record in records:
        starts = record.stage_starts
        ranges = [each for _, lease in record.leases for each in lease]
        for number, part in _by_stage(ranges, starts):
            samples[number].update(mixture.count([part], starts))
    return tuple(
        f.Stage(
            until_inner_step=stage.until,
            tokens={name: n * recipe.inner.context_length for name, n in sorted(counts.items())},
        )
        for stage, counts in zip(recipe.stage, samples, strict=True)
    )


def _by_stage(ranges: Sequence[tuple[int, int]], starts: Sequence[int]) -> list[tuple[int, tuple[int, int]]]:
    """The ranges (first sample, number) cut at the starts of stages, each with the number of its stage."""
    parts: list[tuple[int, tuple[int, int]]] = []
    for first, count in ranges:
        if number_of(first):
            parts.append((len(starts) - 1, (first, count)))
            continue
        end = first + count
        while first < end:
            number = bisect_right(starts, first) - 1
            following = starts[number + 1] if number + 1 < len(starts) else end
            stop = min(end, following)
            parts.append((number, (first, stop - first)))
            first = stop
    return parts


def _scores(run_dir: RunDir, state: CommittedState, export_dir: Path) -> tuple[results.Result, ...]:
    """What was measured of the state, or of an export with the same files, and is kept with the run."""
    known = results.load(run_dir.path / results.DIRECTORY)
    if not known:
        return ()
    digest = Files(export_dir).digest()
    return tuple(results.of_checkpoint(known, digest=digest, root=state.root.hex()))


def _traffic(recipe: Recipe, piece_elements: int) -> f.Traffic:
    codec = codec_named(recipe.outer.codec)
    num_bytes = codec.max_bytes(piece_elements) / piece_elements
    return f.Traffic(
        codec=codec.name,
        bytes_per_parameter=num_bytes,
        factor=recipe.outer.inner_steps * FP32_BYTES / num_bytes,
    )


def _shape(state: CommittedState, recipe: Recipe, config: dict[str, Any]) -> f.Shape:
    return f.Shape(
        architecture=next(iter(config.get("architectures") or ["?"])),
        num_parameters=sum(tensor.num_elements for tensor in state.layout.tensors),
        num_layers=config.get("num_hidden_layers"),
        hidden_size=config.get("hidden_size"),
        num_heads=config.get("num_attention_heads"),
        num_key_value_heads=config.get("num_key_value_heads"),
        context_length=recipe.inner.context_length,
        vocab_size=config.get("vocab_size"),
    )


def _bos_token(export_dir: Path) -> str:
    return str(_json(export_dir / "tokenizer_config.json").get("bos_token", ""))


def _facts_in(directory: Path) -> f.Facts | None:
    """The facts of the export that a run began with; None where that is no export, or not on this machine."""
    try:
        return msgspec.json.decode((directory / FACTS_FILE).read_bytes(), type=f.Facts)
    except (OSError, msgspec.MsgspecError):
        return None


def _json(path: Path) -> dict[str, Any]:
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
