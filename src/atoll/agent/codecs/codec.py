"""What a codec is: fp32 values of a piece to the bytes that travel, and back."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from atoll.agent.arrays import Bytes, Floats


class Codec(ABC):
    """One way to encode pieces. It has no state of its own: one object serves the whole process.

    Participants encode their pseudo-gradients; an owner decodes and adds these, and encodes the weighted sum.
    The same input gives the same bits on every machine, which `diloco.self_test` compares.

    In the methods n is the number of elements of a piece, which is whole blocks (`layout.BLOCK`).
    """

    name: ClassVar[str]  # in recipes and headers
    num_residuals: ClassVar[int] = 0  # fp32 values per element that an island keeps from step to step

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

        Never raises: a hostile participant can make any value of a sum NaN or infinite. What such a value
        becomes is undefined, but the bytes are an encoding.

        `residual` [num_residuals, n] fp32 is changed in place: on entry it is what the island's last
        committed payload left over, on return what this one leaves. It is None for a codec that keeps none,
        and for the sum that an owner encodes: owners change from step to step, so what the encoding of a sum
        drops is lost.
        """

    def add_decoded(self, data: Bytes, weight: np.float32, total: Floats) -> None:
        """total += weight * decoded `data`, elementwise in fp32: the decoded value is rounded, then the
        product, then the sum. `data` [size] are uint8, `total` [n] fp32.

        Raises ValueError when `data` are no encoding of n elements; `total` is then undefined.
        """
        self.check_size(len(data), len(total))
        self._add(data, weight, total)

    @abstractmethod
    def _add(self, data: Bytes, weight: np.float32, total: Floats) -> None:
        """As `add_decoded`, where the size of `data` is within the bounds. The bytes may be a hostile peer's:
        whatever else can be wrong with them raises ValueError.
        """

    def decode(self, data: Bytes, num_elements: int) -> Floats:
        """The fp32 values [n] that `data` [size] stand for. Raises ValueError as `add_decoded` does."""
        total = np.zeros(num_elements, np.float32)
        self.add_decoded(data, np.float32(1), total)
        return total
