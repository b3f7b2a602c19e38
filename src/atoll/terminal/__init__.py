"""How atoll looks in a terminal.

`Terminal` prints lines, and keeps at most one picture below them up to date. The speakers turn what happens
into lines: `Host` from a run's events, `Joiner` and `Relay` from what an agent says of the run, `Preparing`
and `Evolving` from the progress of `atoll prepare` and `evolve`. `status.py` and `picture.py` show a run at
one moment. What strangers wrote reaches the terminal through `Terminal` and `words.visible` only, and never
as markup.
"""

from atoll.terminal.doctor import findings_table
from atoll.terminal.evolving import Evolving
from atoll.terminal.figures import clock, duration, human, spark
from atoll.terminal.host import Host
from atoll.terminal.joiner import Joiner
from atoll.terminal.keys import Keys
from atoll.terminal.names import Names
from atoll.terminal.picture import Picture
from atoll.terminal.preparing import Preparing
from atoll.terminal.relay import Relay
from atoll.terminal.status import status_table
from atoll.terminal.terminal import Terminal
from atoll.terminal.watching import Watch

__all__ = [
    "Evolving",
    "Host",
    "Joiner",
    "Keys",
    "Names",
    "Picture",
    "Preparing",
    "Relay",
    "Terminal",
    "Watch",
    "clock",
    "duration",
    "findings_table",
    "human",
    "spark",
    "status_table",
]
