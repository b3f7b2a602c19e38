"""The prepared data of a run, here: what is missing is fetched block by block from any donor, each checked alone."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from atoll.agent.donor import DataBlock
from atoll.agent.fetch import Donors, NobodyHas
from atoll.data.blocks import BLOCK_BYTES, FileBlocks, hash_blocks
from atoll.data.manifest import FILE_NAME, Manifest
from atoll.errors import UserError
from atoll.files import atomic_path
from atoll.swarm.layout import digest
from atoll.swarm.messages import FetchBlock, FetchManifest

MAX_MANIFEST_BYTES = 64 << 20


def locate(digest_hex: str, candidates: list[Path]) -> Path | None:
    """The first directory that holds the data of that digest."""
    for directory in candidates:
        try:
            if Manifest.load(directory).digest() == digest_hex:
                return directory
        except UserError:
            continue
    return None


async def fetch(digest_hex: str, data_dir: Path, donors: Donors, progress: Callable[[str], None]) -> None:
    """Fill `data_dir`, resuming where an earlier call ended. Raises NobodyHas, or UserError when the disk is full."""
    raw, _ = await donors.ask(FetchManifest(), lambda data, _: _is_manifest(data, digest_hex), MAX_MANIFEST_BYTES)
    manifest = msgspec.json.decode(raw, type=Manifest)
    for name, blocks in manifest.files.items():
        path = data_dir / name
        if not path.resolve().is_relative_to(data_dir.resolve()):
            raise NobodyHas(f"the run's manifest names a file outside its directory: {name}")
        if not path.exists() or hash_blocks(path) != blocks:
            progress(f"fetching {name}")
            await _fetch_file(name, blocks, path, donors)
    manifest.save(data_dir)


async def _fetch_file(name: str, blocks: FileBlocks, path: Path, donors: Donors) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for index in range(blocks.num_blocks):

            def check(data: bytes, _: int, index: int = index) -> bool:
                return digest(data) == blocks.digest(index)

            data, _ = await donors.ask(FetchBlock(name, index), check, BLOCK_BYTES)
            file.write(data)


def blocks_of(data_dir: Path | None) -> DataBlock:
    """What a donor answers from a directory of prepared data; only files that its manifest names."""
    files = Manifest.load(data_dir).files if data_dir is not None else {}

    def read(file: str, index: int) -> bytes | None:
        if data_dir is None or (file and file not in files):
            return None
        if not file:
            return (data_dir / FILE_NAME).read_bytes()
        if not 0 <= index < files[file].num_blocks:
            return None
        with (data_dir / file).open("rb") as handle:
            handle.seek(index * BLOCK_BYTES)
            return handle.read(BLOCK_BYTES)

    return read


def _is_manifest(data: bytes, digest_hex: str) -> bool:
    try:
        return msgspec.json.decode(data, type=Manifest).digest() == digest_hex
    except msgspec.DecodeError:
        return False
