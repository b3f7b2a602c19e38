"""The verb `atoll metrics`: a run's figures in Prometheus, TensorBoard or Weights & Biases."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.cli.address import parse_address
from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import Verbs
from atoll.errors import UserError

if TYPE_CHECKING:
    from atoll.sinks.follow import Follower
    from atoll.sinks.sink import Sink

DEFAULT_PORT = 9464  # of Prometheus endpoints of programs that have none of their own


def add_to(verbs: Verbs) -> None:
    """Add this verb."""
    text = "take a run's figures to Prometheus, TensorBoard or Weights & Biases, live or long after"
    where = "the run's directory, or the events file of one"
    added = verbs.add_with_run(metrics, text, where)
    added.add_argument(
        "--prometheus",
        nargs="?",
        const="",
        metavar="[HOST:]PORT",
        help=f"serve the newest figures (default 127.0.0.1:{DEFAULT_PORT})",
    )
    added.add_argument("--tensorboard", type=Path, metavar="DIR", help="write curves below this directory")
    added.add_argument(
        "--wandb", metavar="PROJECT", help="log curves there; WANDB_MODE=offline: keep them here"
    )
    added.add_argument("--once", action="store_true", help="end where the file ends, and do not follow it")


def metrics(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.run.directory import RunDir
        from atoll.sinks.follow import Follower

    if options.prometheus is None and options.tensorboard is None and options.wandb is None:
        raise UserError(
            "say where to: --prometheus, --tensorboard DIR or --wandb PROJECT; every event is in the events "
            "file already, one JSON object a line"
        )
    if options.once and options.prometheus is not None:
        raise UserError("--once: Prometheus asks for figures again and again; leave out one of the two")
    path = options.run if options.run.is_file() else RunDir(options.run).events
    if not path.is_file():
        raise UserError(
            f"{path}: no events file; it lies in the run's directory on the machine that hosts the run"
        )
    follower = Follower(path)
    sinks = _sinks(options, follower, path.parent)
    try:
        if options.once:
            print(f"{follower.step(sinks)} events of {follower.run_id}")
        else:
            print(f"following {path}; Ctrl-C ends it", flush=True)
            follower.run(sinks)
    finally:
        for sink in sinks:
            sink.close()
        if follower.complaint:
            print(follower.complaint)


def _sinks(options: argparse.Namespace, follower: Follower, directory: Path) -> list[Sink]:
    """Those that were asked for. Raises UserError."""
    from atoll.sinks.prometheus import Prometheus
    from atoll.sinks.tensorboard import TensorBoard
    from atoll.sinks.weights import Wandb

    found: list[Sink] = []
    if (given := options.prometheus) is not None:
        text = f"127.0.0.1:{given}" if given.isdigit() else given
        served = Prometheus(parse_address("--prometheus", text, DEFAULT_PORT, "127.0.0.1"))
        print(f"Prometheus finds the figures at port {served.port}, path /metrics")
        found.append(served)
    if options.tensorboard is not None:
        found.append(TensorBoard(options.tensorboard / follower.run_id))
    if options.wandb is not None:
        found.append(Wandb(options.wandb, follower.run_id, directory))
    return found
