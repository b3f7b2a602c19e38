"""The rows that are kept of a bench, for tables of several benches."""

from harness import results
from harness.markdown import Values


def rows(bench: str) -> list[Values]:
    """What is kept of a bench, without where it is from."""
    kept = results.load(bench)
    return [row.values for row in kept.rows] if kept else []
