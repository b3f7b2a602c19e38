"""A disk that forgets: the files are real, and this knows what of them a power cut would leave.

A file survives as it was when it was last synced, page by page perhaps as it is now; a name, when its
directory was synced after it was given. Whatever was not synced may be there, or not, or in part, and in any
order.
"""

import contextlib
import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

from atoll.files import Disk
from atoll.simulate.process import PROCESS

PAGE_BYTES = 4096
ROTTING = (".update", ".entry", ".table", ".safetensors", "payload.bytes", "payload.kept")
MAPPED_STATE = ("parameters.f32", "momentum.f32")

Files = dict[Path, tuple[int, bytes]]  # by path within the disk: (inode, bytes)


class ForgetfulDisk(Disk):
    """The disk of one machine: everything under `directory`."""

    def __init__(self, directory: Path, seed: str) -> None:
        self.directory = directory
        self.full = False
        self.is_rotten = False  # a bit has flipped at some time
        self._random = random.Random(f"disk {seed}")
        # Hard links to all files that were ever synced, so that no inode is used twice.
        self._kept_dir = directory.with_name(f"{directory.name}.kept")
        self._synced: dict[int, bytes] = {}  # by inode: what of it survives
        self._names: dict[Path, dict[str, int]] = {}  # by directory: the names in it that survive

        directory.mkdir(parents=True, exist_ok=True)
        self._kept_dir.mkdir(exist_ok=True)

    # ------------------------------------------------------------------------------------ what a process asks
    def writing(self, path: Path) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def sync(self, path: Path) -> None:
        process = PROCESS.get()
        if process is not None and process.doom is not None:
            process.doom.synced()
        if self.full and path.suffix == ".tmp":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        self._settle(path)
        if process is not None and process.doom is not None:
            process.doom.synced()

    def sync_all(self) -> None:
        """Everything is durable: a machine that was set up long ago."""
        for path in [self.directory, *sorted(self.directory.rglob("*"))]:
            self._settle(path)

    def _settle(self, path: Path) -> None:
        """From now on a power cut leaves this file's bytes, or this directory's names, as they are."""
        if path.is_dir():
            self._names[path] = {entry.name: entry.inode() for entry in os.scandir(path) if entry.is_file()}
        else:
            self._keep(path)

    # ---------------------------------------------------------------------------------- what can happen to it
    def note(self) -> Callable[[], None]:
        """Note all files as they are; what is returned makes them so again, mappings of them too."""
        before, synced = self._files(), dict(self._synced)
        names = {directory: dict(known) for directory, known in self._names.items()}

        def restore() -> None:
            self._become({path: data for path, (_, data) in before.items()})
            self._synced = synced
            moved: dict[int, int] = {}  # a file that was replaced meanwhile has another inode now
            for path, (inode, _) in before.items():
                moved[inode] = path.stat().st_ino
                if inode in synced:
                    self._link(path)
                    synced[moved[inode]] = synced[inode]
            self._names = {
                directory: {name: moved.get(inode, inode) for name, inode in known.items()}
                for directory, known in names.items()
            }

        return restore

    def lose_power(self) -> None:
        """What was not synced is there, or not, or in part."""
        now, left = self._files(), dict[Path, bytes]()
        inodes = dict(now.values())
        names: dict[Path, set[int]] = {path: {inode} for path, (inode, _) in now.items()}
        for directory, known in self._names.items():
            for name, inode in known.items():
                names.setdefault(directory / name, set()).add(inode)
        for path in sorted(names):
            before = self._names.get(path.parent, {}).get(path.name)
            after = now[path][0] if path in now else None
            inode = before if before == after else self._random.choice([before, after])
            if inode is not None:
                left[path] = self._survives(inode, inodes.get(inode))
        self._become(left)
        self.sync_all()

    def rot(self) -> str:
        """Flip a bit of a file whose bytes are checked when they are read; its name."""
        paths = [
            p for p in sorted(self.directory.rglob("*")) if p.name.endswith(ROTTING) and p.stat().st_size
        ]
        if not paths:
            return "nothing"
        path = self._random.choice(paths)
        self._flip(path)
        return path.name

    def rot_state(self) -> str:
        """Flip a bit of the outer state, on the disk of a machine that is off."""
        paths = [p for name in MAPPED_STATE for p in sorted(self.directory.rglob(name))]
        if not paths:
            return "nothing"
        path = self._random.choice(paths)
        self._flip(path)
        return path.name

    # --------------------------------------------------------------------------------- for whoever checks it
    def durable(self, path: Path) -> bytes | None:
        """What of a file certainly survives a power cut; None if its name may not."""
        inode = self._names.get(path.parent, {}).get(path.name)
        return None if inode is None else self._synced.get(inode)

    def durable_names(self, directory: Path) -> list[str]:
        """The names in a directory that certainly survive, sorted."""
        return sorted(self._names.get(directory, {}))

    # -------------------------------------------------------------------------------------------------- parts
    def _keep(self, path: Path) -> None:
        self._synced[self._link(path)] = path.read_bytes()

    def _link(self, path: Path) -> int:
        """A file's inode, which is kept from now on."""
        inode = path.stat().st_ino
        with contextlib.suppress(FileExistsError):
            os.link(path, self._kept_dir / str(inode))
        return inode

    def _flip(self, path: Path) -> None:
        self.is_rotten = True
        with path.open("r+b") as file:
            file.seek(at := self._random.randrange(path.stat().st_size))
            byte = file.read(1)[0] ^ 1 << self._random.randrange(8)
            file.seek(at)
            file.write(bytes([byte]))

    def _files(self) -> Files:
        paths = (path for path in sorted(self.directory.rglob("*")) if path.is_file())
        return {path: (path.stat().st_ino, path.read_bytes()) for path in paths}

    def _survives(self, inode: int, now: bytes | None) -> bytes:
        synced = self._synced.get(inode)
        if now is None or now == synced:
            return synced or b""
        if synced is not None and self._random.random() < 0.5:
            return synced
        size = len(now) if self._random.random() < 0.7 else self._random.randrange(len(now) + 1)
        old = (synced or b"").ljust(size, b"\0")
        pages = range(0, size, PAGE_BYTES)
        return b"".join(
            (now if self._random.random() < 0.6 else old)[start : min(start + PAGE_BYTES, size)]
            for start in pages
        )

    def _become(self, files: dict[Path, bytes]) -> None:
        """Have these files and no others; a file that stays keeps its inode, and so its mappings."""
        for path in sorted(self.directory.rglob("*")):
            if path.is_file() and path not in files:
                path.unlink()
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size != len(data):
                path.unlink()  # to cut it short would pull the ground from under a mapping
            if not path.exists() or path.read_bytes() != data:
                with path.open("r+b" if path.exists() else "wb") as file:
                    file.write(data)
