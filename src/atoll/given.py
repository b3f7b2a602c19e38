"""Files that people give: where a path leads, and text that is what it seems to be."""

import errno
import os
from pathlib import Path

from atoll.errors import UserError

POINTER = b"version https://git-lfs.github.com/spec/"  # how a file begins that Git LFS has not fetched
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # of UTF-8
WIDE_MARKS = {  # longest first: that of UTF-32 begins with that of UTF-16
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
HEAD_BYTES = len(POINTER)  # the beginning of a file that says all of this
_REFUSALS = {
    errno.EACCES: "this user may not use it; change its permissions, or give another path",
    errno.EPERM: "this user may not use it; change its permissions, or give another path",
    errno.EROFS: "this file system is read-only; give another path",
    errno.ENAMETOOLONG: "this name is too long for the file system; give another",
    errno.ENOTDIR: "a part of this path is a file, not a directory; give another path",
    errno.EISDIR: "a directory is where a file should be; give another path",
    errno.ELOOP: "a part of this path is a link that leads to itself; mend or remove it",
}


def expanded(path: str) -> Path:
    """The path that a user means: `~` and `~name` are homes. Raises UserError for no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{path}: this machine knows no such home directory; write the path in full"
        ) from error


def refuse_pointer(path: Path, head: bytes | None = None) -> None:
    """Raises UserError where a file, which begins with `head`, only says where Git LFS keeps the real one.

    Without `head` the file is looked at; one that is not there is no pointer. Raises OSError where it cannot
    be read.
    """
    if head is None and path.is_file():
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    if head and head.startswith(POINTER):
        raise UserError(
            f"{named(path)}: a Git LFS pointer in the place of the file; fetch the file with `git lfs pull`"
        )


def wide_encoding(head: bytes) -> str | None:
    """The name of the encoding other than UTF-8 that a byte-order mark at the head of a file tells of."""
    return next((name for mark, name in WIDE_MARKS.items() if head.startswith(mark)), None)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without its byte-order mark.

    Raises UserError, naming the file, where it cannot be read, is no UTF-8 or is a pointer of Git LFS.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{named(path)}: cannot be read: {error.strerror}") from error
    refuse_pointer(path, data)
    if encoding := wide_encoding(data):
        raise UserError(f"{named(path)}: {encoding}, as its byte-order mark says; save it as UTF-8")
    try:
        return data.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{named(path)}: not UTF-8 at byte {error.start}; save it as UTF-8") from error


def refusal(error: OSError) -> UserError | None:
    """A sentence about the path that an error names, or None where it is not the path that is at fault.

    It says neither that the path was to be read nor that it was to be written: whoever knows that says more.
    """
    if error.filename is None or error.errno not in _REFUSALS:
        return None
    return UserError(f"{named(error.filename)}: {_REFUSALS[error.errno]}")


def named(path: str | Path) -> str:
    """A path as it can be shown and kept: bytes of a name that are not UTF-8 become `\\xNN`."""
    return os.fsencode(path).decode(errors="backslashreplace")


def is_utf_8(text: str) -> bool:
    """Whether a text that the system gave, as a name or an argument, was UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
