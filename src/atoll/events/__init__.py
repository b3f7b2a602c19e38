"""What happened in a run, as typed events: who came and went, what each outer step met, who reigned.

The coordinator reports them; `atoll.events.log` writes them to the events file, and gives them back.
docs/events.md describes every kind, its fields, and the file.
"""

from atoll.events.alert import Alert
from atoll.events.membership import (
    Answered,
    Enrolled,
    Evicted,
    Frozen,
    Joined,
    Left,
    Readmitted,
    Refused,
    Thawed,
    Unreachable,
)
from atoll.events.reign import Behind, Deposed, Imported, ReignBegan, Rewound
from atoll.events.step import (
    AttemptClosed,
    AttemptOpened,
    Clipped,
    Committed,
    Evaluated,
    Excluded,
    Fault,
    Finished,
    Ready,
    Recovered,
    Resumed,
    Stalled,
    Thin,
    Unaudited,
    Unequal,
)

Event = (
    Enrolled
    | Joined
    | Refused
    | Unreachable
    | Answered
    | Frozen
    | Thawed
    | Left
    | Evicted
    | Readmitted
    | Ready
    | Recovered
    | Unequal
    | AttemptOpened
    | Fault
    | AttemptClosed
    | Clipped
    | Excluded
    | Stalled
    | Resumed
    | Thin
    | Unaudited
    | Committed
    | Evaluated
    | Finished
    | Alert
    | ReignBegan
    | Deposed
    | Rewound
    | Behind
    | Imported
)
