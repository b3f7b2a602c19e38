"""A door: the receiving end of a stream or of a socket, through which only the messages of its plane come."""

from typing import Any, Generic, TypeVar, get_args

import msgspec

from atoll.swarm.records import Message

M = TypeVar("M", bound=Message, covariant=True)


class Door(Generic[M]):
    """Decodes the messages that one kind of member may receive from another, and nothing else."""

    def __init__(self, reader: str, writer: str, messages: Any) -> None:
        """`messages` is M: a message type, or a union of them. `reader` and `writer` are names for people."""
        self.messages: tuple[type[Message], ...] = get_args(messages) or (messages,)
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(messages)

    def decode(self, data: bytes | memoryview) -> M:
        """The message that `data` is. Raises ValueError, with a sentence, unless it is one of this door's."""
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            reason = f"{self._reader} takes no such message from {self._writer}: {error}"
            raise ValueError(reason) from error
