"""What people call the islands of a run: by who gets the credit, where that is one island's."""

import re

from atoll.words import visible

ID = re.compile(r"\b[0-9a-f]{16}\b")
SHORT_DIGITS = 4  # of an id, where a contributor has several islands


class Names:
    """Learns contributors, and puts them in the place of ids."""

    def __init__(self) -> None:
        self._contributors: dict[str, str] = {}

    def learn(self, island: str, contributor: str) -> None:
        self._contributors[island] = visible(contributor)

    def of(self, island: str) -> str:
        """The name of an island: `ann`, or `ann 3f9a` where she has several; its id where nobody is named."""
        contributor = self._contributors.get(island)
        if not contributor:
            return island
        is_only = list(self._contributors.values()).count(contributor) == 1
        return contributor if is_only else f"{contributor} {island[:SHORT_DIGITS]}"

    def within(self, text: str) -> str:
        """A sentence with names in the place of ids."""
        return ID.sub(lambda match: self.of(match[0]), text)
