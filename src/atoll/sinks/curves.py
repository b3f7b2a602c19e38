"""What the sinks that draw curves have in common: a point of each curve at a commit or an evaluation."""

from collections.abc import Iterable

from atoll.sinks.figures import Figure


class Points:
    """Collects figures until there is a point to draw."""

    def __init__(self) -> None:
        self._changed: dict[str, float] = {}

    def until(self, figures: Iterable[Figure], notable: bool) -> dict[str, float]:
        """The newest value of each curve that has changed since the last point; empty where this is none."""
        self._changed.update((curve(figure), figure.value) for figure in figures)
        if not notable:
            return {}
        changed, self._changed = self._changed, {}
        return changed


def curve(figure: Figure) -> str:
    """The name of the curve that a figure belongs to: loss, score/arc_easy, island/ada-3f9a/loss."""
    labels = dict(figure.labels)
    if "island" in labels:
        who = "-".join(filter(None, (labels["contributor"], labels["island"][:4])))
        return f"island/{_part(who)}/{figure.name.removeprefix('island_')}"
    return "/".join([figure.name, *(_part(text) for text in labels.values())])


def _part(text: str) -> str:
    """A part of a curve's name, in which tools give a meaning to slashes."""
    return text.replace("/", "_")
