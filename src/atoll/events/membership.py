"""Events of membership: who enrols, joins, is heard, and goes."""

from typing import ClassVar, Literal

from atoll.events.base import Occurrence


class Enrolled(Occurrence, frozen=True, kw_only=True):
    """A stranger has exchanged a ticket for a certificate."""

    routine: ClassVar[bool] = True

    contributor: str  # who gets the credit; "": nobody was named
    place: str = ""  # where it stands, as its contributor says; "": that is not told
    link: str = ""  # a page about the contributor; "": none

    @property
    def text(self) -> str:
        return f"{self.island} enrolled for {self.contributor or 'nobody named'}"


class Joined(Occurrence, frozen=True, kw_only=True):
    """An agent has dialled in, and is a member from now on."""

    contributor: str
    relay: bool

    @property
    def text(self) -> str:
        return f"{self.island} joined as {'a relay' if self.relay else 'an island'}"


class Refused(Occurrence, frozen=True, kw_only=True):
    """An island that would join was sent away, or a member's proposal does not count."""

    what: Literal["island", "proposal"]
    reason: str

    @property
    def text(self) -> str:
        what = self.island if self.what == "island" else f"a proposal of {self.island}"
        return f"{what} was refused: {self.reason}"


class Unreachable(Occurrence, frozen=True, kw_only=True):
    """Nobody answers where peers should reach a member."""

    address: str
    reason: str
    by: str = ""  # the member from outside that tried it; "": the coordinator did

    @property
    def text(self) -> str:
        if self.by:
            return (
                f"{self.by} cannot reach {self.island} at {self.address} ({self.reason}); is the port open "
                "in this machine's firewall, and does the router forward it?"
            )
        return f"{self.island} cannot be reached at {self.address} ({self.reason}): it owns nothing"


class Answered(Occurrence, frozen=True, kw_only=True):
    """A port of the host's machine was reached from outside, and so is open."""

    address: str
    by: str  # the member that has reached it

    @property
    def text(self) -> str:
        return f"{self.address} is open: {self.by} has reached it from outside"


class Frozen(Occurrence, frozen=True, kw_only=True):
    """A member's line is up, but it has said nothing for too long, and is not waited for any more."""

    silent_seconds: float

    @property
    def text(self) -> str:
        return f"{self.island} is silent for {self.silent_seconds:.1f} s; going on without it"


class Thawed(Occurrence, frozen=True, kw_only=True):
    """A frozen member says something again."""

    @property
    def text(self) -> str:
        return f"{self.island} is heard again"


class Left(Occurrence, frozen=True, kw_only=True):
    """A member's line has ended."""

    reason: str

    @property
    def text(self) -> str:
        return f"{self.island} is gone: {self.reason}"


class Evicted(Occurrence, frozen=True, kw_only=True):
    """The operator has put an island out of the run."""

    reason: str

    @property
    def text(self) -> str:
        return f"{self.island} is evicted{': ' if self.reason else ''}{self.reason}"


class Readmitted(Occurrence, frozen=True, kw_only=True):
    """The operator has taken an eviction back: the island may join again."""

    @property
    def text(self) -> str:
        return f"{self.island} is readmitted"
