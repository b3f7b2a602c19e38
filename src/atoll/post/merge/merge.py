"""The merge itself: check the models, make candidates, measure them, keep the best."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from atoll.errors import UserError
from atoll.files import atomic_dir
from atoll.given import named
from atoll.post.merge import mergekit
from atoll.post.merge.checkpoints import DTYPES, Checkpoint, check_alike, check_weights
from atoll.recipe.merge import (
    CHOOSES,
    NEEDS_BASE,
    Best,
    Dare,
    Della,
    Dtype,
    Greedy,
    Linear,
    Merge,
    Search,
    Simple,
    Slerp,
)

MIN_DENSITY = 0.2  # of those that a search draws


class Metric(Protocol):
    """How good a checkpoint is."""

    name: str
    higher_is_better: bool

    def __call__(self, checkpoint: Path) -> float: ...


class Candidate(NamedTuple):
    """One checkpoint among those that were looked at."""

    method: Simple | None  # None: one of the models, as it was given
    models: tuple[Path, ...]
    value: float | None = None  # of the metric, where there is one

    @property
    def name(self) -> str:
        """What it is, in words."""
        names = ", ".join(named("/".join(path.parts[-2:])) for path in self.models)
        if self.method is None:
            return names
        given = msgspec.to_builtins(self.method)
        settings = "".join(
            f" {key}={_shown(value)}" for key, value in given.items() if key != "method" and value
        )
        return f"{given['method']}{settings} of {names}"


class Merged(NamedTuple):
    """What came of a merge."""

    out: Path
    best: Candidate
    looked_at: list[Candidate]  # all of them, in the order in which they were measured


Say = Callable[[str], None]


def merge(
    method: Merge,
    models: Sequence[Path],
    out: Path,
    *,
    base: Path | None = None,
    dtype: Dtype | None = None,
    metric: Metric | None = None,
    say: Say = lambda _: None,
) -> Merged:
    """Write one checkpoint, made of `models`, to `out`: whole, or not at all.

    Tokenizer, template and generation config are those of the base or, without one, of the first model.
    `dtype`: of the result; none given: that of the same model. `metric`: what chooses, for methods that
    choose, and what the result is measured by in any case. `say` hears of each candidate. Raises UserError
    for models that do not fit together, settings that do not fit the models, and a result that is not finite.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{named(out)}: already there and not empty; choose another directory")
    opened = [Checkpoint.open(path) for path in models]
    opened_base = Checkpoint.open(base) if base is not None else None
    _check_distinct([*([opened_base] if opened_base else []), *opened])
    _check(method, len(models), base, metric)
    check_alike([*([opened_base] if opened_base else []), *opened])
    source = opened_base or opened[0]
    work = _Work(source, opened_base, DTYPES[dtype] if dtype else source.dtype, out)
    paths = tuple(checkpoint.path for checkpoint in opened)
    looked_at: list[Candidate] = []
    try:
        for candidate in _candidates(method, paths, looked_at, metric):
            measured = candidate._replace(value=metric(work.checkpoint(candidate)) if metric else None)
            looked_at.append(measured)
            if metric is not None:
                say(f"{metric.name} {measured.value:.5g}: {measured.name}")
        best = _best(looked_at, metric)
        work.keep(best)
    finally:
        work.clear()
    return Merged(out, best, looked_at)


def _candidates(
    method: Merge, paths: tuple[Path, ...], measured: list[Candidate], metric: Metric | None
) -> Iterator[Candidate]:
    """Yield what is to be looked at. `measured` grows meanwhile, and greedy soup goes by it."""
    if isinstance(method, Search):
        for path in paths:
            yield Candidate(None, (path,))
        rng = np.random.default_rng(method.seed)
        yield Candidate(method.of, paths)
        for _ in range(method.tries - 1):
            yield Candidate(_drawn(method.of, len(paths), rng), paths)
    elif isinstance(method, Best | Greedy):
        assert metric is not None
        for path in paths:
            yield Candidate(None, (path,))
        if isinstance(method, Best):
            return
        soup = _best(measured, metric)
        ranked = sorted(measured, key=lambda one: _rank(one, metric))
        for one in ranked[1:]:
            candidate = Candidate(Linear(), (*soup.models, *one.models))
            yield candidate
            if _rank(measured[-1], metric) <= _rank(soup, metric):
                soup = measured[-1]
    else:
        yield Candidate(method, paths)


