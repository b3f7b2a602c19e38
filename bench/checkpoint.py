"""How long training stands still for an inner checkpoint, beside a synchronous save of the same state.

    python bench/checkpoint.py [--threads 1] [--saves 5] [--dir DIR]

Medians after the first save, which also makes the memory that later ones copy into. About a minute.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from harness.report import Report, arguments
from harness.sides import our_island, some_batch
from island import SHAPES
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_saver import save

from atoll.files import atomic_dir
from atoll.island.checkpoint import InnerCheckpoints
from atoll.island.ranks import Ranks


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--dir", type=Path, help="on the disk to measure (default: a temporary one)")
    options = parser.parse_args()
    report = Report("checkpoint", options, keys=("shape", "threads"), packages=("torch",))
    torch.set_num_threads(options.threads)
    ranks = Ranks.of_torchrun()
    for name in options.shapes:
        with tempfile.TemporaryDirectory(dir=options.dir) as directory:
            measured = row(name, options.saves, Path(directory), ranks)
            report.add(measured | {"threads": options.threads})
    ranks.close()


def row(name: str, num_saves: int, directory: Path, ranks: Ranks) -> dict[str, object]:
    """One shape: milliseconds that training waits, by either way of saving."""
    island = our_island(SHAPES[name], ranks.device_mesh(torch.device("cpu")))
    batch = [island.place(some_batch(SHAPES[name], packed=False))]
    stalls: list[float] = []
    with InnerCheckpoints(island, directory / "ours", 2, ranks) as saved:
        for step in range(num_saves + 1):
            island.inner_step(batch, step)
            island.read()
            start = time.perf_counter()
            saved.save(step)
            stalls.append(time.perf_counter() - start)
            saved.wait()  # as if the next save were far off
    waits: list[float] = []
    for step in range(num_saves + 1):
        start = time.perf_counter()
        state = {"optimizers": get_optimizer_state_dict(island.model, island.optimizers)}
        with atomic_dir(directory / f"peer-{step}") as temporary:  # whole or absent, as ours; no checksums
            save(state, checkpoint_id=temporary)
        waits.append(time.perf_counter() - start)
    ours, peer = (1e3 * statistics.median(taken[1:]) for taken in (stalls, waits))
    size = sum(file.stat().st_size for file in (directory / "peer-0").iterdir())
    return {
        "shape": name,
        "bytes": size,
        "ours": round(ours, 2),
        "peer": round(peer, 1),
        "unit": "ms",
        "ratio": round(ours / peer, 4),
        "first": round(1e3 * stalls[0], 1),
    }


if __name__ == "__main__":
    main()
