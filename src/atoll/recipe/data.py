"""`[tokenizer]`, `[sources]` and `[[stage]]`: which text is trained on, and how it is mixed."""

from typing import Annotated

from msgspec import Meta, field

from atoll.recipe.bounds import FiniteFloat, Int64, NonEmptyStr, NonNegativeFloat, PathStr, PositiveInt
from atoll.recipe.table import Table

KINDS = ("text", "code", "jsonl", "parquet", "dataset")  # of sources


class Tokenizer(Table, frozen=True):
    """How text becomes tokens: exactly one of the two."""

    train: PositiveInt | None = None  # the size of a byte-level BPE vocabulary to train on the sources
    file: PathStr | None = None  # a `tokenizer.json`, or Llama 3's `tokenizer.model`


Number = Int64 | FiniteFloat  # a whole number stays one: beyond 2**53 a float would be another


class Range(Table, frozen=True):
    """The numbers from `min` to `max`, both included; without one of them there is no limit on that side."""

    min: Number | None = None
    max: Number | None = None


ColumnNames = Annotated[
    list[NonEmptyStr], Meta(min_length=1, description="an array of at least one column's name")
]
Values = Annotated[
    list[str | Int64 | FiniteFloat | bool], Meta(min_length=1, description="an array of at least one value")
]


class Columns(Table, frozen=True, kw_only=True):
    """Which columns of a table make a row: the turns, or a prompt and what answers it.

    A prompt, an answer and each of the two sides is a text or turns. Turns are tables of `role` and
    `content`, or of `from` and `value`.
    """

    messages: NonEmptyStr | None = None  # all the turns of a chat
    prompt: NonEmptyStr | ColumnNames | None = None  # of several, the texts that are not empty are joined
    completion: NonEmptyStr | None = None  # what answers the prompt of a chat
    chosen: NonEmptyStr | None = None  # of a pair: the better answer, or the whole chat with it
    rejected: NonEmptyStr | None = None  # of a pair: the worse
    system: NonEmptyStr | None = None  # text of a system turn, where the turns have none
    tools: NonEmptyStr | None = None  # descriptions of the functions that may be called


class Source(Table, frozen=True, kw_only=True):
    """A dataset. Exactly one of the first five keys says where it is and of which kind; a partitioned one has
    none of them, as each island says where its part is.
    """

    text: PathStr | None = None  # a file, a folder of .txt, or "package:NAME": text that ships with atoll
    code: PathStr | None = None  # a source tree, or "stdlib": the interpreter's own standard library
    # A .jsonl file, also .gz, .zst, .bz2 or .xz; a folder of them; or "package:NAME": rows that ship with
    # atoll.
    jsonl: PathStr | None = None
    parquet: PathStr | None = None  # a file or a folder
    # A local folder laid out like a dataset of the Hugging Face hub; where there is none of that name, the
    # hub's, which is streamed and needs a `revision`.
    dataset: PathStr | None = None
    revision: NonEmptyStr | None = None  # dataset only: a commit (a tag or a branch may move meanwhile)
    config: PathStr | None = None  # dataset only: one of its configurations; a subfolder of a local one
    split: NonEmptyStr = "train"  # dataset only
    # dataset only: a pattern like "data/*.parquet", in the place of config and split
    data_files: PathStr | None = None
    column: NonEmptyStr = "text"  # jsonl, parquet, dataset: where the text is
    # The same, where the objective trains on rows: none given, the columns are known by their usual names.
    columns: Columns | None = None
    # jsonl, parquet, dataset: only the rows whose columns have such values
    keep: dict[NonEmptyStr, Values | Range] = field(default_factory=dict[str, Values | Range])
    separator: NonEmptyStr | None = None  # text only: what stands between two documents of a file
    suffix: str = ".py"  # code only: how the names of its files end; "" takes every file
    # Private: each island has a part of its own (`atoll prepare --partition`), or none.
    partitioned: bool = False
    skip_bad_rows: bool = False  # skip and count rows that are null, not text or not UTF-8

    @property
    def kinds(self) -> list[str]:
        """Which of the five kinds are given; one, in a recipe that was checked, or none where partitioned."""
        return [kind for kind in KINDS if getattr(self, kind) is not None]


class Stage(Table, frozen=True):
    """A mixture of sources that is valid up to an inner step."""

    until: PositiveInt  # inner steps of the run, from its beginning
    # weights, by source; may be left out where there is only one source
    mixture: dict[str, NonNegativeFloat] = field(default_factory=dict[str, float])


Stages = Annotated[list[Stage], Meta(min_length=1, description="an array of at least one stage")]
