"""The doctor's table: what was found, and under each thing that can be mended, how."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from atoll.words import visible

MARKS = {
    "right": ("ok", "green"),
    "note": ("note", "yellow"),
    "unknown": ("?", "dim"),
    "wrong": ("WRONG", "red"),
}


def findings_table(findings: Iterable[Any]) -> Table:
    """A row for each `doctor.Finding`; below a row what to do, where something is to be done."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mark, style = MARKS[finding.grade]
        about = Text(visible(finding.about))
        table.add_row(Text(mark, style=style), about, Text(visible(finding.found)))
        if finding.do:
            table.add_row("", "", Text(f"-> {visible(finding.do)}", style="bold"))
    return table
