"""What a codec is: fp32 values of a piece to the bytes that travel, and back."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from atoll.agent.arrays import Bytes, Floats
from atoll.agent.kernel import kernel

# A squared norm of one piece. Below it neither a weighted sum nor its momentum overflows fp32.
MAX_SQUARE = 1e74


class Codec(ABC):
    """One way to encode pieces. It has no state of its own: one object serves the whole process.

    Participants encode their pseudo-gradients; an owner decodes and adds these, and encodes the weighted sum.
    The same input gives the same bits on every machine, which `diloco.self_test` compares.

    In the methods n is the number of elements of a piece, which is whole blocks (`layout.BLOCK`).
    """

    name: ClassVar[str]  # in recipes and headers
    # Per element, fp32 values that an island keeps from step to step; their sum is what is left over.
    num_residuals: ClassVar[int] = 0

    @abstractmethod
    def max_bytes(self, num_elements: int) -> int:
        """The most bytes that n elements can take. Bounds buffers, files and what a peer may send.

        A piece must fit a frame with some room to spare (`transport.MAX_FRAME_BYTES`).
        """

    def min_bytes(self, num_elements: int) -> int:
        """The fewest bytes that n elements can take: the most, unless the size depends on the values."""
        return self.max_bytes(num_elements)

    def check_size(self, num_bytes: int, num_elements: int) -> None:
        """Raises ValueError unless n elements can take so many bytes."""
        least, most = self.min_bytes(num_elements), self.max_bytes(num_elements)
        if not least <= num_bytes <= most:
            allowed = f"{most}" if least == most else f"{least} to {most}"
            raise ValueError(f"{num_bytes} bytes, where {self.name} takes {allowed}")

    @abstractmethod
    def encode(self, values: Floats, out: Bytes, residual: Floats | None = None) -> int:
        """Encode `values` [n] into the beginning of `out` [max_bytes(n)]; the number of bytes written.

        Never raises, even where a value is NaN or infinite. The bytes then decode to nothing: `add_decoded`
        raises for them, so that such a value never passes for a number.

        `residual` [num_residuals, n] fp32 is changed in place: on entry it is what the island's last
        committed payload left over, on return what this one leaves. It is None for a codec that keeps none,
        and for the sum that an owner encodes: owners change from step to step, so what the encoding of a sum
        drops is lost.
        """

    def add_decoded(self, data: Bytes, weight: np.float32, total: Floats) -> float:
        """total += weight * decoded `data`, elementwise in fp32: the decoded value is rounded, then the
        product, then the sum. `data` [size] are uint8, `total` [n] fp32. Returns the squared norm of the
        decoded values, which is below MAX_SQUARE.

        Raises ValueError when `data` are no encoding of n such values; `total` is then undefined.
        """
        self.check_size(len(data), len(total))
        square = self._add(data, weight, total)
        if not square < MAX_SQUARE:
            raise ValueError("values that are not finite, or too large to be summed")
        return square

    @abstractmethod
    def _add(self, data: Bytes, weight: np.float32, total: Floats) -> float:
        """As `add_decoded`, where the size of `data` is within the bounds. The bytes may be a hostile peer's:
        a value that is not finite makes the squared norm NaN or infinite, and whatever else can be wrong
        with them raises ValueError.
        """

    def noise(self, data: Bytes, num_elements: int, square: float) -> float:
        """A bound of the squared error that encoding a sum as `data` may make in one of LANES equal parts of
        its elements, for the audit of sums; infinite for a codec that may leave anything out.

        `square` is the squared norm of what `data` [size] decode to.
        """
        return math.inf

    def decode(self, data: Bytes, num_elements: int) -> Floats:
        """The fp32 values [n] that `data` [size] stand for. Raises ValueError as `add_decoded` does."""
        total = np.zeros(num_elements, np.float32)
        self.add_decoded(data, np.float32(1), total)
        return total


@kernel
def squared_norm(values: Floats) -> float:
    """The sum of the squares of `values` [n, a multiple of 4]; NaN or infinite where one of them is."""
    # Four sums at a time, since the compiler may not reorder one: four additions do not wait for one another.
    a = b = c = d = 0.0
    for i in range(0, values.size, 4):
        a += np.float64(values[i]) * np.float64(values[i])
        b += np.float64(values[i + 1]) * np.float64(values[i + 1])
        c += np.float64(values[i + 2]) * np.float64(values[i + 2])
        d += np.float64(values[i + 3]) * np.float64(values[i + 3])
    return a + b + c + d
