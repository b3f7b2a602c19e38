"""One line of the doctor's table."""

from collections.abc import Iterable
from typing import Literal

import msgspec

# right: nothing to do. note: it works, and could be better. unknown: it cannot be known here, or not yet.
# wrong: it prevents joining, or would end it.
Grade = Literal["right", "note", "unknown", "wrong"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about one thing."""

    about: str  # in a word or two
    grade: Grade
    found: str  # a sentence without a full stop
    do: str = ""  # what to do about it; "": nothing


def prevents(findings: Iterable[Finding]) -> bool:
    """Whether something was found that prevents joining."""
    return any(finding.grade == "wrong" for finding in findings)
