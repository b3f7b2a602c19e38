"""`[about]`: what the run's model card says that no file of the run could tell. All members agree to it."""

from typing import Annotated

from msgspec import Meta, field

from atoll.recipe.bounds import NonEmptyStr
from atoll.recipe.table import Table

Language = Annotated[
    str, Meta(pattern=r"\A[a-z]{2,3}\Z", description="a language's code of two or three letters, as en")
]
HubName = Annotated[
    str, Meta(pattern=r"\A[\w.-]+/[\w.-]+\Z", description="a name on the Hugging Face hub, as owner/name")
]


class About(Table, frozen=True, kw_only=True):
    """For the model card, and for whoever decides whether to join."""

    license: NonEmptyStr | None = None  # of the weights: one of the hub's identifiers, as apache-2.0
    languages: list[Language] = field(default_factory=list[Language])  # of the data
    base_model: HubName | None = None  # the checkpoint that `model.from` is a copy of
