"""What a host tells who asks before joining, and what joining says before it starts."""

import asyncio
import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from unit.machines import CPU, NEEDS, NETWORK, SYSTEM, asked, changed
from worlds.swarm import Swarm

import examples
from atoll.coordinator.requests import Requests
from atoll.doctor.accelerator import Accelerators
from atoll.doctor.joining import Joining
from atoll.doctor.link import MEASURED_MBIT, measured_link
from atoll.doctor.offer import Seen, described
from atoll.metrics import Rates
from atoll.recipe import Island
from atoll.run.contributed import contributed
from atoll.run.directory import RunDir
from atoll.swarm import messages as m
from atoll.swarm.address import Address
from atoll.swarm.identity import Ticket
from atoll.swarm.probe import FRAME_BYTES, NUM_FRAMES, send_filler, take_filler
from atoll.swarm.transport import TransportError, within
from atoll.terminal import Joiner, Terminal


@pytest.fixture
def run(tmp_path):
    return Swarm(tmp_path / "swarm", num_outer_steps=10).run


# -------------------------------------------------------------------------------------- asking the run's host
class Stranger:
    """The coordinator's end of a stranger's line."""

    def __init__(self, message: m.Look, host: str = "127.0.0.1") -> None:
        self.peer, self.peer_host = "", host
        self._message = message
        self.answers: list[object] = []

    async def receive(self, seconds: float) -> tuple[object, memoryview]:
        return self._message, memoryview(b"")

    async def send(self, message: object, bulk: bytes = b"") -> None:
        self.answers.append(message)


def test_a_host_tells_who_has_a_ticket_what_its_run_is_and_uses_nothing_up(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=3)
        await swarm.start_coordinator()
        requests = Requests(swarm.coordinator, swarm.board)
        secret = Ticket.parse(requests.ticket(1, 1.0)).secret
        for _ in range(3):
            stranger = Stranger(m.Look(secret))
            await requests.enroll(stranger)
            (answer,) = stranger.answers
            assert isinstance(answer, m.Looked)
            assert (answer.run, answer.unreached) == (swarm.run, None)
            assert answer.overview.num_outer_steps == 3
            assert answer.self_test == swarm.rules.self_test
        swarm.store.redeem(secret, "island", "", b"certificate")
        stranger = Stranger(m.Look(secret))
        await requests.enroll(stranger)
        assert isinstance(stranger.answers[0], m.TicketRefused)
        assert "used up" in stranger.answers[0].reason
        await swarm.stop()

    asyncio.run(main())


def test_a_host_tries_who_asks_at_its_own_address_and_nowhere_else(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=3)
        await swarm.start_coordinator()
        requests = Requests(swarm.coordinator, swarm.board)
        secret = Ticket.parse(requests.ticket(1, 1.0)).secret
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for expected in ("", "refused"):
            stranger = Stranger(m.Look(secret, port))
            await requests.enroll(stranger)
            said = stranger.answers[0].unreached
            assert said == expected if not expected else expected in said
            server.close()
            await server.wait_closed()
        await swarm.stop()

    asyncio.run(main())


class Line:
    """One end of a stranger's line in memory; `close` ends both."""

    def __init__(self, there: asyncio.Queue, here: asyncio.Queue, num_frames: int = 1 << 30) -> None:
        self.peer, self.peer_host = "", "203.0.113.7"
        self._there, self._here, self._left = there, here, num_frames
        self.num_taken = 0

    async def send(self, message, bulk=b"") -> None:
        self._there.put_nowait((message, bulk))
        await asyncio.sleep(0)

    async def receive(self, seconds: float):
        self.num_taken += 1
        if self.num_taken > self._left:
            raise TransportError("the other end closed the stream")
        return await within(seconds, self._here.get(), "the other end")

    async def close(self) -> None: ...


def a_line(**options) -> tuple[Line, Line]:
    up, down = asyncio.Queue(), asyncio.Queue()
    return Line(up, down, **options), Line(down, up)


async def probed(requests: Requests, secret: str) -> tuple[object, m.Probed | None]:
    """(what the host answers to a probe, what comes of its filler)."""
    stranger, host = a_line()
    await stranger.send(m.Probe(secret))
    serving = asyncio.create_task(requests.enroll(host))
    sending = asyncio.create_task(send_filler(stranger))
    answer, _ = await stranger.receive(10.0)
    down = await take_filler(stranger) if isinstance(answer, m.Probed) else None
    await asyncio.gather(serving, sending)
    return answer, down