def _drawn(method: Simple, num_models: int, rng: np.random.Generator) -> Simple:
    """The method with other settings: weights that sum to 1, t and density uniform."""
    new: dict[str, object] = {}
    if hasattr(method, "weights"):
        new["weights"] = [float(weight) for weight in rng.dirichlet(np.ones(num_models))]
    if hasattr(method, "density"):
        new["density"] = float(rng.uniform(MIN_DENSITY, 1.0))
    if isinstance(method, Slerp):
        new["t"] = float(rng.uniform())
    return msgspec.structs.replace(method, **new)


def _best(candidates: Sequence[Candidate], metric: Metric | None) -> Candidate:
    return min(candidates, key=lambda one: _rank(one, metric)) if metric else candidates[-1]


def _rank(candidate: Candidate, metric: Metric | None) -> float:
    """Smaller is better; what is not a number is worst."""
    assert metric is not None and candidate.value is not None
    value = -candidate.value if metric.higher_is_better else candidate.value
    return value if np.isfinite(value) else np.inf


class _Work:
    """Candidates on the disk, beside the result; one at a time."""

    def __init__(self, source: Checkpoint, base: Checkpoint | None, dtype: str, out: Path) -> None:
        self._source, self._base, self._dtype, self._out = source, base, dtype, out
        self._scratch = out.with_name(f".{out.name}.candidate.tmp")

    def checkpoint(self, candidate: Candidate) -> Path:
        """Where the candidate is, as a checkpoint, until the next one is asked for."""
        if candidate.method is None:
            return candidate.models[0]
        self.clear()
        self._scratch.mkdir(parents=True)
        self._write(candidate, self._scratch)
        return self._scratch

    def keep(self, candidate: Candidate) -> None:
        """Write the candidate to `out`; made once more, it has the same bits."""
        with atomic_dir(self._out) as temporary:
            self._write(candidate, temporary)

    def clear(self) -> None:
        """Remove the candidate."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _write(self, candidate: Candidate, out: Path) -> None:
        # One of the models alone is a mean of one: so its dtype and its files come out as those of any other.
        method = candidate.method or Linear()
        base = self._base.path if self._base else None
        needs_base = isinstance(method, (*NEEDS_BASE, Slerp))
        described = mergekit.configuration(
            method, candidate.models, base if needs_base else None, self._dtype
        )
        seed = method.seed if isinstance(method, Dare | Della) else None
        mergekit.write_weights(described, out, seed)
        self._source.copy_files(out, self._dtype)
        check_weights(out, self._source)


def _check_distinct(checkpoints: Sequence[Checkpoint]) -> None:
    """Raises UserError for a checkpoint that is given twice, which MergeKit would take for one."""
    seen: set[Path] = set()
    for checkpoint in checkpoints:
        if checkpoint.path in seen:
            raise UserError(f"{named(checkpoint.path)}: given twice; give its weight instead")
        seen.add(checkpoint.path)


def _check(method: Merge, num_models: int, base: Path | None, metric: Metric | None) -> None:
    """Raises UserError where a method's settings do not fit what it is given."""
    simple = method.of if isinstance(method, Search) else method
    name = msgspec.to_builtins(method)["method"]
    if isinstance(simple, NEEDS_BASE) and base is None:
        raise UserError(f"{name}: needs the model that the others began from; give it as --base DIR")
    if base is not None and not isinstance(simple, (*NEEDS_BASE, Slerp)):
        raise UserError(f"{name}: has no use for a base; leave --base out")
    if isinstance(simple, Slerp) and num_models != (1 if base else 2):
        raise UserError(f"slerp: goes from one model to another, and {num_models + bool(base)} are given")
    if num_models == 1 and not isinstance(simple, (*NEEDS_BASE, Slerp)):
        raise UserError(f"{name}: one model is given; there is nothing to merge it with")
    weights = getattr(simple, "weights", None)
    if weights is not None and len(weights) != num_models:
        raise UserError(f"{name}: {len(weights)} weights are given for {num_models} models")
    if isinstance(simple, Linear) and weights is not None and abs(sum(weights)) < 1e-6:
        raise UserError("linear: the weights sum to 0, so there is no mean")
    if isinstance(method, CHOOSES) and metric is None:
        raise UserError(f"{name}: chooses by a metric; give one with --by")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
