"""How a machine is about to join a run, and the process that looks at both before it does."""

import subprocess
import sys
from pathlib import Path

import msgspec

from atoll.doctor.accelerator import accelerators
from atoll.recipe import Island
from atoll.swarm.address import Address

LOOK_SECONDS = 40.0  # for the host to answer, and to try this machine


class Joining(msgspec.Struct, frozen=True, kw_only=True):
    """How a machine is about to join."""

    ticket: str
    run_dir: Path
    member_dir: Path | None  # of the island that this machine is in the run already; None: it is new there
    listen: Address | None  # None: it only dials out
    relay: bool
    metered: bool
    own: Island  # this machine's part of the recipe


def offer(joining: Joining) -> list[str]:
    """What `offer.described` says; no sentences where nothing is known in time. Imports torch.

    A process of its own asks, so that the trainer, which alone needs torch, does without what asking needs.
    The ticket goes there by standard input: a command line can be read by everybody.
    """
    asking = subprocess.Popen(
        [sys.executable, "-m", "atoll.doctor.offer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert asking.stdin is not None
        asking.stdin.write(msgspec.json.encode(joining, enc_hook=str) + b"\n")
        asking.stdin.flush()  # it asks while this process imports torch
        devices = None if joining.relay else accelerators()
        said, _ = asking.communicate(msgspec.json.encode(devices) + b"\n", LOOK_SECONDS)
    except (subprocess.TimeoutExpired, BrokenPipeError):
        return []
    finally:
        asking.kill()
        asking.wait()
    return msgspec.json.decode(said, type=list[str]) if asking.returncode == 0 else []
