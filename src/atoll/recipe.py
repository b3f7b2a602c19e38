"""The recipe: the TOML file that describes a run, as frozen structs. Unknown keys and wrong types are
refused.

Everything but `[island]` belongs to the run: its digest is checked when joining. `[island]` is each island's
own.
"""

import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from blake3 import blake3

from atoll.errors import UserError

Url = Annotated[str, msgspec.Meta(pattern=r"^(https?://[^/\s]+|file:///)\S*$")]
BUILT_IN_DIR = Path(__file__).parent / "recipes"


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=False):
    """A table of the recipe."""


class Model(Part, frozen=True):
    """Which network: a preset of `model/presets.py`, `from` (a `transformers` checkpoint), or `own`: the
    caller's module.

    Dimensions override the preset's.
    """

    own: bool = False
    preset: str | None = None
    from_: str | None = msgspec.field(name="from", default=None)
    vocab_size: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    rope_theta: float | None = None
    tie_word_embeddings: bool | None = None


class Tokenizer(Part, frozen=True):
    """`train` = size of a byte-level BPE vocabulary to train on the sources; or `file`, a
    `tokenizer.json`.
    """

    train: int | None = None
    file: str | None = None


class Range(Part, frozen=True):
    """Numbers from `min` to `max`, both included."""

    min: float | None = None
    max: float | None = None


class Source(Part, frozen=True):
    """A dataset. Exactly one of the five kinds says where it is; of a partitioned one every island says it
    for its part.
    """

    text: str | None = None  # a file, a folder of .txt, or "package:NAME" shipped with atoll
    code: str | None = None  # a source tree, or "stdlib": the interpreter's own standard library
    jsonl: str | None = None  # .jsonl, .jsonl.gz, .jsonl.zst: a file or a folder
    parquet: str | None = None  # a file or a folder
    dataset: str | None = (
        None  # a local folder named like a Hugging Face dataset, or else that dataset, streamed
    )
    revision: str | None = None  # dataset only, needed for the hub: a commit (or a tag, a branch)
    config: str | None = None  # dataset only: which of its configurations; a subfolder of a local one
    split: str = "train"  # dataset only
    data_files: str | None = (
        None  # dataset only: a pattern like "data/*.parquet", instead of config and split
    )
    column: str = "text"  # jsonl, parquet, dataset: where the text is
    keep: dict[
        str, list[str | int | float | bool] | Range
    ] = {}  # rows whose columns have one of these values
    separator: str | None = None  # text only: where one document ends and the next begins
    suffix: str = ".py"  # code only
    partitioned: bool = (
        False  # private: each island has a part of its own (`atoll prepare --partition`), or none
    )
    skip_bad_rows: bool = False  # skip and count rows that are null, not text or not UTF-8


class Stage(Part, frozen=True):
    """A mixture valid until an inner step."""

    until: int
    mixture: dict[str, float] = {}


class AdamW(Part, frozen=True, tag_field="type", tag="adamw"):
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1


class Muon(Part, frozen=True, tag_field="type", tag="muon"):
    """Muon for the hidden matrices; the rest by AdamW at `adamw_lr`."""

    lr: float = 0.02
    momentum: float = 0.95
    weight_decay: float = 0.1
    adamw_lr: float = 1e-3


class Schedule(Part, frozen=True):
    """The factor on the inner learning rate, a pure function of the inner step."""

    type: Literal["wsd", "cosine", "linear", "constant"] = "wsd"
    warmup_steps: int = 0
    decay_steps: int = 0  # wsd: length of the 1-sqrt decay before the last stage's end
    final: float = 0.0  # the factor at the very end


class Inner(Part, frozen=True):
    context_length: int
    tokens_per_step: int  # per island
    optimizer: AdamW | Muon = AdamW()
    schedule: Schedule = Schedule()
    clip_norm: float = 1.0
    z_loss: float = 0.0  # weight of max-z-loss


class Outer(Part, frozen=True):
    inner_steps: int  # H of the DiLoCo paper
    codec: Literal["fp32", "bf16", "int8"] = "int8"
    lr: float = 0.7
    momentum: float = 0.9
    min_participants: int = 1
    checkpoint_every: int = 10  # outer steps between outer checkpoints


