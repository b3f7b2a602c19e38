"""fp32 values, lossless, at five sixths of their size: exponents repeat and are Huffman-coded, the rest is
left as it is.

Of 8 bits of exponent a tensor's values have 2.6 to 3.2 bits of information, as weights of one layer are of
like size. Sign and mantissa have all of their 24. Worth it for what crosses a slow link once: chunks of a
state.
"""

import zlib

import numpy as np


def shrink(values: bytes) -> bytes:
    """`values` (fp32, little-endian) for `restore`; as they are where that would not be shorter.

    The low halves [2 n], sign and rest of the mantissa [n], then the exponents as one raw deflate stream.
    """
    words = np.frombuffer(values, "<u4")
    high = (words >> 16).astype(np.uint16)
    mantissas = words.astype("<u2").tobytes(), (high >> 8 & 0x80 | high & 0x7F).astype(np.uint8).tobytes()
    coder = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_HUFFMAN_ONLY)
    shrunk = b"".join([*mantissas, coder.compress((high >> 7).astype(np.uint8).tobytes()), coder.flush()])
    return shrunk if len(shrunk) < len(values) else values


def restore(shrunk: bytes, size: int) -> bytes:
    """The `size` bytes that `shrink` was given.

    Raises ValueError when `shrunk` does not stand for so many bytes; never makes more than that.
    """
    if len(shrunk) == size:
        return shrunk
    count = size // 4
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # One byte more than there can be: a stream that gives it would inflate without end.
        exponents = decoder.decompress(memoryview(shrunk)[3 * count :], count + 1)
    except zlib.error as error:
        raise ValueError(f"not a deflate stream ({error})") from None
    if len(exponents) != count or not decoder.eof or decoder.unused_data:
        raise ValueError(f"not the exponents of {count} values")
    words = np.frombuffer(shrunk, "<u2", count).astype("<u4")
    signed = np.frombuffer(shrunk, np.uint8, count, 2 * count).astype("<u4")
    words |= (
        (signed & 0x80) << 24 | (signed & 0x7F) << 16 | np.frombuffer(exponents, np.uint8).astype("<u4") << 23
    )
    return words.tobytes()
