"""The command line: the parser of all verbs, and what their errors become: one sentence and an exit status.

The verbs are in one file a group. Each imports what it needs only when it runs, so that `--help` answers at
once.
"""

import argparse
import os
import signal
import sys

from atoll import __version__
from atoll.cli import data, model, run
from atoll.cli.verbs import Verbs
from atoll.errors import UserError

EXIT_FAILURE, EXIT_MISTAKE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; the exit status: 0, 2 for a user's mistake, 1 for a failure, 130 for Ctrl-C."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log lines say less than our errors
    options = parser().parse_args(arguments)
    from atoll.run.processes import watch_leash

    watch_leash()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED)
    )  # so that nothing half-written is left
    try:
        status = options.verb(options) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read our output has enough; Python's own last flush would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except UserError as error:
        print(f"atoll: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers", "tokenizers", "pyarrow"):
            raise
        print(
            f"atoll: this verb needs {error.name}; install it with: pip install 'atoll[train]'",
            file=sys.stderr,
        )
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """Of the whole command line."""
    made = argparse.ArgumentParser(
        prog="atoll",
        description="Train a language model together, across the internet.",
        epilog="First: atoll demo. `atoll VERB --help` tells more.",
    )
    made.add_argument("--version", action="version", version=f"atoll {__version__}")
    verbs = Verbs(made)
    for group in (run, model, data):
        group.add_to(verbs)
    return made
