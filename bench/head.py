"""The chunked head beside plain logits at 128,256 words: CPU seconds and peak memory of loss and gradients.

    python bench/head.py [--threads 1] [--tokens 2048] [--hidden 1024]

Each side runs in a process of its own, whose peak is the kernel's (VmHWM, set back before the step): all that
the step needs beyond hidden states and weight, their gradients included. The better of two. About two
minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import torch
from harness.machine import forget_peak, process_bytes
from harness.report import Report, arguments

from atoll.model.head import cross_entropy

NUM_WORDS = 128_256


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options)))
        return
    report = Report("head", options, keys=("tokens", "hidden", "threads"), packages=("torch",))
    sides = {"ours": [], "peer": []}
    for _ in range(options.repeats):  # in turns; the better of each, since others use this machine too
        for side, found in sides.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            found.append(json.loads(done.stdout))
    seconds = {side: min(f["seconds"] for f in found) for side, found in sides.items()}
    peak = {side: min(f["peak_bytes"] for f in found) for side, found in sides.items()}
    report.add(
        {
            "words": NUM_WORDS,
            "tokens": options.tokens,
            "hidden": options.hidden,
            "threads": options.threads,
            "ours": round(seconds["ours"], 2),
            "peer": round(seconds["peer"], 2),
            "unit": "s",
            "ratio": round(seconds["peer"] / seconds["ours"], 3),
            "ours_peak_mib": peak["ours"] >> 20,
            "peer_peak_mib": peak["peer"] >> 20,
            "memory_ratio": round(peak["ours"] / peak["peer"], 3),
        }
    )


def measure(options: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(options.threads)
    hidden = torch.randn(options.tokens, options.hidden, requires_grad=True)
    weight = (torch.randn(NUM_WORDS, options.hidden) / options.hidden**0.5).requires_grad_()
    labels = torch.randint(0, NUM_WORDS, (options.tokens,))
    step = our_step if options.side == "ours" else their_step
    step(hidden[:8], weight, labels[:8])  # starts what is started once
    hidden.grad = weight.grad = None
    forget_peak()
    before = process_bytes("VmRSS")
    start = time.process_time()
    step(hidden, weight, labels)
    return {"seconds": time.process_time() - start, "peak_bytes": process_bytes("VmHWM") - before}


def our_step(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> None:
    (cross_entropy(hidden, weight, labels).objective / labels.numel()).backward()


def their_step(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> None:
    torch.nn.functional.cross_entropy(hidden @ weight.T, labels).backward()


if __name__ == "__main__":
    main()