class Island(Part, frozen=True):
    """Each island's own; outside the digest."""

    device: str = "auto"
    threads: int | None = None
    micro_batch: int = 8  # windows per forward pass of a rank
    activation_checkpointing: bool = False  # compute activations twice instead of keeping them
    compile: bool = False  # blocks through torch.compile; pays where windows hold equal documents, or one
    cpu_offload: bool = False  # an accelerator's: parameters, gradients and moments live in the host's memory
    float8: bool = False  # blocks multiply in float8 (torchao), on the CPU emulated; pays with compile
    read_every: Annotated[int, msgspec.Meta(ge=1)] = 10  # inner steps between looks at the loss, and reports
    checkpoint_every: int = 1  # outer steps between inner checkpoints
    checkpoint_keep: int = 2
    checkpoint_to: str = (
        ""  # a folder or URL (s3://, gs://, ... through fsspec) of this island's own, for copies
    )
    profile: bool = False  # trace a few inner steps of the second outer step, into this island's directory
    evaluate_every: int = 0  # outer steps between looks at held-out loss; 0: never


class Recipe(Part, frozen=True):
    name: str
    model: Model
    stage: list[Stage]
    inner: Inner
    outer: Outer
    tokenizer: Tokenizer = Tokenizer()
    sources: dict[str, Source] = {}
    seed: int = 0
    heldout_fraction: float = 0.02
    data_url: Url | None = (
        None  # http(s):// or file:///: where the prepared data lies, for islands that lack it
    )
    island: Island = Island()

    @property
    def num_outer_steps(self) -> int:
        """How many updates the run commits."""
        return -(-self.stage[-1].until // self.outer.inner_steps)

    @property
    def windows_per_step(self) -> int:
        """Windows that one island reads per inner step."""
        return self.inner.tokens_per_step // self.inner.context_length

    @property
    def partitioned(self) -> list[str]:
        """The private sources, sorted: they are in no machine's prepared data."""
        return sorted(name for name, source in self.sources.items() if source.partitioned)

    def mixture(self, stage: int) -> dict[str, float]:
        """Weights, among each other, of the sources that all islands can have."""
        return {
            name: weight
            for name, weight in self.stage[stage].mixture.items()
            if not self.sources[name].partitioned
        }

    def private_shares(self, stage: int) -> dict[str, float]:
        """Of all samples of a stage, the share that each private source is due."""
        weights = self.stage[stage].mixture
        return {name: weights[name] / sum(weights.values()) for name in self.partitioned if weights.get(name)}

    def shared(self) -> dict[str, Any]:
        """The run's part of the recipe as plain values: everything but `[island]`."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        del plain["island"]
        return plain

    def digest(self) -> str:
        """BLAKE3 of the run's part, as hex; equal on every machine."""
        return blake3(msgspec.json.encode(self.shared(), order="sorted")).hexdigest()


def own_island(overrides: list[str]) -> Island:
    """This machine's [island] table, from overrides like `island.threads=2`. Raises UserError for any other
    key.
    """
    tree: dict[str, Any] = {}
    for override in overrides:
        _override(tree, override)
    if others := sorted(tree.keys() - {"island"}):
        raise UserError(
            f"{', '.join(others)}: the run's recipe decides this; only island.* is yours to set when joining"
        )
    try:
        return msgspec.convert(tree.get("island", {}), Island)
    except msgspec.ValidationError as error:
        raise UserError(f"island: {error}") from error


def load(source: str | Path, overrides: list[str] | None = None) -> Recipe:
    """The recipe in a TOML file (built in, by bare name; or a run's own recipe.json), with dotted overrides.

    Raises UserError naming the key's path for anything unknown, missing, of a wrong type or inconsistent.
    """
    path = find(source)
    try:
        text = path.read_text("utf-8")
        tree = msgspec.json.decode(text) if path.suffix == ".json" else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not valid {'JSON' if path.suffix == '.json' else 'TOML'}: {error}"
        ) from error
    for override in overrides or []:
        _override(tree, override)
    return parse(tree, str(path))


def find(source: str | Path) -> Path:
    """The path of a recipe file; a bare name means one that ships with atoll."""
    path = Path(source)
    built_in = BUILT_IN_DIR / f"{source}.toml"
    if path.is_file():
        return path
    if built_in.is_file():
        return built_in
    known = ", ".join(sorted(p.stem for p in BUILT_IN_DIR.glob("*.toml")))
    raise UserError(f"{source}: no such recipe; give a TOML file or one of the built-in names: {known}")


def parse(tree: dict[str, Any], where: str) -> Recipe:
    """A checked recipe from plain values; `where` names their origin in errors."""
    try:
        recipe = msgspec.convert(tree, Recipe)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        key = path.rstrip("`").removeprefix("$").lstrip(".") or "the top level"
        if key in ("inner.optimizer", "inner.optimizer.type"):  # msgspec does not name the kinds of a union
            message += ' (type = "adamw" or "muon")'
        raise UserError(f"{where}: at {key}: {message}; see README, recipe") from error
    _check(recipe, where)
    return recipe


def with_island(shared: dict[str, Any], own: Island) -> Recipe:
    """The run's part of a recipe, as a coordinator gives it, with this island's own table. Raises
    UserError.
    """
    recipe = msgspec.structs.replace(parse(shared, "the run's recipe"), island=own)
    _check(recipe, "this machine's own settings")
    return recipe


