"""An island without the run's data: blocks come from donors or the run's data URL, and each is checked."""

import asyncio
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest
from unit.test_data_loader import BOS, recipe_for, write_data
from worlds.swarm import Swarm

from atoll.agent.dataset import Fetching
from atoll.agent.fetch import Donors, NobodyHas
from atoll.agent.orders import Orders
from atoll.data import blocks
from atoll.data.loader import Loader
from atoll.data.partial import PartialData
from atoll.swarm import messages as m
from atoll.swarm.address import Address
from atoll.swarm.memory_transport import MemoryTransport, Network
from atoll.swarm.messages.trainer import ToAgent
from atoll.swarm.services import FETCH

LEASE = range(40, 60)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A whole data directory, with blocks of 64 bytes."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    monkeypatch.setattr("atoll.agent.dataset.BLOCK_BYTES", 64)
    documents = [[BOS, *[n % 8] * 9] for n in range(200)]
    manifest = write_data(tmp_path / "whole", {"a": (documents, documents[:20])}, shard_tokens=500)
    (tmp_path / "whole" / "tokenizer").mkdir()
    (tmp_path / "whole" / "tokenizer" / "tokenizer.json").write_bytes(b"{}" * 100)
    files = manifest.files | {
        "tokenizer/tokenizer.json": blocks.hash_blocks(tmp_path / "whole/tokenizer/tokenizer.json")
    }
    manifest = msgspec.structs.replace(manifest, files=files)
    manifest.save(tmp_path / "whole")
    return PartialData(manifest.digest(), [tmp_path / "whole"])


def needed(data):
    return Loader(data.directory, recipe_for(4, a=1)).blocks(LEASE, [0])


def rows(directory):
    (step,) = Loader(directory, recipe_for(4, a=1)).batches(LEASE, [0], len(LEASE), 8)
    return [batch.tokens.tolist() for batch in step]


def false_block(file, index):
    return b"false"


# ------------------------------------------------------------------------------------------------- in a swarm
class DataTrainer:
    """A trainer that has not come further than to ask for data."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[ToAgent] = asyncio.Queue()
        self.orders = Orders(self._said.put_nowait, asyncio.get_running_loop().time)

    def tell(self, message) -> None:
        self.orders.hear(message)

    async def hear(self) -> ToAgent:
        return await self._said.get()


def test_an_island_without_data_gets_blocks_from_peers_and_drops_a_false_one(tmp_path, data) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        swarm.run = msgspec.structs.replace(swarm.run, data_digest=data.manifest.digest())
        await swarm.start_coordinator()
        swarm.start("r", relay=True, data_dirs=(data.directory,))
        swarm.start("a", step_seconds=0.01, data_dirs=(data.directory,))
        swarm.start("new", data_dirs=(tmp_path / "nothing", tmp_path / "new-data"))
        trainer, new = DataTrainer(), swarm.agents["new"]
        new._trainer = trainer
        notes: list[str] = []
        new.accounts.say = notes.append
        swarm.agents["r"].work.donor.data_block = false_block

        async def provide(blocks):
            trainer.orders.want(blocks)
            await swarm.until(lambda: trainer.orders.wanted is None, "an answer")
            return trainer.orders.data_dir

        assert await provide({}) == tmp_path / "new-data"
        assert (tmp_path / "new-data" / "tokenizer" / "tokenizer.json").read_bytes() == b"{}" * 100
        assert not (tmp_path / "new-data" / "a").exists()
        await provide(needed(data))
        assert any(note.startswith("r is dropped as a donor") for note in notes)
        assert rows(tmp_path / "new-data") == rows(data.directory)
        await swarm.kill("r")
        await swarm.kill("a")
        await provide(needed(data))  # the blocks are here now, so that no donor is needed
        assert all(new.work.data.block(file, i) for file, numbers in needed(data).items() for i in numbers)
        num_absent = sum(
            new.work.data.block(name, index) is None
            for name, file in data.manifest.files.items()
            for index in range(file.num_blocks)
        )
        assert num_absent > 10, "it fetches only what it needs"
        await swarm.stop()

    asyncio.run(asyncio.wait_for(main(), 60))


# --------------------------------------------------------------------------------------------------- at a URL
class Ranges(SimpleHTTPRequestHandler):
    """A server that answers requests for a range of bytes, which Python's own does not."""

    def send_head(self):
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        with open(self.translate_path(self.path), "rb") as file:  # noqa: PTH123
            file.seek(first)
            content = file.read(last + 1 - first)
        self.send_response(206)
        self.end_headers()
        self.wfile.write(content)

    def copyfile(self, source, outputfile) -> None:
        pass

    def log_message(self, *_) -> None:
        pass


