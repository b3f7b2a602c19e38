"""Prepared data at a URL: a directory that `atoll prepare` wrote, behind a web server or on a shared disk."""

import time
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import Request, url2pathname, urlopen

from atoll.errors import UserError

DEADLINE_SECONDS = 30.0  # for one range
READ_BYTES = 1 << 16


def read_range(url: str, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of the file at a URL, or fewer where the file ends.

    Raises UserError where they cannot be read, or the server takes longer than DEADLINE_SECONDS.
    """
    try:
        if url.startswith("file:"):
            with Path(url2pathname(urlparse(url).path)).open("rb") as file:
                file.seek(start)
                return file.read(stop - start)
        return _read_http(url, start, stop)
    except (OSError, HTTPException) as error:  # urllib's own are OSErrors
        raise UserError(f"{url} cannot be read: {str(error) or type(error).__name__}") from error


def _read_http(url: str, start: int, stop: int) -> bytes:
    deadline = time.monotonic() + DEADLINE_SECONDS
    request = Request(url, headers={"Range": f"bytes={start}-{stop - 1}"})
    data = bytearray()
    with urlopen(request, timeout=DEADLINE_SECONDS) as answer:
        if answer.status != 206 and start:  # then the answer is the whole file, from byte 0
            raise OSError("its server gives whole files only, no ranges")
        while len(data) < stop - start and (part := answer.read1(min(READ_BYTES, stop - start - len(data)))):
            data += part
            if time.monotonic() > deadline:
                raise OSError(f"not within {DEADLINE_SECONDS:.0f} s")
    return bytes(data)