def differing_keys(ours: Recipe, theirs: Recipe) -> list[str]:
    """The dotted keys, outside `[island]`, on which two recipes differ."""
    left, right = _flat(ours.shared()), _flat(theirs.shared())
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"{override}: not an override; write it as key.path=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # an unquoted word
    *parents, last = key.strip().split(".")
    node: Any = tree
    try:
        for parent in parents:
            place = _place(node, parent)
            if place == parent and parent not in node:
                node[parent] = {}
            node = node[place]
        node[_place(node, last)] = value
    except (ValueError, IndexError, TypeError, AttributeError):
        raise UserError(
            f"{override}: there is no such place in the recipe; as in outer.lr=0.5 or stage.0.until=100"
        ) from None


def _place(node: Any, name: str) -> str | int:
    """How a dotted key's part names its place: by number in a list, by name in a table."""
    return int(name) if isinstance(node, list) else name


def _check(recipe: Recipe, where: str) -> None:
    inner, outer, model, tokenizer = recipe.inner, recipe.outer, recipe.model, recipe.tokenizer
    kinds = {
        name: [
            kind
            for kind in ("text", "code", "jsonl", "parquet", "dataset")
            if getattr(source, kind) is not None
        ]
        for name, source in recipe.sources.items()
    }
    rules = [  # JSON has no infinity: recipe.json and the digest would hold null in its place
        (not isinstance(value, float) or math.isfinite(value), f"{key}: must be a finite number")
        for key, value in _flat(msgspec.to_builtins(recipe)).items()
    ]
    rules += [
        (re.fullmatch(r"[A-Za-z0-9_-]+", recipe.name) is not None, "name: letters, digits, - and _"),
        (
            (model.preset is not None) + (model.from_ is not None) + model.own == 1,
            "model: give exactly one of preset, from and own",
        ),
        (
            model.own or (tokenizer.train is None) != (tokenizer.file is None),
            "tokenizer: give exactly one of train and file",
        ),
        (model.own or bool(recipe.sources), "sources: at least one is needed"),
        (bool(recipe.stage), "stage: at least one is needed"),
        (inner.context_length > 0, "inner.context_length: must be positive"),
        (
            inner.context_length > 0
            and inner.tokens_per_step > 0
            and inner.tokens_per_step % inner.context_length == 0,
            "inner.tokens_per_step: must be a positive multiple of inner.context_length",
        ),
        (outer.inner_steps > 0, "outer.inner_steps: must be positive"),
        (outer.min_participants > 0, "outer.min_participants: must be positive"),
        (outer.checkpoint_every > 0, "outer.checkpoint_every: must be positive"),
        (outer.lr > 0 and 0 <= outer.momentum < 1, "outer: lr must be positive and momentum in [0, 1)"),
        (0 < recipe.heldout_fraction < 1, "heldout_fraction: must be between 0 and 1"),
        (recipe.island.micro_batch > 0, "island.micro_batch: must be positive"),
    ]
    rules += [
        (len(kinds[name]) == 1, f"sources.{name}: give exactly one of text, code, jsonl, parquet, dataset")
        if not source.partitioned
        else (not kinds[name], f"sources.{name}: it is partitioned, so each island says where its part is")
        for name, source in recipe.sources.items()
    ]
    until = 0
    for number, stage in enumerate(recipe.stage):
        weights = stage.mixture.values()
        rules += [
            (stage.until > until, f"stage[{number}].until: must grow from stage to stage"),
            (
                model.own or (all(w >= 0 for w in weights) and sum(weights) > 0),
                f"stage[{number}].mixture: weights >= 0, not all 0",
            ),
        ]
        rules += [
            (s in recipe.sources, f"stage[{number}].mixture: no source is named {s!r}") for s in stage.mixture
        ]
        common = [
            w for s, w in stage.mixture.items() if s in recipe.sources and not recipe.sources[s].partitioned
        ]
        rules += [
            (
                model.own or any(common),
                f"stage[{number}].mixture: a source that is not partitioned must weigh something",
            )
        ]
        until = stage.until
    for holds, message in rules:
        if not holds:
            raise UserError(f"{where}: {message}")


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    if isinstance(tree, dict):
        items = [
            (f"{prefix}.{name}" if prefix else name, value)
            for name, value in cast(dict[str, Any], tree).items()
        ]
    elif isinstance(tree, list):
        items = [(f"{prefix}.{number}", value) for number, value in enumerate(cast(list[Any], tree))]
    else:
        return {prefix: tree}
    return {key: leaf for name, value in items for key, leaf in _flat(value, name).items()}
