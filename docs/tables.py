"""Writes the measured tables into these pages and the README, from bench/results/*.json.

    python docs/tables.py            # write them
    python docs/tables.py --check    # exit status 1 where a page differs from what was measured

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; what it shows is said in docs/measured/.
"""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

DOCS_DIR = Path(__file__).resolve().parent
for place in (DOCS_DIR, DOCS_DIR.parent / "bench"):
    sys.path.append(str(place))
from measured import TABLES  # noqa: E402

PLACE = re.compile(r"(<!-- table: (?P<name>[^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def renewed(page: str) -> str:
    """A page with every table as it is now. Raises KeyError for a table that is not in measured/."""
    return PLACE.sub(lambda found: f"{found[1]}\n{TABLES[found['name']]()}\n\n{found[3]}", page)


def pages() -> list[Path]:
    """Where measured tables may stand: these pages, and the README."""
    return [DOCS_DIR.parent / "README.md", *sorted(DOCS_DIR.glob("*.md"))]


def stale(paths: Iterable[Path]) -> dict[Path, str]:
    """Those that differ from what was measured, and what they should be."""
    texts = {path: path.read_text("utf-8") for path in paths}
    return {path: new for path, text in texts.items() if (new := renewed(text)) != text}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    found = stale(pages())
    for path, text in found.items():
        if check:
            print(f"{path}: differs from bench/results; run python docs/tables.py", file=sys.stderr)
        else:
            path.write_text(text, "utf-8")
            print(f"wrote {path}")
    return int(check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
