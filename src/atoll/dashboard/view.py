"""What the page shows, as structs: the parts of a view of a run at one moment.

All of it is bounded, whatever the run is: so many points, rows and lines at most. A figure that is not known
is None, never 0. Words of strangers are one line without control characters; the page sets them as text.
"""

from typing import Literal

import msgspec

Name = Literal["about", "now", "islands", "steps", "story"]  # of the parts of a view
NAMES: tuple[Name, ...] = ("about", "now", "islands", "steps", "story")
MAX_POINTS = 600  # of a curve; more steps than that are put together
MAX_RECENT = 48  # outer steps of which the time is shown by part
MAX_ISLANDS = 1_000
MAX_MARKS = 300
MAX_LINES = 250  # of the timeline
MAX_CONTRIBUTORS = 200
MAX_EVALUATIONS = 200
MAX_HISTORY = 120  # points of one island's curve
MAX_ISLAND_LINES = 60

Figures = list[float | None]


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is, by its recipe and its state 0, as far as these are here."""

    name: str
    run_id: str = ""
    num_outer_steps: int | None = None
    inner_steps: int | None = None  # of an outer step
    tokens_per_inner_step: int | None = None  # of one island
    num_parameters: int | None = None
    codec: str = ""
    mixture: list[dict[str, float]] = []  # planned: of each stage, the share of each source
    until: list[int] = []  # of each stage, its last inner step
    complaint: str = ""  # what of the events file could not be read
    first_step: int | None = None  # whose commit the file tells of; later than 0: an earlier file tells more


class Alerted(msgspec.Struct, frozen=True, kw_only=True):
    """Something is wrong now that a person should look at."""

    since: float
    what: str
    island: str
    text: str


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """How the run is at this moment."""

    time: float  # of this view
    newest: float | None  # time of the newest event
    reading: float | None  # share of the events file that is read; None: all
    hosted: bool | None  # a coordinator answers; None: nobody has been asked yet
    finished: bool
    stall: str
    step: int  # outer steps that are committed
    attempt: int  # of the open step; 0: none yet
    num_alive: int | None  # islands, without relays
    num_taking_part: int | None  # in the open step
    num_committed: int | None  # whose work is in the newest update
    num_relays: int
    tokens: int  # committed
    open_tokens: int | None  # trained on in the open step so far
    tokens_per_second: float | None
    loss: float | None
    committed_at: float | None
    seconds_per_step: float | None  # median of the last steps
    remaining_seconds: float | None  # by that
    sent_bytes: float | None  # by participants, for their updates
    saved: float | None  # how many times more data-parallel training would have sent
    alerts: list[Alerted]


class IslandRow(msgspec.Struct, frozen=True, kw_only=True):
    """One island. Alive, taking part and committed are three things, each with its reason."""

    island: str  # id
    name: str
    contributor: str
    place: str
    at: tuple[float, float] | None  # on the map (atlas.py); None: the place is not told, or no city known
    link: str  # a page about the contributor; "": none
    relay: bool
    alive: bool | None  # None: nobody can say now
    alive_why: str
    since: float | None  # since when it is alive, or is not
    taking_part: bool | None
    taking_part_why: str
    committed: bool
    committed_why: str
    tokens: int
    num_commits: int
    num_joins: int
    inner_step: int | None
    planned: int | None
    tokens_per_second: float | None
    loss: float | None
    heldout_loss: float | None
    utilisation: float | None
    norm: float | None  # of its newest contribution
    up_mbit: float | None
    down_mbit: float | None
    addresses: list[str]
    note: str


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A moment that is marked in the curves."""

    time: float
    tokens: int  # committed by then
    kind: str  # join, death, recovery, reign or rewind
    text: str


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """Curves: equally long columns, a point for one outer step or for several that follow one another."""

    stride: float  # outer steps of a point
    step: list[int]  # the last of each point
    time: Figures  # when it was committed
    tokens: Figures  # committed by then
    loss: Figures
    low: Figures  # of a point's losses
    high: Figures
    heldout: Figures
    participants: Figures
    there: Figures  # islands that could have taken part
    as_original: Figures  # computing, of computing and exchanging
    end_to_end: Figures  # computing, of all the time of the islands that were there
    seconds: Figures  # from commit to commit
    saved: Figures
    norm: Figures  # of the update
    cosine: Figures  # of the update to the momentum of those before it
    norm_low: Figures  # of contributions
    norm_high: Figures
    marks: list[Mark]
    recent: "Recent"


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """The last outer steps one by one: what their seconds went into, in the mean of their participants."""

    step: list[int]
    computing: Figures
    sending: Figures  # until the payload had left
    reducing: Figures  # the rest, until all slices were reduced
    holding: Figures
    waiting: Figures  # what is left of the time from commit to commit: for slower islands, and for the start


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One event in words."""

    time: float
    kind: str
    island: str
    text: str


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What a member says that a state reaches."""

    time: float
    step: int
    scores: dict[str, tuple[float, float | None]]
    heldout_losses: dict[str, float]
    samples: list[str]


class Contributor(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets the credit for some islands."""

    name: str
    is_named: bool  # else `name` is an island's id
    num_islands: int
    tokens: int


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, and who gave what."""

    lines: list[Line]  # newest first
    evaluations: list[Evaluation]  # newest first
    contributors: list[Contributor]  # most tokens first
    num_contributors: int
    consumed: dict[str, int] | None  # committed tokens by source; None: not known


class History(msgspec.Struct, frozen=True, kw_only=True):
    """One island over time."""

    island: str
    step: list[int]
    time: Figures
    loss: Figures
    tokens: Figures  # by this island, up to then
    computing: Figures  # seconds of an outer step
    exchanging: Figures
    waiting: Figures
    norm: Figures
    lines: list[Line]  # newest first
