"""By what models are compared: in a merge that chooses, among variants, in a pipeline."""

from atoll.errors import UserError
from atoll.recipe.bounds import NonEmptyStr, NonNegativeInt, PathStr, PositiveInt
from atoll.recipe.table import Table
from atoll.words import listed


class By(Table, frozen=True, kw_only=True):
    """Exactly one of the first two keys; the others are about a task."""

    heldout: PathStr | None = None  # the directory of a prepared run: the loss on its held-out data
    task: NonEmptyStr | None = None  # of lm-eval: what a model scores on it
    figure: NonEmptyStr | None = None  # of those that the task has, as "acc,none"; none given: its usual one
    num_fewshot: NonNegativeInt | None = None  # examples before each question; none given: as the task says
    limit: PositiveInt | None = None  # only so many of its questions; none given: all
    data: PathStr | None = None  # a folder that is laid out like the hub; none given: the hub
    # Questions in turns of a conversation; none given: as the first model that is measured says. It is the
    # same for all, since otherwise they would not be asked the same.
    chat_template: bool | None = None

    @property
    def of_task_alone(self) -> list[str]:
        """The keys that are given, and say something about a task."""
        keys = ("figure", "num_fewshot", "limit", "data", "chat_template")
        return [key for key in keys if getattr(self, key) is not None]


def check_by(by: By, where: str) -> None:
    """Raises UserError unless it says one thing to compare by, and nothing that has no effect."""
    if (by.heldout is None) == (by.task is None):
        given = "both are" if by.task else "neither is"
        raise UserError(f"{where}: give heldout = RUN or task = NAME to compare models by; {given} given")
    if by.heldout is not None and (extra := by.of_task_alone):
        raise UserError(f"{where}: {listed(extra)}: has no effect on a held-out loss; leave it out")