class WholeFiles(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


class Broken(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"false")

    def log_message(self, *_) -> None:
        pass


def fetch(tmp_path, data, url, **donors):
    """Fetch what a lease needs, from `url` or donors: (the data here afterwards, what was reported)."""
    network, said = Network(), []
    here = PartialData(data.manifest.digest(), [tmp_path / "here"])

    async def serve(block, stream) -> None:
        while True:
            request, _ = await stream.receive(5)
            whole = isinstance(request, m.FetchManifest)
            found = block("", 0) if whole else block(request.file, request.index)
            await stream.send(m.Found(len(found)), found)

    async def main() -> None:
        addresses = {}
        for name, block in donors.items():
            port = await MemoryTransport(network, name).serve(
                Address("memory", 0), {FETCH: partial(serve, block)}
            )
            addresses[name] = (Address("memory", port),)
        asked = Donors(MemoryTransport(network, "me"), addresses, said.append)
        try:
            await Fetching(here, url, asked, said.append).provide(needed(data))
        finally:
            await asked.close()

    asyncio.run(asyncio.wait_for(main(), 30))
    return here, said


@pytest.fixture
def served(data):
    """The URL of the data on each kind of server."""
    servers = {}
    for name, handler in (("ranges", Ranges), ("whole", WholeFiles), ("broken", Broken)):
        made = handler if handler is Broken else partial(handler, directory=str(data.directory))
        servers[name] = ThreadingHTTPServer(("127.0.0.1", 0), made)
        threading.Thread(target=servers[name].serve_forever, kwargs={"poll_interval": 0.02}).start()
    yield {name: f"http://127.0.0.1:{server.server_port}" for name, server in servers.items()}
    for server in servers.values():
        server.shutdown()
        server.server_close()


def test_blocks_come_from_the_runs_url_without_any_donor(tmp_path, data, served) -> None:
    here, said = fetch(tmp_path, data, served["ranges"])
    assert rows(here.directory) == rows(data.directory)
    assert not any("dropped" in text for text in said)


def test_blocks_come_from_a_file_url(tmp_path, data) -> None:
    here, _ = fetch(tmp_path, data, data.directory.as_uri())
    assert rows(here.directory) == rows(data.directory)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("broken", "its manifest.json is not the run's"),
        ("whole", "whole files only"),
        ("gone", "cannot be read"),
    ],
)
def test_a_url_that_fails_or_is_false_is_dropped_and_donors_are_asked(
    tmp_path, data, served, kind, reason
) -> None:
    here, said = fetch(tmp_path, data, served.get(kind, "http://127.0.0.1:9"), honest=data.block)
    assert rows(here.directory) == rows(data.directory)
    (told,) = [text for text in said if "is dropped as a donor" in text]
    assert reason in told


def test_a_false_donor_without_another_is_named_and_leaves_nothing(tmp_path, data) -> None:
    with pytest.raises(NobodyHas, match="FetchManifest: false gave false bytes"):
        fetch(tmp_path, data, "", false=false_block)
    assert not (tmp_path / "here").exists()


def test_a_donor_whose_blocks_of_one_file_are_false_is_dropped_and_the_next_is_asked(tmp_path, data) -> None:
    def partly_false(file, index):
        return false_block(file, index) if file.endswith(".tokens") else data.block(file, index)

    here, said = fetch(tmp_path, data, "", false=partly_false, honest=data.block)
    assert rows(here.directory) == rows(data.directory)
    (told,) = [text for text in said if "dropped" in text]
    assert told.startswith("false is dropped as a donor")
