"""Requests per second of `atoll evolve`, beside OpenAI's plain client with as many of the same kind.

    python bench/evolve.py [--seeds 400] [--rounds 3]

The server is a process of this machine that answers each request after a pause, with an instruction or an
answer of a hundred words. Both sides ask for two replies for each seed, the second after the first, for as
many seeds at once. Ours is the whole of `atoll evolve`: what was paid for is kept, replies are checked, near
repetitions are found, the result is written. The sides take turns, each first once without being measured;
medians. The time of a processor that a request takes is given too: where the machine is loaded, it tells
more. Two minutes.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from harness.report import Report, arguments

from atoll.post.evolve import evolve
from atoll.post.evolve.method import FIRST_METHOD, evolving
from atoll.recipe.evolve import Evolve

CASES = ((16, 0.2), (64, 0.2), (64, 0.5))  # requests at once; seconds that each reply takes
WORDS = [
    f"{first}{last}"
    for first in ("bra", "ko", "li", "mun", "ter", "sa")
    for last in ("den", "fi", "gor", "x")
]
REQUESTS_PER_SEED = 2


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3, help="so many turns of each side")
    options = parser.parse_args()
    report = Report("evolve", options, keys=("concurrency", "latency"), packages=("openai",))
    for concurrency, latency in CASES:
        with serving(latency) as url:
            report.add(measured(options, url, concurrency) | {"concurrency": concurrency, "latency": latency})


def measured(options: argparse.Namespace, url: str, concurrency: int) -> dict[str, object]:
    """Both sides' requests per second."""
    texts = [f"Explain {text(number, 12)}" for number in range(options.seeds)]
    sides: dict[str, list[Took]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds.txt"
        seeds.write_text("\n".join(texts) + "\n")
        for number in range(options.rounds + 1):
            out = Path(folder) / str(number)
            sides["ours"].append(took(partial(ours, str(seeds), url, concurrency, out, len(texts))))
            sides["peer"].append(took(lambda: asyncio.run(peer(texts, url, concurrency))))
    count = REQUESTS_PER_SEED * len(texts)
    rates = {name: count / statistics.median(one.wall for one in side[1:]) for name, side in sides.items()}
    cpu = {
        name: 1000 * statistics.median(one.cpu for one in side[1:]) / count for name, side in sides.items()
    }
    return {
        "seeds": len(texts),
        **{name: round(rate, 1) for name, rate in rates.items()},
        "unit": "requests/s",
        "ratio": round(rates["ours"] / rates["peer"], 3),
        "asked": 0.95,
        **{f"{name}_cpu_ms": round(value, 2) for name, value in cpu.items()},
    }


class Took(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float  # of this process


def took(work: Callable[[], None]) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def ours(seeds: str, url: str, concurrency: int, out: Path, count: int) -> None:
    settings = Evolve(seeds=seeds, server=url, model="m", concurrency=concurrency, method_steps=0)
    report = evolve(settings, out, "")
    assert (report.requests, report.written) == (REQUESTS_PER_SEED * count, count), report


async def peer(texts: list[str], url: str, concurrency: int) -> None:
    import openai

    remaining = iter(texts)
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:

        async def ask(messages: list[dict[str, str]]) -> str:
            said = await client.chat.completions.create(
                model="m",
                messages=messages,  # pyright: ignore[reportArgumentType]
                temperature=0.7,
                max_tokens=1024,
            )
            return said.choices[0].message.content or ""

        async def worker() -> None:
            for seed in remaining:
                evolved = await ask(evolving(FIRST_METHOD, seed))
                await ask([{"role": "user", "content": evolved}])

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())


# ---------------------------------------------------------------------------------------------- the server
@contextmanager
def serving(latency: float) -> Iterator[str]:
    """The URL of a server in a process of its own, for the time of the block."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(there, latency), daemon=True)
    process.start()
    try:
        assert here.poll(60), "the server did not start"
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        process.kill()
        process.join()


def serve(told: Connection, latency: float) -> None:
    """Answer chat completions until the process is ended; `told` is told the port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                body = json.loads(await reader.readexactly(length))
                await asyncio.sleep(latency)
                data = reply(body["messages"][-1]["content"])
                start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                writer.write(start + str(len(data)).encode() + b"\r\n\r\n" + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def forever() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())


def reply(content: str) -> bytes:
    said = text(content, 100)
    if "Work by this method" in content:
        said = f"<instruction>Explain {text(content, 25)}</instruction>"
    message = {"role": "assistant", "content": said}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {
        "prompt_tokens": len(content) // 4,
        "completion_tokens": 100,
        "total_tokens": len(content) // 4 + 100,
    }
    return json.dumps(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }
    ).encode()


def text(seed: object, count: int) -> str:
    """So many words, other ones for another seed."""
    return " ".join(random.Random(str(seed)).choices(WORDS, k=count))


if __name__ == "__main__":
    main()
