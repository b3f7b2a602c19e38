"""What an island without the data fetches for a lease, and the CPU time to find out which blocks those are.

    python bench/leases.py

From a manifest alone: five sources in the reference run's weights, 640 M tokens each in shards of 64 M,
documents of 1,000 tokens; leases of 26 M tokens (100 inner steps of 262,144) at several lengths of window,
each the second lease of a run. A few seconds.
"""

import tempfile
import time
from pathlib import Path

from harness.report import Report, arguments
from harness.sources import WEIGHTS, recipe_with

from atoll.data.blocks import BLOCK_BYTES, DIGEST_BYTES, FileBlocks
from atoll.data.loader import Loader
from atoll.data.manifest import FORMAT, Manifest, PreparedSource, Shard

SHARD_TOKENS, NUM_SHARDS, DOCUMENT_TOKENS = 64_000_000, 10, 1_000
LEASE_TOKENS = 100 * 262_144


def main() -> None:
    report = Report("leases", arguments(__doc__).parse_args(), keys=("context_length",))
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder))
        for length in (256, 1024, 8192):
            report.add(row(Path(folder), length))


def row(data_dir: Path, length: int) -> dict[str, object]:
    """What a lease of windows of one length needs."""
    num_windows = LEASE_TOKENS // length
    loader = Loader(data_dir, recipe_with(length))
    loader.blocks(range(1), [0])  # the pattern is laid
    began = time.process_time()
    blocks = loader.blocks(range(num_windows, 2 * num_windows), [0])
    seconds = time.process_time() - began
    num_blocks = sum(map(len, blocks.values()))
    return {
        "context_length": length,
        "lease_windows": num_windows,
        "lease_mb": round(2 * LEASE_TOKENS / 1e6, 1),
        "fetched_blocks": num_blocks,
        "fetched_mb": round(num_blocks * BLOCK_BYTES / 1e6, 1),
        "times_the_lease": round(num_blocks * BLOCK_BYTES / (2 * LEASE_TOKENS), 1),
        "of_all_blocks": round(
            num_blocks / sum(file.num_blocks for file in loader.manifest.files.values()), 3
        ),
        "cpu_microseconds_per_window": round(seconds / num_windows * 1e6, 1),
        "cpu_seconds": round(seconds, 2),
    }


def write_manifest(data_dir: Path) -> None:
    sources, files = {}, {}
    for name in WEIGHTS:
        shards: list[Shard] = []
        for number in range(NUM_SHARDS):
            tokens, offsets = (f"{name}/train-{number:05d}.{kind}" for kind in ("tokens", "offsets"))
            num_documents = SHARD_TOKENS // DOCUMENT_TOKENS
            files |= {tokens: file_of(2 * SHARD_TOKENS), offsets: file_of(8 * (num_documents + 1))}
            shards.append(
                Shard(
                    tokens=tokens,
                    offsets=offsets,
                    num_tokens=SHARD_TOKENS,
                    num_documents=num_documents,
                    num_bytes=4 * SHARD_TOKENS,
                    num_labels=SHARD_TOKENS - num_documents,
                )
            )
        sources[name] = PreparedSource(train=shards, heldout=[])
    Manifest(
        format=FORMAT, tokenizer="", vocab_size=50_000, bos_id=0, sources=sources, files=files, made_from={}
    ).save(data_dir)


def file_of(num_bytes: int) -> FileBlocks:
    return FileBlocks(num_bytes, bytes(DIGEST_BYTES * -(-num_bytes // BLOCK_BYTES)))


if __name__ == "__main__":
    main()
