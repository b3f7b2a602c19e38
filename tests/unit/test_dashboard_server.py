"""The page's server: it answers questions, changes nothing, and bears with watchers only so far."""

import asyncio
import contextlib
import gzip
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from http.client import HTTPConnection

import msgspec
import pytest
from harness import told

from atoll import cli
from atoll.dashboard import connection, page, server
from atoll.events import Left
from atoll.run.directory import RunDir
from atoll.swarm.address import Address

HEADERS = ("content-security-policy", "x-content-type-options", "referrer-policy")


@pytest.fixture
def run_dir(tmp_path) -> RunDir:
    told.write(tmp_path / "events.jsonl", told.told(5, 12, 1e9))
    return RunDir(tmp_path)


@pytest.fixture
def address(run_dir) -> Generator[Address]:
    """A server of the run, in a thread."""
    found: list[Address] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()

    def tell(at: Address) -> None:
        found.append(at)
        ready.set()

    task = loop.create_task(server.serve(run_dir, Address("127.0.0.1", 0), tell))

    def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(30)
    yield found[0]
    loop.call_soon_threadsafe(task.cancel)
    thread.join(30)
    assert not thread.is_alive()
    loop.close()


def ask(
    address: Address, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    line = HTTPConnection(address.host, address.port, timeout=30)
    with contextlib.closing(line):
        line.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = line.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def news(address: Address) -> Generator[dict[str, int]]:
    """What a watcher is told."""
    with urllib.request.urlopen(f"http://{address}/news", timeout=30) as answer:
        for line in answer:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


def test_parts_are_given_packed_and_only_where_they_are_newer(address) -> None:
    for name in ("about", "now", "islands", "steps", "story"):
        status, headers, data = ask(address, f"/part/{name}", accept_encoding="gzip")
        assert (status, headers["content-type"]) == (200, "application/json")
        json.loads(gzip.decompress(data))
        assert all(each in headers for each in HEADERS)
    wanted = next(news(address))
    assert wanted.keys() == {"about", "now", "islands", "steps", "story"}
    _, headers, data = ask(address, "/part/steps")
    assert json.loads(data)["step"] == list(range(12))
    assert ask(address, "/part/steps", if_none_match=headers["etag"])[0] in (200, 304)
    island = json.loads(ask(address, "/part/islands")[2])[0]["island"]
    assert json.loads(ask(address, f"/island/{island}")[2])["island"] == island
    assert ask(address, "/island/nobody")[0] == 404


def test_a_watcher_is_told_of_what_comes(address, run_dir) -> None:
    told_of = news(address)
    before = next(told_of)
    island = json.loads(ask(address, "/part/islands")[2])[0]["island"]
    left = Left(time=2e9, island=island, step=12, reason="killed")
    with run_dir.events.open("ab") as file:
        file.write(msgspec.json.encode({"version": 1, **msgspec.to_builtins(left)}) + b"\n")
    for newer in told_of:
        assert all(newer[name] > before[name] for name in newer)
        row = next(row for row in json.loads(ask(address, "/part/islands")[2]) if row["island"] == island)
        if row["alive"] is False:  # else what came was that no coordinator answers
            assert row["alive_why"] == "killed"
            return
    raise AssertionError("nobody was told")


def test_the_page_and_its_files_have_the_strict_policy(address) -> None:
    for name in ("", *page.files()):
        status, headers, data = ask(address, f"/{name}")
        assert status == 200
        assert data
        assert headers["content-security-policy"] == page.POLICY
    assert "unsafe" not in page.POLICY


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(address, method) -> None:
    assert {ask(address, path, method)[0] for path in ("/", "/part/now", "/news", "/style.css")} == {405}


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/..%2f..%2fetc/passwd",
        "/static/../view.py",
        "/part/..%2fnow",
        "//etc/passwd",
        "/%00",
    ],
)
def test_paths_that_climb_lead_nowhere(address, path) -> None:
    assert ask(address, path)[0] == 404


def test_more_watchers_than_it_takes_are_told_so_and_others_are_served(address, monkeypatch) -> None:
    monkeypatch.setattr(server, "MAX_WATCHERS", 20)
    with contextlib.ExitStack() as open_lines:
        refused = 0
        for _ in range(100):
            line = HTTPConnection(address.host, address.port, timeout=30)
            open_lines.callback(line.close)
            line.request("GET", "/news")
            answer = line.getresponse()
            if answer.status == 503:
                refused += 1
                assert answer.read().decode() == server.NOT_NOW
                assert answer.headers["Retry-After"]
        assert refused == 80
        assert ask(address, "/part/now")[0] == 200
    for _ in range(200):  # who is gone makes room
        with contextlib.suppress(urllib.error.HTTPError):
            assert next(news(address))
            return
    raise AssertionError("nobody is let in again")


def test_who_never_reads_is_let_go(address, monkeypatch) -> None:
    monkeypatch.setattr(connection.PatientProtocol, "patience_seconds", 0.5)
    with socket.create_connection((address.host, address.port), timeout=30) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.sendall(400 * b"GET /world.json HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionError):
            for _ in range(3_000):
                line.sendall(b"\r\n")  # until it is cut, of which there is no other sign to who does not read
                time.sleep(0.01)


def test_who_asks_nothing_is_let_go(address, monkeypatch) -> None:
    monkeypatch.setattr(connection.PatientProtocol, "patience_seconds", 0.3)
    with socket.create_connection((address.host, address.port), timeout=30) as line:
        line.sendall(b"GET / HT")
        with contextlib.suppress(ConnectionResetError):
            assert line.recv(100) == b""


def test_a_port_that_is_taken_and_a_directory_without_a_run_are_mistakes(run_dir, tmp_path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        assert cli.main(["dashboard", str(run_dir.path), "--listen", listen]) == 2
        assert "cannot listen there" in capsys.readouterr().err
    assert cli.main(["dashboard", str(tmp_path / "none"), "--html", str(tmp_path / "x.html")]) == 2
    assert "no run here" in capsys.readouterr().err
    assert cli.main(["dashboard", str(run_dir.path), "--listen", "x:1", "--html", "y"]) == 2
    assert "leave --listen out" in capsys.readouterr().err


def test_a_file_is_written_by_the_verb(run_dir, tmp_path, capsys) -> None:
    target = tmp_path / "run.html"
    assert cli.main(["dashboard", str(run_dir.path), "--html", str(target)]) == 0
    assert target.stat().st_size > 100_000
    assert "any browser opens it" in capsys.readouterr().out
