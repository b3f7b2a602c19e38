"""The parts of a view as a page gets them: encoded and compressed once, for everybody who looks."""

import gzip
import time

import msgspec

from atoll.dashboard import shown
from atoll.dashboard.source import Source
from atoll.dashboard.view import Name

COMPRESSION = 5


class Part(msgspec.Struct, frozen=True):
    """A part in one version."""

    version: int
    plain: bytes  # JSON
    packed: bytes  # the same by gzip


def encoded(source: Source, name: Name) -> bytes:
    """One part of a view, now, as JSON."""
    reducer = source.reducer
    match name:
        case "about":
            return msgspec.json.encode(shown.about(reducer, source.complaint))
        case "now":
            return msgspec.json.encode(shown.now(reducer, time.time(), source.reading))
        case "islands":
            return msgspec.json.encode(shown.islands(reducer))
        case "steps":
            return msgspec.json.encode(shown.steps(reducer))
        case "story":
            return msgspec.json.encode(shown.story(reducer))


def pack(data: bytes) -> bytes:
    """By gzip; the same bytes for the same data."""
    return gzip.compress(data, COMPRESSION, mtime=0)
