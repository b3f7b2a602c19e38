"""Megabytes of text to token shards per second, beside `datasets.map` and the bare `tokenizers` library.

    python bench/prepare.py [--text FOLDER] [--megabytes 24] [--rounds 3]
    python bench/prepare.py --memory 50 250 1000     # only peak memory, for so many megabytes of text

Everybody uses all cores, the same tokenizer and the same documents of about 4 kB, in a JSONL file. `limit`
only tokenizes texts that are in memory already, and throws the result away. Rounds take turns; medians. The
text is the books that ship with atoll, or a folder of parquet files with a column `text`.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
from harness.report import Report, arguments

from atoll.data.prepare import prepare
from atoll.data.sources import SAMPLE_DIR
from atoll.data.tokenizer import Tokenizer
from atoll.recipe import Recipe, parse

DOCUMENT_CHARACTERS = 4096
VOCABULARY = 4096


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--text", type=Path, default=SAMPLE_DIR / "books", help="a folder of books")
    parser.add_argument("--megabytes", type=float, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=float, nargs="+", default=[])
    options = parser.parse_args()
    report = Report("prepare", options, keys=("row", "megabytes"), packages=("datasets", "tokenizers"))
    if not any(books(options.text)):
        raise SystemExit(f"--text {options.text}: no book there, neither .txt nor .parquet")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        Tokenizer.train(documents(options.text, 4e6), VOCABULARY).save(work / "tokenizer")
        for megabytes in options.memory:
            report.add(memory_row(work, options.text, megabytes))
        if not options.memory:
            report.add(speed_row(work, options.text, options.megabytes, options.rounds))


def speed_row(work: Path, text: Path, megabytes: float, rounds: int) -> dict[str, object]:
    """Megabytes of text per second: ours, the limit's, and those of `datasets`."""
    size = write_rows(work / "rows.jsonl", text, megabytes)
    texts = list(documents(text, megabytes * 1e6))
    rates: dict[str, list[float]] = {
        "mb_per_second": [],
        "limit_mb_per_second": [],
        "datasets_mb_per_second": [],
    }
    for number in range(rounds):
        rates["limit_mb_per_second"].append(size / limit(work / "tokenizer", texts) / 1e6)
        began = time.perf_counter()
        prepare(recipe_over(work), work / f"data-{number}")
        rates["mb_per_second"].append(size / (time.perf_counter() - began) / 1e6)
        rates["datasets_mb_per_second"].append(size / datasets_map(work, number) / 1e6)
    figures = {name: round(statistics.median(each), 2) for name, each in rates.items()}
    return {
        "row": "speed",
        "megabytes": megabytes,
        **figures,
        "of_limit": round(figures["mb_per_second"] / figures["limit_mb_per_second"], 3),
    }


def limit(tokenizer_dir: Path, texts: list[str]) -> float:
    """Seconds for `tokenizers` alone, in the batches that suit it."""
    from tokenizers import Tokenizer as Engine

    engine = Engine.from_file(str(tokenizer_dir / "tokenizer.json"))
    began = time.perf_counter()
    for start in range(0, len(texts), 256):
        engine.encode_batch_fast(texts[start : start + 256])
    return time.perf_counter() - began


def datasets_map(work: Path, number: int) -> float:
    """Seconds for the usual way, in a process of its own as a user would have it."""
    program = f"""
import time, datasets, tokenizers
datasets.disable_progress_bars()
engine = tokenizers.Tokenizer.from_file({str(work / "tokenizer/tokenizer.json")!r})
def tokenize(rows):
    return {{"input_ids": [encoding.ids for encoding in engine.encode_batch_fast(rows["text"])]}}
began = time.perf_counter()
files, cache = {str(work / "rows.jsonl")!r}, {str(work / f"cache-{number}")!r}
rows = datasets.load_dataset("json", data_files=files, split="train", cache_dir=cache)
rows.map(tokenize, batched=True, num_proc={os.cpu_count()}, remove_columns=rows.column_names)
print("seconds", time.perf_counter() - began)
"""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


def memory_row(work: Path, text: Path, megabytes: float) -> dict[str, object]:
    """Peak resident memory of `prepare` in a process of its own, children included."""
    write_rows(work / "rows.jsonl", text, megabytes)
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from prepare import *
print(peak_over(Path({str(work)!r}), {f"data-{megabytes}"!r}))
"""
    began = time.perf_counter()
    peak = float(subprocess.check_output([sys.executable, "-c", program], text=True))
    return {
        "row": "memory",
        "megabytes": megabytes,
        "peak_megabytes": round(peak / 1e6),
        "seconds": round(time.perf_counter() - began, 1),
    }


def peak_over(work: Path, name: str) -> int:
    """The most bytes that this process and its children had, each at its own worst moment."""
    children: dict[str, int] = {}

    def look(_: object) -> None:
        for thread in Path("/proc/self/task").iterdir():
            for child in (thread / "children").read_text().split():
                children[child] = high_water(child)

    prepare(recipe_over(work), work / name, look)
    return high_water("self") + sum(children.values())


def high_water(process: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def recipe_over(work: Path) -> Recipe:
    tree = {
        "name": "bench",
        "model": {"preset": "demo"},
        "tokenizer": {"file": str(work / "tokenizer")},
        "sources": {"rows": {"jsonl": str(work / "rows.jsonl")}},
        "stage": [{"until": 1, "mixture": {"rows": 1}}],
        "inner": {"context_length": 256, "tokens_per_step": 256},
        "outer": {"inner_steps": 1},
    }
    return parse(tree, "bench")


def books(text: Path) -> Iterator[str]:
    """Every text of a folder: each .txt file, and each row of a .parquet file."""
    for path in sorted(text.glob("*.txt")):
        yield path.read_text("utf-8")
    for path in sorted(text.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(1, columns=["text"]):
            yield batch.column(0)[0].as_py()


def documents(text: Path, num_bytes: float) -> Iterator[str]:
    """So much text, in documents of about 4 kB; the books over and over, each time from another place."""
    for turn in cycle(range(DOCUMENT_CHARACTERS)):
        for whole in books(text):
            book = whole[turn * 97 % DOCUMENT_CHARACTERS :]
            for start in range(0, len(book), DOCUMENT_CHARACTERS):
                yield (part := book[start : start + DOCUMENT_CHARACTERS])
                num_bytes -= len(part.encode())
                if num_bytes <= 0:
                    return


def write_rows(path: Path, text: Path, megabytes: float) -> int:
    size = 0
    with path.open("wb") as file:
        for document in documents(text, megabytes * 1e6):
            size += len(document.encode())
            file.write(msgspec.json.encode({"text": document}) + b"\n")
    return size


if __name__ == "__main__":
    main()