def test_a_host_measures_the_line_of_who_has_a_ticket_and_of_nobody_else(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=3)
        await swarm.start_coordinator()
        requests = Requests(swarm.coordinator, swarm.board)
        secret = Ticket.parse(requests.ticket(1, 1.0)).secret
        up, down = await probed(requests, secret)
        assert isinstance(up, m.Probed)
        assert down is not None
        for came in (up, down):
            assert came.num_bytes == (NUM_FRAMES - 1 - (NUM_FRAMES - 1) // 2) * FRAME_BYTES
        refused, nothing = await probed(requests, "another")
        assert isinstance(refused, m.TicketRefused)
        assert nothing is None
        await swarm.stop()

    asyncio.run(main())


def test_who_asks_for_too_many_probes_is_told_that_the_host_is_busy(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("atoll.coordinator.probes.WAIT_SECONDS", 0.05)
    monkeypatch.setattr("atoll.coordinator.probes.BURST", 2)

    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=3)
        await swarm.start_coordinator()
        requests = Requests(swarm.coordinator, swarm.board)
        secret = Ticket.parse(requests.ticket(1, 1.0)).secret
        answers = [(await probed(requests, secret))[0] for _ in range(3)]
        assert [type(answer) for answer in answers] == [m.Probed, m.Probed, m.TicketRefused]
        assert "others" in answers[-1].reason
        await swarm.stop()

    asyncio.run(main())


def test_filler_that_stops_coming_is_measured_by_what_came(monkeypatch) -> None:
    async def main(num_frames: int) -> m.Probed:
        here, there = a_line(num_frames=num_frames)
        await send_filler(there)
        return await take_filler(here)

    came = asyncio.run(main(1000))
    assert came.num_bytes > 0
    with pytest.raises(TransportError):
        asyncio.run(main(1))
    monkeypatch.setattr("atoll.swarm.probe.SECONDS", -1.0)  # nothing leaves in that time
    with pytest.raises(TransportError, match="too slow"):
        asyncio.run(main(1000))


def test_a_measured_line_says_to_whom_and_no_more_than_it_can_tell(run) -> None:
    slow = changed(asked(run), rates=Rates(up_bytes_per_second=2.5e6, down_bytes_per_second=12.5e6))
    found = measured_link(slow)
    assert found is not None
    assert found.text == "20 Mbit/s up and 100 down, as measured just now to the run's host"
    assert f"link: {found.text}" in offered(run, link=found)
    fast = measured_link(
        changed(asked(run), rates=Rates(up_bytes_per_second=1e10, down_bytes_per_second=1e7))
    )
    assert fast is not None
    assert (fast.up, fast.down) == (MEASURED_MBIT, 80.0)
    assert "the most that is told" in fast.text
    assert measured_link(asked(run)) is None


# --------------------------------------------------------------------------------------------- before joining
JOINING = Joining(
    ticket="",
    run_dir=Path("runs/reef"),
    member_dir=None,
    listen=Address("0.0.0.0", 0),
    relay=False,
    metered=False,
    own=Island(),
)


def offered(run, joining: Joining = JOINING, devices: Accelerators | None = None, **seen) -> str:
    plain = {"needs": NEEDS, "has": SYSTEM, "net": NETWORK, "asked": asked(run, unreached=""), "link": None}
    devices = devices or Accelerators(torch=CPU)
    return "\n".join(described(joining, devices, Seen(**{**plain, **seen})))


def test_joining_says_what_it_gives_and_what_that_takes(run) -> None:
    text = offered(run)
    assert "gives: the CPU with 8 cores; 32 GB of memory, 100 GB of disk free" in text
    assert "the host has reached it" in text
    assert "takes: 92 GB of disk and up to 1 GB of data by its end; 14 GB of memory" in text
    assert (
        "joining receives 6.7 GB; 1 GB to 1.5 GB in each outer step, each way, at most 130 GB a day" in text
    )


def test_joining_says_what_is_lacking(run) -> None:
    text = offered(run, has=changed(SYSTEM, disk_bytes=10**9), devices=Accelerators(num_nvidia=1, torch=CPU))
    assert "lacking, disk:" in text
    assert "note, torch: this machine has an NVIDIA GPU" in text


def test_a_relay_and_caps_and_metered_links_are_told_as_such(run) -> None:
    relay = changed(JOINING, relay=True)
    assert "gives: a relay, without training" in offered(run, relay)
    assert "for the trainer" not in offered(run, relay)
    capped = changed(JOINING, own=Island(upload_mbit=20.0, threads=2), metered=True, listen=None)
    text = offered(run, capped)
    assert "at most 20 Mbit/s up are used; others get no state and no data here" in text
    assert "with 2 cores" in text
    assert "only dials out (--dial-only)" in text


# ------------------------------------------------------------------------------------------------ and leaving
def test_who_leaves_is_told_what_was_done_and_what_is_committed(monkeypatch, tmp_path) -> None:
    file = io.StringIO()
    speaker = Joiner(Terminal(console=Console(file=file, width=200)))
    plan, metrics = examples.plan(), SimpleNamespace(loss=5.0)
    for number in (1, 2):
        speaker.inner_step(plan, number, metrics)
    monkeypatch.setattr("atoll.run.contributed.run_status", lambda run_dir: None)
    unknown = contributed(RunDir(tmp_path), "a" * 16)
    assert "is not known here: the run's host does not answer" in unknown
    speaker.left(unknown)
    assert file.getvalue().startswith("left; 2 inner steps were done here; how much of it is committed")
    island = SimpleNamespace(island="a" * 16, committed_tokens=250)
    status = SimpleNamespace(islands=[island], committed_tokens=1000)
    monkeypatch.setattr("atoll.run.contributed.run_status", lambda run_dir: status)
    assert "250 tokens, 25.0% of the run's" in contributed(RunDir(tmp_path), "a" * 16)
    assert "0 tokens; the samples" in contributed(RunDir(tmp_path), "b" * 16)
