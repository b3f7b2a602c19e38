"""Of several addresses the first that answers is used; names are resolved, and nothing is waited for long."""

import asyncio
import socket

import pytest

from atoll.swarm import dial
from atoll.swarm.address import Address
from atoll.swarm.dial import certificate_at, first_to_answer, resolve
from atoll.swarm.transport import TransportError


class Dialled:
    """Candidates that answer, fail or hang, and what became of their answers."""

    def __init__(self, **what: str) -> None:
        self.what = what
        self.begun: list[str] = []
        self.discarded: list[str] = []
        self.cancelled: list[str] = []

    async def dial(self, name: str) -> str:
        self.begun.append(name)
        try:
            if self.what[name] == "hangs":
                await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        if self.what[name] == "fails":
            raise TransportError(f"{name} fails")
        return f"{name} answers"

    async def discard(self, answer: str) -> None:
        self.discarded.append(answer)

    def first(self) -> tuple[str, str]:
        return asyncio.run(first_to_answer(list(self.what), self.dial, self.discard))


@pytest.fixture(autouse=True)
def hurry(monkeypatch) -> None:
    monkeypatch.setattr(dial, "STAGGER_SECONDS", 0.001)


def test_the_first_that_answers_is_taken_and_no_other_is_dialled() -> None:
    dialled = Dialled(a="answers", b="answers")
    assert dialled.first() == ("a", "a answers")
    assert dialled.begun == ["a"]


def test_one_that_fails_makes_room_for_the_next() -> None:
    assert Dialled(a="fails", b="answers").first() == ("b", "b answers")


def test_one_that_hangs_is_not_waited_for_and_then_given_up() -> None:
    dialled = Dialled(a="hangs", b="hangs", c="answers")
    assert dialled.first() == ("c", "c answers")
    assert sorted(dialled.cancelled) == ["a", "b"]


def test_an_answer_that_comes_too_late_is_discarded() -> None:
    async def main() -> list[str]:
        both = asyncio.Event()
        discarded: list[str] = []

        async def open_together(name: str) -> str:
            if name == "b":
                both.set()
            await both.wait()
            return name

        async def discard(name: str) -> None:
            discarded.append(name)

        found, _ = await first_to_answer(["a", "b"], open_together, discard)
        return [found, *discarded]

    assert sorted(asyncio.run(main())) == ["a", "b"]


def test_if_none_answers_each_reason_is_told() -> None:
    with pytest.raises(TransportError, match="a fails; b fails"):
        Dialled(a="fails", b="fails").first()
    with pytest.raises(TransportError, match="no address"):
        Dialled().first()


def test_an_address_resolves_to_itself() -> None:
    assert asyncio.run(resolve("127.0.0.1")) == ["127.0.0.1"]
    assert asyncio.run(resolve("::1")) == ["::1"]


def test_a_name_that_does_not_exist_is_named(monkeypatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(TransportError, match=r"host\.example cannot be resolved \(Name or service"):
        asyncio.run(resolve("host.example"))


def test_a_name_service_that_is_silent_is_given_up(monkeypatch) -> None:
    import threading

    ends = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ends.wait(10) and [])
    monkeypatch.setattr(dial, "DIAL_SECONDS", 0.01)
    with pytest.raises(TransportError, match=r"asked for host\.example: no answer within"):
        asyncio.run(resolve("host.example"))  # and the end of the loop does not wait for the thread
    ends.set()


def test_of_a_name_with_several_addresses_the_one_that_answers_is_used(monkeypatch) -> None:
    async def addresses(_: str) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    monkeypatch.setattr(dial, "resolve", addresses)

    async def main() -> None:
        async def noise(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"this is no TLS")
            writer.close()

        async with await asyncio.start_server(noise, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(TransportError) as error:
                await certificate_at(Address("host.example", port))
        assert f"127.0.0.2:{port}: connection refused" in str(error.value)
        assert f"127.0.0.1:{port}: what answers there speaks no TLS" in str(error.value)

    asyncio.run(main())
