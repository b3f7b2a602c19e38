"""The facts of a run from which its model card is written: `facts.json` of an export.

Each is taken from the run's files, as the comments say. "records": the signed commit records; "recipe": the
run's part of it, signed as well; "events": the events file, which only the machine of the coordinator has;
"status": what the coordinator, or its database, knows; "evaluations": the results of `atoll evaluate` in the
run's directory. A fact that none of the files here tells is None.
"""

import msgspec

from atoll.evaluate.results import Result

VERSION = 1


class Contributor(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets the credit for some islands; an island whose contributor is not known stands alone."""

    name: str  # status; an island's id where nobody was named
    is_named: bool
    num_islands: int
    tokens: int  # records
    links: tuple[str, ...] = ()  # pages about them, as they say; status


class Place(msgspec.Struct, frozen=True):
    """Where islands stood, as their contributors say."""

    name: str  # status
    found: tuple[float, float] | None  # (latitude, longitude) of the city that it names; None: none is known


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a source's documents come from; recipe."""

    kind: str  # text, code, jsonl, parquet or dataset; "": private, of which each island has a part
    dataset: str = ""  # its name on the hub
    revision: str = ""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What was consumed in one stage of the mixture; records."""

    until_inner_step: int  # recipe
    tokens: dict[str, int]  # by source


class Utilisation(msgspec.Struct, frozen=True, kw_only=True):
    """Three answers to how well the machines were used, each a share from 0 to 1; events."""

    as_original: float | None  # computing / (computing + exchanging)
    participation: float | None  # participants of a commit / islands that were there, mean over commits
    end_to_end: float | None  # computing / all time from an island's first joining to its last commit


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What an island sends for its contribution, beside fp32 gradients at every inner step; recipe."""

    codec: str
    bytes_per_parameter: float
    factor: float  # inner steps of an outer step x 4 bytes / bytes_per_parameter


class Loss(msgspec.Struct, frozen=True):
    """Mean loss of one outer step."""

    tokens: int  # consumed up to its end; records
    loss: float  # in nats per token; events


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the events file tells of the steps that led to the state."""

    num_steps: int  # that it tells of
    began: float  # the first of them was committed then, in seconds since the epoch
    ended: float
    losses: tuple[Loss, ...]
    heldout_loss: float | None  # the last that an island has measured
    utilisation: Utilisation
    faults: dict[str, int]  # how many of each kind were survived; only kinds that there were


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The model; config.json of the export. None: its architecture has another name for that."""

    architecture: str
    num_parameters: int
    num_layers: int | None
    hidden_size: int | None
    num_heads: int | None
    num_key_value_heads: int | None
    context_length: int  # that it was trained on; recipe
    vocab_size: int | None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A run up to one state."""

    version: int = VERSION
    atoll: str  # version of the program that has exported it
    name: str  # recipe
    run_id: str
    recipe_digest: str
    step: int  # updates in the state; records
    num_outer_steps: int  # recipe
    root: str  # hex; records
    fingerprint: str  # hex, of the run's certificate
    record_key: str  # hex
    is_proven: bool  # the export carries a proof
    dtype: str  # of the weights: fp32 or bf16
    license: str | None  # recipe
    languages: tuple[str, ...]  # recipe
    base_model: str | None  # its name on the hub, else that of its directory; recipe. None: from scratch
    is_base_on_hub: bool
    base: "Facts | None"  # of the run that has made the base model, where that is an export that is here
    shape: Shape
    bos_token: str
    has_chat_template: bool
    objective: str  # its type; recipe
    is_of_chats: bool  # the objective is one on conversations; recipe
    inner_optimizer: str
    inner_lr: float
    inner_schedule: str
    tokens_per_inner_step: int  # of one island
    inner_steps: int  # of an outer step
    outer_lr: float
    outer_momentum: float
    traffic: Traffic
    num_islands: int  # that took part; records
    most_at_once: int  # islands in one update; records
    tokens: int  # records
    contributors: tuple[Contributor, ...]  # most tokens first
    places: tuple[Place, ...]
    sources: dict[str, Source]
    stages: tuple[Stage, ...]
    told: Told | None
    scores: tuple[Result, ...]  # of this state, by task; evaluations

    @property
    def chain(self) -> "tuple[Facts, ...]":
        """The runs that led here, the first one first; this one is the last."""
        return (*(self.base.chain if self.base else ()), self)

    @property
    def chats(self) -> bool:
        """Whether one of these runs has trained it on conversations."""
        return any(run.is_of_chats for run in self.chain)
