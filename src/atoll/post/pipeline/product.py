"""What a step has made, as it is kept beside it."""

from pathlib import Path
from typing import Any

import msgspec

from atoll.errors import UserError
from atoll.files import write_atomic

FILE_NAME = "step.json"


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """What a step has made."""

    inputs: str  # the digest of its settings, and of all that went into it
    path: str  # what `@NAME` stands for
    parts: dict[str, str] = msgspec.field(default_factory=dict[str, str])  # what `@NAME:PART` stands for
    found: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])  # figures, by name
    seconds: float = 0.0
    made_from: list[str] = msgspec.field(default_factory=list[str])  # the names of other steps

    @staticmethod
    def load(directory: Path) -> "Product | None":
        """The product kept in a step's directory; None where the step is not done."""
        try:
            return msgspec.json.decode((directory / FILE_NAME).read_bytes(), type=Product)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise UserError(
                f"{directory / FILE_NAME}: damaged; remove it, and the step is done again"
            ) from error

    def save(self, directory: Path) -> None:
        write_atomic(directory / FILE_NAME, msgspec.json.format(msgspec.json.encode(self)))

    @property
    def is_there(self) -> bool:
        """Whether all that it names still is."""
        return all(Path(path).exists() for path in (self.path, *self.parts.values()))
