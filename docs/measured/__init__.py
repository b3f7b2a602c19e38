"""What each measured table of these pages shows, by name: `python docs/tables.py` writes them."""

import ast
import itertools
from collections.abc import Callable
from pathlib import Path

from harness import results
from harness.markdown import Measured, table
from reference import reference

from atoll.recipe import BUILT_IN_DIR
from measured import data, island, post, swarm

BENCH_DIR = Path(__file__).resolve().parents[2] / "bench"


def written(kind: Measured) -> Callable[[], str]:
    """The table as it is now."""
    return lambda: kind.render(results.load(kind.bench))


def commands() -> str:
    """Every bench: its command, and the first sentence of its help."""
    lines = [("command", "what it measures")]
    for path in sorted(BENCH_DIR.glob("*.py")):
        what, command, *_ = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")
        first = command.strip().splitlines()[0].partition("     #")[0]
        lines.append((f"`{first.strip()}`", " ".join(what.split())))
    return table(lines)


def recipes() -> str:
    """Every recipe that ships with the package: its name, and the first comment of its file."""
    lines = [("recipe", "what it is")]
    for path in sorted(BUILT_IN_DIR.glob("*.toml")):
        said = itertools.takewhile(lambda line: line.startswith("#"), path.read_text("utf-8").splitlines())
        first, _, _ = " ".join(line.lstrip("# ") for line in said).partition(". ")
        lines.append((f"`{path.stem}`", first.rstrip(".")))
    return table(lines)


TABLES: dict[str, Callable[[], str]] = {
    **{
        name: written(kind)
        for name, kind in {**data.TABLES, **island.TABLES, **post.TABLES, **swarm.TABLES}.items()
    },
    "island summary": island.summary,
    "highlights": swarm.highlights,
    "benches": commands,
    "recipe": reference,
    "built-in recipes": recipes,
}
