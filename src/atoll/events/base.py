"""What all events have in common."""

from typing import ClassVar

import msgspec


class Occurrence(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Base of every event. Each kind adds its own fields, and `text`: one sentence about it for people."""

    # Routine is what happens in every outer step. Everything else is notable: `atoll status` shows the last.
    routine: ClassVar[bool] = False

    time: float = 0.0  # seconds since the epoch, set when it is written; 0: not written yet
    step: int = -1  # the outer step that was open; -1: it belongs to none
    island: str = ""  # whom it is about; "": no single island

    @property
    def kind(self) -> str:
        """The name of its kind, as it stands in the file."""
        return str(self.__struct_config__.tag)
