"""All planes, doors and messages that are found in the code, and a service on which anything may travel."""

import importlib
import pkgutil
from functools import reduce
from operator import or_
from types import ModuleType
from typing import Any

from atoll.swarm import messages
from atoll.swarm.identity import COORDINATOR, OPERATOR
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message
from atoll.swarm.services import MEMBERS, Limit, Service

PLANES: list[ModuleType] = [
    importlib.import_module(f"{messages.__name__}.{file.name}")
    for file in pkgutil.iter_modules(messages.__path__)
    if file.name != "door"
]


def _below(base: type[Message]) -> list[type[Message]]:
    return [kind for child in base.__subclasses__() for kind in (child, *_below(child))]


MESSAGES = [kind for kind in _below(Message) if kind.__module__.startswith("atoll.swarm.")]  # records too
DOORS: dict[str, Door[Any]] = {
    f"{plane.__name__.removeprefix(messages.__name__ + '.')}.{name}": door
    for plane in PLANES
    for name, door in vars(plane).items()
    if isinstance(door, Door)
}
ANYTHING: Door[Any] = Door("a test", "a test", reduce(or_, MESSAGES))
ECHO = Service(
    name="Echo",
    server_door=ANYTHING,
    caller_door=ANYTHING,
    callers=MEMBERS | {COORDINATOR, OPERATOR, ""},
    limit=Limit(100),
)
