"""Start: from when on outer steps may begin in a reign."""

from atoll.coordinator.members import Members


class Start:
    """Whether as many islands were ready at once as the operator waits for, so that no friend comes late."""

    def __init__(self, members: Members, num_awaited: int) -> None:
        self.num_awaited = num_awaited
        self.has_been = False
        self._members = members

    def num_ready(self, head: int) -> int:
        """How many islands hold state `head`; a relay is none."""
        return sum(not member.relay for member in self._members.ready(head))

    def may_begin(self, head: int) -> bool:
        """Whether the step that begins from state `head` may be planned."""
        self.has_been = self.has_been or self.num_ready(head) >= self.num_awaited
        return self.has_been
