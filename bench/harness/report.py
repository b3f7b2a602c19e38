"""How a bench says what it measured: a JSON line for each row, and with --save a place in bench/results/."""

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness import results
from harness.machine import present

ROOT = Path(__file__).parents[2]
# These hold nothing that is measured, so a change of them does not make the code another.
NOT_CODE = (":!docs", ":!bench/results")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows what every bench takes. `description` is the bench's own docstring."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--save",
        action="store_const",
        const=results.RESULTS_DIR,
        help="keep each row, with commit, date and machine, in bench/results/NAME.json",
    )
    parser.add_argument("--save-to", dest="save", type=Path, metavar="DIR", help="keep them in DIR/NAME.json")
    parser.add_argument("--commit", help="whose code this is (default: what git says)")
    return parser


class Report:
    """The rows of one run of a bench."""

    def __init__(
        self,
        bench: str,
        options: argparse.Namespace,
        *,
        keys: Sequence[str],
        packages: Sequence[str] = (),
        accelerator: str = "",
    ) -> None:
        """`keys` are the values that tell a row from the others: a row with the same ones replaces it.

        `packages` are the libraries whose versions matter. Ends the program in one sentence where rows are
        to be saved and nobody says which commit they are of.
        """
        self._bench, self._keys, self._directory = bench, list(keys), options.save
        self._origin = results.Origin(
            commit=options.commit or commit(),
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            machine=present(accelerator),
            command=command(),
            packages=dict(installed(packages)),
        )
        if options.save and not self._origin.commit:
            raise SystemExit("--save: this is no git checkout; say with --commit whose code it is")

    def add(self, values: Mapping[str, Any]) -> None:
        """Print a row, and keep it if that was asked for.

        `load` is added to it: how many processes of the machine wanted a core in the last minute, on average.
        """
        # as it will be read from the file: counters become objects, tuples lists
        plain = msgspec.to_builtins({**values, "load": round(os.getloadavg()[0], 1)})
        row = results.Row(values=plain, origin=self._origin)
        origin = {
            "commit": self._origin.commit,
            "date": self._origin.date,
            "machine": str(self._origin.machine),
        }
        print(json.dumps({"bench": self._bench, **plain, **origin}), flush=True)
        if self._directory:
            kept = results.load(self._bench, self._directory)
            rows = kept.rows if kept else []
            before = results.Results(bench=self._bench, keys=self._keys, rows=rows)
            results.save(before.with_row(row), self._directory)


def installed(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, version) of those that are installed here."""
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)


def commit() -> str | None:
    """The commit of this checkout, with -dirty where the code differs from it; None where there is no git."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True)
        if head.returncode:
            return None
        changed = [*git, "status", "--porcelain", "--", ".", *NOT_CODE]
        return head.stdout.strip() + ("-dirty" if subprocess.check_output(changed) else "")
    except FileNotFoundError:
        return None


def command() -> str:
    """How this bench was started, without what has no effect on its figures."""
    _, kept = arguments(None).parse_known_args()
    return shlex.join(["python", f"bench/{Path(sys.argv[0]).name}", *kept])
