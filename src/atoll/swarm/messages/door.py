"""A door: the receiving end of a stream or of a socket, through which only the messages of its plane come."""

from typing import Any, Generic, TypeVar, get_args

import msgspec

from atoll.swarm.records import Message

MAX_BYTES = 4 << 20  # of a message: a frame is not larger

M = TypeVar("M", bound=Message, covariant=True)


class Door(Generic[M]):
    """Decodes the messages that one kind of member may receive from another, and nothing else."""

    def __init__(self, reader: str, writer: str, messages: Any, max_bytes: int = MAX_BYTES) -> None:
        """`messages` is M: a message type, or a union of them, of at most `max_bytes` each.

        `reader` and `writer` are names for people.
        """
        self.messages: tuple[type[Message], ...] = get_args(messages) or (messages,)
        self._max_bytes = max_bytes
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(messages)

    def decode(self, data: bytes | memoryview) -> M:
        """The message that `data` is. Raises ValueError, with a sentence, unless it is one of this door's."""
        if len(data) > self._max_bytes:  # before anything of it is decoded
            size = f"{len(data)} bytes, where at most {self._max_bytes} may come"
            raise ValueError(f"{self._reader} takes no such message from {self._writer}: {size}")
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            reason = f"{self._reader} takes no such message from {self._writer}: {error}"
            raise ValueError(reason) from error
