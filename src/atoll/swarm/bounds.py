"""How large each field may be that a peer fills in. Doors refuse what is larger while they decode it.

`words.py` bounds what people write. A message as a whole is bounded by its door (`messages/door.py`).
"""

from typing import Annotated

from msgspec import Meta

from atoll.swarm.address import MAX_PORT, Address
from atoll.swarm.layout import DIGEST_BYTES

MAX_NUMBER = 2**31 - 1  # of steps, attempts, pieces: what an integer column of any database holds
MAX_COUNT = 2**53  # of tokens and bytes: exact as a float too
MAX_RANGES = 1 << 16  # in a lease
MAX_INDEX = 2**62  # of a sample
MAX_GIVEN_ADDRESSES = 16
MAX_PARTITIONS = 1024
MAX_PARTICIPANTS = 1 << 16
MAX_STAGES = 1024

Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Root = Annotated[bytes, Meta(max_length=DIGEST_BYTES)]  # a digest, or empty where there is none
Signature = Annotated[bytes, Meta(max_length=64)]
Label = Annotated[str, Meta(max_length=128)]  # what programs make: an island's id, a nonce, a digest in hex
Path = Annotated[str, Meta(max_length=1024)]  # of a file of prepared data; the name of a partition
Number = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Port = Annotated[int, Meta(ge=0, le=MAX_PORT)]
Signed = Annotated[int, Meta(ge=-1, le=MAX_NUMBER)]  # a number, or -1 where there is none
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Measures = Annotated[bytes, Meta(max_length=600_000)]  # MAX_GROUPS rows (`audit.py`)
Square = Annotated[float, Meta(ge=0, le=1e300)]  # a squared norm: neither NaN nor infinite
Index = Annotated[int, Meta(ge=0, le=MAX_INDEX)]
Lease = Annotated[tuple[tuple[Index, Index], ...], Meta(max_length=MAX_RANGES)]
Given = Annotated[tuple[Address, ...], Meta(max_length=MAX_GIVEN_ADDRESSES)]
Partitions = Annotated[dict[Path, Index], Meta(max_length=MAX_PARTITIONS)]
