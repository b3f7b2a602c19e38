"""A keyed permutation of windows, first of blocks of 64, then within each block; computed, not stored."""

from math import isqrt

BLOCK_WINDOWS = 64
ROUNDS = 4
MASK = (1 << 64) - 1


def permuted(position: int, num_windows: int, key: int) -> int:
    """The window read at `position` of a pass, both in range(num_windows). `key`: 64 bits, per pass."""
    num_blocks = -(-num_windows // BLOCK_WINDOWS)
    tail = num_windows - (num_blocks - 1) * BLOCK_WINDOWS  # windows in the last block, 1 to 64
    tail_at = _hash(key, ROUNDS) % num_blocks * BLOCK_WINDOWS  # the position at which the last block is read
    if tail_at <= position < tail_at + tail:
        block, within = num_blocks - 1, position - tail_at
    else:
        turn, within = divmod(position - tail * (position >= tail_at), BLOCK_WINDOWS)
        block = _feistel(turn, num_blocks - 1, key)
    size = tail if block == num_blocks - 1 else BLOCK_WINDOWS
    return block * BLOCK_WINDOWS + _feistel(within, size, _hash(key, block + ROUNDS + 1))


def _feistel(x: int, size: int, key: int) -> int:
    """The image of `x` under a keyed permutation of range(size): a Feistel network with cycle walking.

    The network permutes range(rows * columns), a little more than range(size). A result outside range(size)
    is put through again. This is rare, and ends because the network is a permutation.
    """
    rows = isqrt(size - 1) + 1
    columns = -(-size // rows)
    while True:
        left, right = divmod(x, columns)
        for turn in range(ROUNDS):
            left = (left + _hash(key ^ right, turn)) % rows
            right = (right + _hash(key ^ (left << 32), turn)) % columns
        x = left * columns + right
        if x < size:
            return x


def _hash(key: int, number: int) -> int:
    """64 well-mixed bits of a key and a number (splitmix64's finalizer)."""
    z = (key + (number + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)
