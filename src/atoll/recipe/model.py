"""`[model]`: which network is trained."""

from pathlib import Path
from typing import Any

import msgspec

from atoll.given import expanded
from atoll.recipe.bounds import NonEmptyStr, PathStr, PositiveFloat, PositiveInt
from atoll.recipe.lora import Lora
from atoll.recipe.table import Table


class Model(Table, frozen=True, kw_only=True):
    """A preset, a checkpoint, or a module of the caller's own: exactly one of the first three keys.

    The others are dimensions, under the names of `transformers`, that take the place of the preset's.
    """

    preset: NonEmptyStr | None = None  # a name in `model/presets.py`
    from_: PathStr | None = msgspec.field(name="from", default=None)  # the directory of a checkpoint
    own: bool = False  # a module and loop of your own, as in `examples/own_loop.py`
    lora: Lora | None = None  # of a checkpoint: adapters are trained; none given: all weights are
    vocab_size: PositiveInt | None = None
    hidden_size: PositiveInt | None = None
    intermediate_size: PositiveInt | None = None
    num_hidden_layers: PositiveInt | None = None
    num_attention_heads: PositiveInt | None = None
    num_key_value_heads: PositiveInt | None = None
    rope_theta: PositiveFloat | None = None
    tie_word_embeddings: bool | None = None

    @property
    def checkpoint(self) -> Path:
        """Where `from` leads. Raises UserError for the home of somebody who is unknown here."""
        return expanded(self.from_ or "")

    @property
    def dimensions(self) -> dict[str, Any]:
        """The dimensions that the recipe gives, by name."""
        given = msgspec.structs.asdict(self).items()
        return {
            name: value
            for name, value in given
            if name not in ("preset", "from_", "own", "lora") and value is not None
        }
