"""Windows per second out of prepared data, beside `datasets` and Grain reading the same tokens.

    python bench/loader.py [--seconds 3]

Five sources in the reference run's weights, one process, batches of 8 windows, at the demo's 256 tokens and
at 8,192. `datasets` reads documents from parquet, interleaves sources by their weights and packs them into
windows; its other row has windows that were cut before, which spares it the packing. Grain mixes sources of
windows in memory, shuffled. Neither gives labels or document numbers. `resume`: from a position to the first
batch, a new loader each time. About a minute.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness.report import Report, arguments
from harness.sources import WEIGHTS, recipe_with

from atoll.data.loader import Loader
from atoll.data.manifest import FORMAT, Manifest, PreparedSource
from atoll.data.tokens import ShardWriter, TokenStream
from atoll.recipe import Recipe

NUM_TOKENS = 4_000_000  # of each source
VOCABULARY = 50_000
BATCH = 8  # windows
FAR = 10**12


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="at least this long for each row")
    options = parser.parse_args()
    report = Report("loader", options, keys=("context_length",), packages=("datasets", "grain"))
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        for length in (256, 8192):
            report.add(row(Path(folder), length, options.seconds))


def row(data_dir: Path, length: int, seconds: float) -> dict[str, object]:
    """Windows of one length, from us and from whichever peers are installed."""
    recipe = recipe_with(length)
    ours, cpu = rate(our_batches(data_dir, recipe, 0), seconds)
    far, _ = rate(our_batches(data_dir, recipe, FAR), seconds)
    found: dict[str, object] = {
        "context_length": length,
        "windows_per_second": round(ours),
        "cpu_microseconds_per_window": round(cpu * 1e6, 1),
        "far_windows_per_second": round(far),
        "million_tokens_per_second": round(ours * length / 1e6, 1),
        "resume_ms_at_0": round(resume(lambda: our_batches(data_dir, recipe, 0)), 2),
        "resume_ms_at_10_to_the_12": round(resume(lambda: our_batches(data_dir, recipe, FAR)), 2),
    }
    peers: dict[str, Callable[[], Iterator[object]]] = {
        "datasets": lambda: their_batches(data_dir, length, precut=False),
        "datasets_precut": lambda: their_batches(data_dir, length, precut=True),
        "grain": lambda: grain_batches(data_dir, length),
    }
    for name, batches in peers.items():
        try:
            theirs, cpu = rate(batches(), seconds)
        except ModuleNotFoundError as error:
            found[f"{name}_not_measured"] = f"{error.name} is not installed"
            continue
        found |= {
            f"{name}_windows_per_second": round(theirs),
            f"{name}_cpu_microseconds_per_window": round(cpu * 1e6, 1),
            f"times_{name}": round(ours / theirs, 1),
        }
    return found


def rate(batches: Iterator[object], seconds: float) -> tuple[float, float]:
    """(windows per second, seconds of this process's CPU per window), once it runs."""
    next(batches)
    began, cpu, taken = time.perf_counter(), time.process_time(), 0
    while (passed := time.perf_counter() - began) < seconds:
        next(batches)
        taken += BATCH
    return taken / passed, (time.process_time() - cpu) / taken


def resume(batches: Callable[[], Iterator[object]]) -> float:
    """Milliseconds of CPU to the first batch, the median of 20; the files are in the page cache, so nothing
    waits.
    """
    times: list[float] = []
    for _ in range(20):
        began = time.process_time()
        next(batches())
        times.append((time.process_time() - began) * 1e3)
    return float(np.median(times))


def our_batches(data_dir: Path, recipe: Recipe, start: int) -> Iterator[object]:
    return Loader(data_dir, recipe).batches(count(start), [0], BATCH, BATCH)


def their_batches(data_dir: Path, length: int, precut: bool) -> Iterator[object]:
    import datasets

    datasets.disable_progress_bars()

    def pack(rows: dict[str, list[list[int]]]) -> dict[str, list[np.ndarray]]:
        stream = np.concatenate([np.array(row) for row in rows["input_ids"]])
        return {"input_ids": list(stream[: len(stream) // length * length].reshape(-1, length))}

    kind = f"windows-{length}" if precut else "documents"
    sources = [
        datasets.load_dataset(
            "parquet", data_files=str(data_dir / f"{name}.{kind}.parquet"), split="train", streaming=True
        )
        for name in WEIGHTS
    ]
    if not precut:
        sources = [source.map(pack, batched=True, batch_size=200) for source in sources]
    weights = [weight / 100 for weight in WEIGHTS.values()]
    # pyright: ignore[reportArgumentType]
    mixed = datasets.interleave_datasets([s.repeat(None) for s in sources], weights, seed=0)
    return iter(mixed.with_format("numpy").batch(BATCH))  # pyright: ignore[reportAttributeAccessIssue]


def grain_batches(data_dir: Path, length: int) -> Iterator[object]:
    import grain

    sources = [
        grain.MapDataset.source(windows(data_dir, name, length)).shuffle(seed=0).repeat() for name in WEIGHTS
    ]
    mixed = grain.MapDataset.mix(sources, [weight / 100 for weight in WEIGHTS.values()]).batch(BATCH)
    return (mixed[index] for index in count())


def windows(data_dir: Path, name: str, length: int) -> np.ndarray:
    stream = TokenStream(data_dir, Manifest.load(data_dir), name, "train")
    return stream.read(0, stream.num_tokens // length * length)[0].reshape(-1, length)


def write_data(data_dir: Path) -> None:
    """The same tokens as our shards, as parquet of documents, and as parquet of windows."""
    random = np.random.default_rng(0)
    prepared, files = {}, {}
    for name in WEIGHTS:
        documents: list[np.ndarray] = []
        with ShardWriter(data_dir, f"shards/{name}/train", "<u2") as writer:
            while writer.num_tokens < NUM_TOKENS:
                documents.append(random.integers(1, VOCABULARY, int(random.lognormal(6.5, 1)) + 2, np.uint16))
                documents[-1][0] = 0
                writer.append(documents[-1], 4 * len(documents[-1]))
        prepared[name], files = PreparedSource(train=writer.shards, heldout=[]), files | writer.files
        pq.write_table(
            pa.table({"input_ids": documents}), data_dir / f"{name}.documents.parquet", row_group_size=1000
        )
    Manifest(
        format=FORMAT,
        tokenizer="",
        vocab_size=VOCABULARY,
        bos_id=0,
        sources=prepared,
        files=files,
        made_from={},
    ).save(data_dir)
    for name in WEIGHTS:
        for length in (256, 8192):
            table = pa.table({"input_ids": list(windows(data_dir, name, length).astype(np.uint16))})
            pq.write_table(
                table,
                data_dir / f"{name}.windows-{length}.parquet",
                row_group_size=max(100_000 // length, 10),
            )


if __name__ == "__main__":
    main()
