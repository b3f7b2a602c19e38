"""What every table of a recipe is."""

import msgspec


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the recipe: its fields are the keys that it may have."""
