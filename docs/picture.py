"""The picture in the README: what `atoll demo` prints, as an SVG.

atoll demo | tee demo.txt; python docs/picture.py demo.txt     # writes docs/demo.svg
"""

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 110
CLOCK = re.compile(r"^\d\d:\d\d:\d\d  ")
STYLES = {  # of lines that begin, or go on after an island's name, like this
    "step ": "green",
    "killing": "bold red",
    "starting": "bold yellow",
    "death": "red",
    "return": "yellow",
    "equal bits": "bold green",
    "held-out loss": "bold",
}


def main() -> None:
    lines = Path(sys.argv[1]).read_text().splitlines()
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    console.print(Text("$ atoll demo", style="bold"))
    for line in lines:
        told = CLOCK.sub("", line)
        style = next((style for start, style in STYLES.items() if told.startswith(start)), "")
        console.print(Text(line, style=style, no_wrap=False))
    target = Path(__file__).parent / "demo.svg"
    # Without rich's fonts, which a reader's browser would have to fetch from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="atoll demo"), flags=re.DOTALL)
    target.write_text(svg)
    print(f"wrote {target}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
