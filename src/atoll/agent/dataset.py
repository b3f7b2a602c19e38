"""The prepared data of a run: what is missing here comes block by block, from the run's data URL or from any
donor.

A block is checked alone, by its digest in the manifest, and the manifest by the run's digest of it: who gave
it does not matter, and an island takes only what its leases need.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from atoll.agent.fetch import Donors
from atoll.data.blocks import BLOCK_BYTES
from atoll.data.manifest import FILE_NAME, Blocks, Manifest
from atoll.data.partial import PartialData, tokenizer_files
from atoll.data.remote import read_range
from atoll.errors import UserError
from atoll.swarm.messages import FetchBlock, FetchManifest
from atoll.swarm.transport import together

MAX_MANIFEST_BYTES = 64 << 20
FETCHES_AT_ONCE = 4


class Fetching:
    """Fetches what is missing of `data`: from `url` while its answers are right, else from donors.

    `url` may be empty.
    """

    def __init__(self, data: PartialData, url: str, donors: Donors, report: Callable[[str], None]) -> None:
        self._data, self._url, self._donors, self._report = data, url, donors, report

    async def provide(self, blocks: Blocks) -> Path:
        """The data's directory, once manifest, tokenizer and these blocks are in it.

        Raises NobodyHas, and UserError when the disk is full.
        """
        manifest = self._data.manifest or await self._begin()
        missing = await asyncio.to_thread(self._data.missing, blocks)
        if missing:
            self._report(f"fetching blocks of the data: {len(missing)}")

        async def take() -> None:
            while missing:
                file, index = missing.pop()
                await asyncio.to_thread(self._data.put, file, index, await self._block(manifest, file, index))

        await together(*(take() for _ in range(FETCHES_AT_ONCE)))
        self._report("the data is here")
        return self._data.directory

    async def _begin(self) -> Manifest:
        def check(raw: bytes, _: int) -> bool:
            return self._data.parse_manifest(raw) is not None

        raw = await self._at_url(FILE_NAME, 0, MAX_MANIFEST_BYTES, check)
        if raw is None:
            raw, _ = await self._donors.ask(FetchManifest(), check, MAX_MANIFEST_BYTES)
        manifest = self._data.parse_manifest(raw)
        assert manifest is not None
        tokenizer = {
            name: b"".join(
                [await self._block(manifest, name, index) for index in range(manifest.files[name].num_blocks)]
            )
            for name in tokenizer_files(manifest)
        }
        await asyncio.to_thread(self._data.keep_manifest, manifest, tokenizer)
        return manifest

    async def _block(self, manifest: Manifest, file: str, index: int) -> bytes:
        def check(content: bytes, _: int) -> bool:
            return manifest.files[file].has(index, content)

        content = await self._at_url(file, index * BLOCK_BYTES, BLOCK_BYTES, check)
        if content is None:
            names = self._donors.names or [""]  # neighbouring blocks come from different donors
            content, _ = await self._donors.ask(
                FetchBlock(file, index), check, BLOCK_BYTES, names[index % len(names)]
            )
        return content

    async def _at_url(
        self, file: str, start: int, limit: int, check: Callable[[bytes, int], bool]
    ) -> bytes | None:
        if not self._url:
            return None
        try:
            content = await asyncio.to_thread(read_range, f"{self._url}/{file}", start, start + limit)
            if not check(content, -1):
                raise UserError(f"its {file} is not the run's")
        except UserError as error:
            self._report(f"{self._url} is dropped as a donor: {error}")
            self._url = ""
            return None
        return content
