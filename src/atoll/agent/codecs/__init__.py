"""The codecs that this version knows, by name. `codec.py` says what a codec is; each has a file of its own.

A new codec is one file, a line here, and its name in the recipe's choices (`recipe.Outer.codec`).
"""

from atoll.agent.codecs.bf16 import Bf16
from atoll.agent.codecs.codec import Codec
from atoll.agent.codecs.fp32 import Fp32
from atoll.agent.codecs.int8 import Int8
from atoll.errors import UserError

CODECS: dict[str, Codec] = {codec.name: codec for codec in (Fp32(), Bf16(), Int8())}


def codec_named(name: str) -> Codec:
    """The codec of that name. Raises UserError when this version knows none."""
    codec = CODECS.get(name)
    if codec is None:
        raise UserError(
            f"no codec is called {name!r}; this version of atoll knows {', '.join(CODECS)}: "
            "run the version that the run's coordinator runs"
        )
    return codec
