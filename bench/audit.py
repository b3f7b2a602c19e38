"""What the audit of sums costs an island, and how often it finds a false one.

    python bench/audit.py [--trials 20000]

Sixteen islands, pieces of 65,536 elements, int8. A row `cost`: how many seconds of a core it takes to
measure a payload and an update (what each island does in each outer step), and how many bytes it says;
beside an outer step of the reference run, 10.2 billion parameters and 38 minutes of training, whose
traffic is a payload out and an update in. Rows `found`: of one owner that makes sums of ordinary size,
but false, how often that is found in one step, and within three of them. Their values are synthetic: a
gradient that all islands share, and noise of the same size. An honest sum is a row as well: it must never
be found.
"""

import time

import numpy as np
from harness.report import Report, arguments

from atoll.agent.codecs import CODECS
from atoll.agent.measure import add_signed, measure
from atoll.agent.pieces import Pieces, slots_bytes
from atoll.coordinator import audit as judge
from atoll.swarm import audit
from atoll.swarm.audit import GROUP_PIECES, LANES
from atoll.swarm.layout import Layout, TensorSpec
from atoll.swarm.records import Slice

ISLANDS = 16
PIECE = 1 << 16
GROUP = GROUP_PIECES * PIECE
COST_PIECES = 256  # that are measured for the row of cost: 16.8 million parameters
PARAMETERS, TRAINING_SECONDS = 10_211_381_248, 38 * 60.0  # of the reference run's outer step
INT8 = CODECS["int8"]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--trials", type=int, default=20_000, help="seeds for each kind of false sum")
    options = parser.parse_args()
    report = Report("audit", options, keys=("measured", "sum"), packages=("numpy", "numba"))
    report.add({"measured": "cost", "sum": "", **cost()})
    for name, row in found(options.trials).items():
        report.add({"measured": "found", "sum": name, **row})


def cost() -> dict[str, float]:
    """Of one island, beside an outer step of the reference run."""
    layout = Layout((TensorSpec("w", (COST_PIECES, PIECE)),), 16 * PIECE, PIECE)
    pieces = encoded(np.random.default_rng(0).standard_normal(layout.num_elements), layout)
    count = COST_PIECES // ISLANDS
    groups = audit.groups(tuple(Slice(str(k), count * k, count) for k in range(ISLANDS)))
    measure(pieces, groups[:1], bytes(8))  # compiles
    seconds: list[float] = []
    for seed in range(5):
        began = time.thread_time()
        measure(pieces, groups, seed.to_bytes(8, "little"))
        seconds.append(time.thread_time() - began)
    of_both = 2 * min(seconds) * PARAMETERS / layout.num_elements
    num_pieces = -(-PARAMETERS // PIECE)
    of_reference = audit.groups(
        tuple(Slice(str(k), num_pieces * k // ISLANDS, num_pieces // ISLANDS) for k in range(ISLANDS))
    )
    said = 2 * len(of_reference) * audit.ROW_BYTES
    return {
        "parameters_per_second": round(layout.num_elements / min(seconds)),
        "seconds": round(of_both, 1),
        "share_of_time": round(of_both / TRAINING_SECONDS, 4),
        "said_bytes": said,
        "share_of_bytes": round(said / (2 * INT8.max_bytes(PARAMETERS // 4096 * 4096)), 6),
    }


def found(trials: int) -> dict[str, dict[str, float]]:
    """By what an owner made of a group of pieces: how often that is found."""
    random = np.random.default_rng(1)
    common = random.standard_normal(GROUP, np.float32)
    total, noise, norms = np.zeros(GROUP, np.float32), 0.0, 0.0
    values = total
    layout = Layout((TensorSpec("w", (GROUP_PIECES, PIECE)),), GROUP, PIECE)
    for _ in range(ISLANDS):
        pieces = encoded(common + random.standard_normal(GROUP, np.float32), layout)
        values = decoded(pieces)
        total += np.float32(1 / ISLANDS) * values
        noise += np.sqrt(noise_of(pieces)) / ISLANDS
        norms += float(np.linalg.norm(values)) / ISLANDS
    rounding = judge.ROUNDING * (ISLANDS + 8) * norms
    piece, quarter = slice(3 * PIECE, 4 * PIECE), slice(3 * PIECE, 3 * PIECE + PIECE // 4)
    sums = {"honest": total}
    for name, part, change in (
        ("a slice, negative", slice(None), lambda values: -values),
        ("a slice, times 1.1", slice(None), lambda values: np.float32(1.1) * values),
        ("a slice, of one island only", slice(None), lambda _: values),
        ("one piece, negative", piece, lambda values: -values),
        ("one piece, of nothing", piece, np.zeros_like),
        ("one piece, of noise as large", piece, lambda v: random.standard_normal(len(v)).astype(np.float32)),
        ("one piece, times 1.5", piece, lambda values: np.float32(1.5) * values),
        ("a quarter of a piece, negative", quarter, lambda values: -values),
    ):
        sums[name] = total.copy()
        sums[name][part] = change(total[part])
    rows: dict[str, dict[str, float]] = {}
    for name, made in sums.items():
        update = encoded(made, layout)
        limit = judge.LIMIT * min(noise**2, noise_of(update)) + rounding**2
        difference, hits = decoded(update) - total, 0
        for seed in range(trials):
            lanes = np.zeros(LANES)
            add_signed(difference, np.uint64(seed), np.uint64(0), lanes)
            hits += bool((np.square(lanes) > limit).any())
        missed = 1 - hits / trials
        rows[name] = {
            "share_of_energy": round(float(np.sum((made - total) ** 2) / np.sum(total**2)), 4),
            "in_one_step": round(hits / trials, 5),
            "within_three": round(1 - missed**3, 7),
        }
    return rows


def encoded(values: np.ndarray, layout: Layout) -> Pieces:
    pieces = Pieces(layout, INT8, np.zeros(slots_bytes(layout, INT8), np.uint8))
    for index in range(layout.num_pieces):
        part = np.ascontiguousarray(values[layout.piece(index)], np.float32)
        pieces.seal(index, INT8.encode(part, pieces.slot(index)))
    return pieces


def decoded(pieces: Pieces) -> np.ndarray:
    parts = [np.frombuffer(pieces[index], np.uint8) for index in range(pieces.layout.num_pieces)]
    return np.concatenate([INT8.decode(part, PIECE) for part in parts])


def noise_of(pieces: Pieces) -> float:
    parts = [np.frombuffer(pieces[index], np.uint8) for index in range(pieces.layout.num_pieces)]
    return sum(INT8.noise(part, PIECE, 0.0) for part in parts)


if __name__ == "__main__":
    main()
