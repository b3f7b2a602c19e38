"""Held-out loss of a run's state, by source. Data that is not here is fetched from islands."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

from atoll.agent import membership
from atoll.agent.dataset import Fetching
from atoll.agent.fetch import Donors, NobodyHas
from atoll.agent.membership import Membership
from atoll.data.loader import Loader
from atoll.data.manifest import Blocks
from atoll.data.partial import PartialData
from atoll.errors import UserError
from atoll.model.attention import Mask
from atoll.model.head import cross_entropy
from atoll.model.hf import Model
from atoll.recipe import Recipe
from atoll.run import operate
from atoll.run.directory import RunDir
from atoll.swarm.address import Address, Addresses
from atoll.swarm.grpc_transport import GrpcTransport
from atoll.train import HELDOUT_WINDOWS

MICRO_BATCH = 1  # windows at once

Say = Callable[[str], None]


class Data:
    """A run's prepared data as a machine has it that has only joined: what is missing comes from islands."""

    def __init__(self, run_dir: RunDir, say: Say) -> None:
        """Raises UserError where no island of a run is in the directory."""
        self._run_dir, self._say = run_dir, say
        self._member, self._place = _member(run_dir)
        self._here = PartialData(self._member.run.data_digest, [run_dir.data])

    def provide(self, blocks: Blocks | None = None) -> None:
        """Have manifest, tokenizer, and these blocks here. Raises UserError where nobody has them."""
        if self._here.manifest is not None and not self._here.missing(blocks or {}):
            return
        islands = operate.status(self._run_dir).islands
        addresses = {
            row.island: tuple(Address.parse(text) for text in row.addresses)
            for row in islands
            if row.ready and row.addresses
        }
        asyncio.run(self._fetch(blocks or {}, addresses))

    async def _fetch(self, blocks: Blocks, addresses: dict[str, Addresses]) -> None:
        transport = GrpcTransport(self._member.credentials(self._place))
        donors = Donors(transport, addresses, self._say)
        try:
            await Fetching(self._here, "", donors, self._say).provide(blocks)
        except NobodyHas as error:
            raise UserError(f"{self._run_dir.path}: the run's data is not here: {error}") from error
        finally:
            await donors.close()
            await transport.close()


@torch.no_grad()
def heldout_losses(model: Model, recipe: Recipe, run_dir: RunDir, data: Data) -> dict[str, float]:
    """Nats per token of text that is never trained on, by source; of the windows that islands look at too.

    Raises UserError where the data is neither here nor with an island.
    """
    loader = Loader(run_dir.data, recipe)
    data.provide(loader.heldout_blocks(HELDOUT_WINDOWS))
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    model.eval()
    for source, batch in loader.heldout(MICRO_BATCH, HELDOUT_WINDOWS):
        mask = Mask.of_documents(torch.from_numpy(batch.documents))
        hidden = model(torch.from_numpy(batch.tokens), mask)
        found = cross_entropy(hidden, model.head_weight, torch.from_numpy(batch.labels))
        sums[source] += found.loss.item()
        counts[source] += int(found.num_tokens)
    return {source: sums[source] / count for source, count in counts.items() if count}


def _member(run_dir: RunDir) -> tuple[Membership, Path]:
    for directory in sorted(run_dir.islands.glob("*")):
        if (member := membership.load(directory)) is not None:
            return member, directory
    raise UserError(
        f"{run_dir.path}: no island of a run here; name the directory of a run that this machine has joined"
    )
