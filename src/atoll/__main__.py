"""The command `atoll`, and `python -m atoll`."""

import signal
import sys


def main() -> int:
    """The command line. Before a verb begins nothing is to be cleaned up, and Ctrl-C ends the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from atoll import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
