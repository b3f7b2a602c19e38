"""Events of a reign: a coordinator begins or ends one, its operator goes back, its database proves old."""

from atoll.events.base import Occurrence


class ReignBegan(Occurrence, frozen=True, kw_only=True, tag="term"):
    """A coordinator leads from now on."""

    run_id: str
    term: int

    @property
    def text(self) -> str:
        return f"coordinator of {self.run_id} begins term {self.term} at step {self.step}"


class Deposed(Occurrence, frozen=True, kw_only=True):
    """A coordinator stops: another leads, or what it decided could not be made durable."""

    reason: str

    @property
    def text(self) -> str:
        return f"this coordinator stops: {self.reason}"


class Rewound(Occurrence, frozen=True, kw_only=True):
    """The operator has gone back to state `step`, and abandoned what was committed after it."""

    num_abandoned: int  # commits
    branch: int  # the number of the branch that begins

    @property
    def text(self) -> str:
        return (
            f"the operator goes back to state {self.step}: {self.num_abandoned} commits are abandoned, "
            f"branch {self.branch} begins"
        )


class Behind(Occurrence, frozen=True, kw_only=True):
    """An island knows commits or rewinds that the coordinator's database does not: it is an old backup."""

    num_commits: int  # in the database
    num_rewinds: int
    island_num_commits: int  # that the island knows
    island_num_rewinds: int

    @property
    def text(self) -> str:
        if self.island_num_rewinds > self.num_rewinds:
            more = "a rewind that it does not: host it with that --rewind again"
        else:
            more = f"{self.island_num_commits} commits, it only {self.num_commits}; importing"
        return f"this database is an old backup: {self.island} knows {more}"


class Imported(Occurrence, frozen=True, kw_only=True):
    """The database has learned from an island what it lacked."""

    num_commits: int  # that it knows now

    @property
    def text(self) -> str:
        return f"the database knows {self.num_commits} commits now"
