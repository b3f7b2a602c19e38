"""The tree in the README, from the first sentence of every module: `python docs/tree.py` rewrites it;
`--check` compares.
"""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE, README = ROOT / "src" / "atoll", ROOT / "README.md"
HEADING = "## The tree\n\n```\n"
ORDER = [
    "",
    "model",
    "data",
    "swarm",
    "coordinator",
    "agent",
    "island",
    "publish",
    "simulate",
]  # from below upwards
BESIDES = """\
  recipes/                 runs as TOML files
  sample/                  public-domain books, the demo's text
bench/  docs/  examples/  tests/
"""
MAX_WIDTH = 100


def sentence(path: Path) -> str:
    """The first sentence of a module's docstring, cut to MAX_WIDTH."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
    text = text.split(". ")[0].rstrip(".").replace("`", "")
    return text if len(text) <= MAX_WIDTH else text[: MAX_WIDTH - 2].rsplit(" ", 1)[0] + " …"


def modules() -> dict[str, list[Path]]:
    """Python files by folder: what git tracks, or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src/atoll/*.py"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders: dict[str, list[Path]] = {}
    for path in sorted(ROOT / name for name in set(names)):
        folder = path.parent.relative_to(SOURCE).as_posix().removeprefix(".")
        if path.exists() and (path.name != "__init__.py" or not folder):
            folders.setdefault(folder, []).append(path)
    return folders


def tree() -> str:
    """The section's body."""
    folders = modules()
    lines = ["src/atoll/"]
    for folder in [*ORDER, *sorted(folders.keys() - set(ORDER))]:
        if folder and folder in folders:
            lines.append(f"  {folder}/")
        indent = "    " if folder else "  "
        lines += [f"{indent}{path.name}".ljust(27) + sentence(path) for path in folders.get(folder, [])]
    return "\n".join(lines) + "\n" + BESIDES


def main() -> int:
    """Exit status 1 with `--check` when the README is stale, or when it has no such section."""
    before, heading, rest = README.read_text().partition(HEADING)
    old, fence, after = rest.partition("```\n")
    if not heading or not fence:
        print(f"{README}: no section that begins with {HEADING!r}", file=sys.stderr)
        return 1
    new = tree()
    if "--check" in sys.argv[1:]:
        if old != new:
            print(f"{README}: the tree is stale; run python docs/tree.py", file=sys.stderr)
        return int(old != new)
    README.write_text(before + HEADING + new + fence + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
