"""Scores of the checkpoints of one run over the tokens that they were trained on."""

from collections.abc import Iterable
from dataclasses import dataclass

from atoll.evaluate.results import Result
from atoll.evaluate.table import figure_of, is_share, question_of


@dataclass(frozen=True, kw_only=True)
class Point:
    """One checkpoint's figure."""

    tokens: int
    value: float
    error: float  # one standard error; 0 where it is not known


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One figure over tokens. Shares are in percent."""

    title: str
    points: tuple[Point, ...]  # by rising tokens
    chance: float | None


def curves(results: Iterable[Result], run_id: str) -> list[Curve]:
    """A curve for each question that was put to two or more states of a run."""
    found: dict[tuple[str, int | None, int | None], dict[int, Result]] = {}
    for result in results:
        checkpoint, settings = result.checkpoint, result.settings
        if checkpoint.run_id == run_id and checkpoint.tokens is not None and figure_of(result):
            key = settings.task, settings.num_fewshot, settings.limit
            found.setdefault(key, {})[checkpoint.tokens] = result
    return [_curve(by_tokens) for by_tokens in found.values() if len(by_tokens) > 1]


def _curve(by_tokens: dict[int, Result]) -> Curve:
    points: list[Point] = []
    scale = 1.0
    for tokens, result in sorted(by_tokens.items()):
        figure = figure_of(result)
        assert figure is not None
        metric, measured = figure
        scale = 100.0 if is_share(metric) else 1.0
        error = measured.standard_error or 0.0
        points.append(Point(tokens=tokens, value=scale * measured.value, error=scale * error))
    first = next(iter(by_tokens.values()))
    question, limit = question_of(first), first.settings.limit
    title = question.title + ("" if limit is None else f" (the first {limit} questions)")
    chance = None if question.chance is None else scale * question.chance
    return Curve(title=title, points=tuple(points), chance=chance)
