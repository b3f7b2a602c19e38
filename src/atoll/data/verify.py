"""Verification of prepared data against its manifest, for `atoll prepare --check`."""

from pathlib import Path

import numpy as np

from atoll.data.columns import TRAINED
from atoll.data.manifest import Manifest, Shard
from atoll.data.tokens import TokenShard
from atoll.errors import UserError

READ_TOKENS = 1 << 20


def verify(data_dir: Path) -> Manifest:
    """The manifest of `data_dir`, once every block of every file and every token has been verified.

    Raises UserError, naming the file, for a damaged block, a token that is not in the vocabulary, and a
    document that does not have exactly one BOS, at its head.
    """
    manifest = Manifest.load(data_dir)
    for path in manifest.files:
        manifest.open(data_dir, path).check_all()
    for source in manifest.sources.values():
        for shard in (*source.train, *source.heldout):
            _verify_shard(data_dir, manifest, shard)
    return manifest


def _verify_shard(data_dir: Path, manifest: Manifest, shard: Shard) -> None:
    opened = TokenShard(data_dir, manifest, shard)
    starts = opened.offsets
    if starts[0] != 0 or starts[-1] != shard.num_tokens or (np.diff(starts) < 1).any():
        raise UserError(
            f"{data_dir / shard.offsets}: the starts of documents do not ascend from 0 to "
            f"{shard.num_tokens}; prepare the data again"
        )
    padding = np.zeros(0, bool)
    if manifest.window_tokens is not None:
        padding = _padding(opened, starts)
    for start in range(0, shard.num_tokens, READ_TOKENS):
        tokens = opened.read(start, min(start + READ_TOKENS, shard.num_tokens))
        is_bos = tokens == manifest.bos_id
        first, last = np.searchsorted(starts[:-1], (start, start + len(tokens)))
        is_bos[starts[first:last] - start] ^= True
        if len(padding):
            is_bos ^= padding[start : start + len(tokens)]  # which is BOS throughout
        if is_bos.any():
            at = start + int(is_bos.argmax())
            raise UserError(
                f"{data_dir / shard.tokens}: token {at}: BOS must stand at the head of every document and "
                "nowhere else; prepare the data again"
            )


def _padding(shard: TokenShard, starts: np.ndarray) -> np.ndarray:
    """[num_tokens] bool: the padding's tokens but for the first of each, of a shard of packed rows.

    Padding is a document none of which is trained on.
    """
    counts = np.add.reduceat(shard.column(TRAINED, 0, int(starts[-1])), starts[:-1], dtype=np.int64)
    padding = np.repeat(counts == 0, np.diff(starts))
    padding[starts[:-1]] = False
    return padding
