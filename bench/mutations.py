"""Does the simulator see what it should? Production is broken on purpose, in one place after the other.

    python bench/mutations.py [--schedules 2000] [--jobs 2] [--only TEXT]

The mutations are in tests/mutations/*.toml. Each is put in where its module is imported, in a process of its
own; the files stay as they are. Then seeds are played, from 0 on, until one goes wrong or all are.

One row for each mutation: `seed` of the first schedule that went wrong, or null, and what was said of it. The
last row: `mutations`, and how many were `found`.
"""

import importlib.abc
import importlib.machinery
import multiprocessing
import os
import sys
import time
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from harness.report import ROOT, Report, arguments

SOURCE = ROOT / "src" / "atoll"
MUTATIONS = ROOT / "tests" / "mutations"
# What is imported once, before the processes begin, and is not mutated.
HEAVY = ("blake3", "cryptography.x509", "msgspec", "numba", "numpy", "safetensors.numpy", "sqlalchemy")


class Mutation(msgspec.Struct, frozen=True, kw_only=True):
    """One place of production, broken."""

    name: str
    file: str  # under src/atoll
    before: str
    after: str
    unseen: str = ""  # why it need not be found

    @property
    def module(self) -> str:
        return "atoll." + self.file.removesuffix(".py").replace("/", ".")

    def source(self) -> str:
        """The broken file's text. Raises ValueError when it has no such place, or more than one."""
        text = (SOURCE / self.file).read_text("utf-8")
        if text.count(self.before) != 1:
            raise ValueError(f"{self.name}: {self.file} has the place {text.count(self.before)} times")
        return text.replace(self.before, self.after)


def mutations() -> list[Mutation]:
    """All of them, file by file."""
    return [
        msgspec.convert(each, Mutation)
        for path in sorted(MUTATIONS.glob("*.toml"))
        for each in tomllib.loads(path.read_text("utf-8"))["mutation"]
    ]


class _Mutant(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports one module from other text."""

    def __init__(self, module: str, path: Path, text: str) -> None:
        self._module, self._path, self._text = module, str(path), text

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._module:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=self._path)

    def get_filename(self, name: str) -> str:
        return self._path

    def get_data(self, path: str) -> bytes:
        return self._text.encode()


def search(mutation: Mutation, schedules: int) -> dict[str, Any]:
    """The row of one mutation; for a process of its own."""
    for name in [name for name in sys.modules if name.split(".")[0] == "atoll"]:
        del sys.modules[name]  # what this bench itself has imported
    mutant = _Mutant(mutation.module, SOURCE / mutation.file, mutation.source())
    sys.meta_path.insert(0, mutant)
    from atoll.simulate import run, storm, swarm

    loaded = sys.modules[mutation.module].__spec__
    assert loaded is not None and loaded.loader is mutant, f"{mutation.module} is the unbroken one"
    began = time.monotonic()
    row: dict[str, Any] = {"name": mutation.name, "file": mutation.file, "seed": None, "said": ""}
    for seed in range(schedules):
        try:
            wrong = run(seed, storm(seed), swarm(seed)).wrong
        except Exception as error:
            wrong = [f"the world ended: {type(error).__name__}: {error}"]
        if wrong:
            row |= {"seed": seed, "said": wrong[0]}
            break
    return row | {"seconds": round(time.monotonic() - began, 1), "unseen": mutation.unseen}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--schedules", type=int, default=2_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="those whose name or file has this in it")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    report = Report("mutations", options, keys=("name",))
    chosen = [each for each in mutations() if options.only in f"{each.name} {each.file}"]
    for name in HEAVY:
        importlib.import_module(name)
    found = 0
    # a process each: what is imported cannot be mutated any more
    with multiprocessing.get_context("fork").Pool(options.jobs, maxtasksperchild=1) as pool:
        work = partial(search, schedules=options.schedules)
        for row in pool.imap_unordered(work, chosen, chunksize=1):
            found += row["seed"] is not None
            report.add(row)
    report.add({"name": "all", "mutations": len(chosen), "found": found, "schedules": options.schedules})


if __name__ == "__main__":
    main()
