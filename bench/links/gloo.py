"""Gloo's `all_reduce` of fp32 between emulated sites: what PyTorch brings for the same work.

`seconds` starts a process of this module at each site.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from links.wan import DEVICE, Wan

PORT = 29_500
ROUNDS = 3  # the first, which opens the connections, is not counted
LIMIT_SECONDS = 900.0


def seconds(wan: Wan, sites: list[str], elements: int) -> list[float]:
    """How long each round takes the slowest site.

    Raises subprocess.TimeoutExpired where they have not done all within LIMIT_SECONDS.
    """
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": DEVICE,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    ranks: list[subprocess.Popen[str]] = []
    try:
        for rank, site in enumerate(sites):
            words = [rank, len(sites), wan.addresses[sites[0]], elements, ROUNDS]
            with wan.at(site):
                ranks.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "links.gloo", *map(str, words)],
                        env=environment,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
        told = [json.loads(rank.communicate(timeout=LIMIT_SECONDS)[0]) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return [max(of_round) for of_round in zip(*told, strict=True)]


def counted(rounds: list[float]) -> float:
    """The median of the rounds after the first."""
    return statistics.median(rounds[1:])


def main(rank: int, num_ranks: int, address: str, elements: int, rounds: int) -> None:
    """One site's part: its seconds for each round, as a list on standard output."""
    import torch
    import torch.distributed as dist

    place = f"tcp://{address}:{PORT}"
    limit = timedelta(seconds=LIMIT_SECONDS)
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=num_ranks, timeout=limit)
    values, found = torch.zeros(elements), list[float]()
    for _ in range(rounds):
        dist.barrier()
        began = time.monotonic()
        dist.all_reduce(values)
        found.append(time.monotonic() - began)
    dist.barrier()
    dist.destroy_process_group()
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
