"""What was measured beside what others have published: a table of texts, for a terminal or a card."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from atoll.evaluate import published
from atoll.evaluate.results import Measured, Result
from atoll.evaluate.suites import KNOWN, Question, result_metric

SHARES = ("acc", "exact_match", "f1", "em", "pass", "mcc")  # of 1; other figures stand as they are
NUM_ERRORS = 2  # standard errors within which a figure is no better than guessing
AT_CHANCE, CUT, PART = "*", "†", "‡"


@dataclass
class Table:
    """Cells as text. The first column names the model."""

    header: list[str]
    rows: list[list[str]] = field(default_factory=list[list[str]])
    notes: list[str] = field(default_factory=list[str])

    def markdown(self) -> str:
        """The table and its notes, as a model card has them."""
        lines = [self.header, ["---", *["---:" for _ in self.header[1:]]], *self.rows]
        text = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
        notes = (note.replace(AT_CHANCE, f"\\{AT_CHANCE}") for note in self.notes)  # no item of a list
        return text + "".join(f"\n\n{note}" for note in notes) + "\n"


def figure_of(result: Result) -> tuple[str, Measured] | None:
    """(lm-eval's name, value) of the figure that stands for a result; None where lm-eval gives none."""
    name = result_metric(question_of(result), list(result.metrics))
    return (name, result.metrics[name]) if name else None


def question_of(result: Result) -> Question:
    """What is known beforehand of the task that a result is of."""
    return KNOWN.get(result.settings.task, Question(task=result.settings.task))


def is_share(metric: str) -> bool:
    """Whether a figure of this name is a share of 1, which people read in percent."""
    return any(word in metric.partition(",")[0] for word in SHARES)


def table(results: Sequence[Result], beside_published: bool = True) -> Table:
    """A row for each checkpoint, then chance, then the models of the same kind with published scores.

    A column for each question; two with another number of examples are two columns.
    """
    columns = list(dict.fromkeys(_column(result) for result in results))
    made = Table(["model", *(_title(column) for column in columns)])
    marks: set[str] = set()
    for digest in dict.fromkeys(result.checkpoint.digest for result in results):
        own = {_column(result): result for result in results if result.checkpoint.digest == digest}
        first = next(iter(own.values()))
        cells = [_cell(own[column], marks) if column in own else "" for column in columns]
        made.rows.append([_name(first), *cells])
    chances = [_known(task).chance for task, _ in columns]
    if any(chance is not None for chance in chances):
        cells = ["" if chance is None else f"{100 * chance:.2f}" for chance in chances]
        made.rows.append(["chance", *cells])
    if beside_published:
        _add_published(made, columns, any(result.settings.chat_template for result in results))
    made.notes = [text for mark, text in _NOTES.items() if mark in marks] + made.notes
    return made


_NOTES = {
    AT_CHANCE: f"{AT_CHANCE} within {NUM_ERRORS} standard errors of chance: this may be guessing",
    CUT: f"{CUT} some requests were longer than the model reads, and lost their beginning, BOS and all",
    PART: f"{PART} only a part of the questions: not to be compared with published figures",
}
Column = tuple[str, int | None]  # (task, examples before each question)


def _column(result: Result) -> Column:
    return result.settings.task, result.settings.num_fewshot


def _known(task: str) -> Question:
    return KNOWN.get(task, Question(task=task))


def _title(column: Column) -> str:
    task, num_fewshot = column
    return _known(task).title + ("" if num_fewshot is None else f" ({num_fewshot}-shot)")


def _name(result: Result) -> str:
    checkpoint = result.checkpoint
    return checkpoint.name + ("" if checkpoint.step is None else f", state {checkpoint.step}")


def _cell(result: Result, marks: set[str]) -> str:
    """A figure with its standard error, and marks for what to beware of, which are added to `marks`."""
    if (figure := figure_of(result)) is None:
        return ""
    (metric, measured), question = figure, question_of(result)
    scale = 100.0 if is_share(metric) else 1.0
    text, own = f"{scale * measured.value:.2f}", ""
    error = measured.standard_error
    if error is not None:
        text += f" ± {scale * error:.2f}"
        if question.chance is not None and abs(measured.value - question.chance) <= NUM_ERRORS * error:
            own += AT_CHANCE
    own += CUT if result.num_cut else ""
    own += PART if result.settings.limit is not None else ""
    marks |= set(own)
    return f"{text} {own}".rstrip()


def _add_published(made: Table, columns: list[Column], chat: bool) -> None:
    known = published.load()
    rows = known.of({task for task, _ in columns}, chat)
    numbers = {key: number for number, key in enumerate(dict.fromkeys(row.source for row in rows), 1)}
    for row in rows:
        cells = [f"{row.scores[task]:.2f}" if task in row.scores else "" for task, _ in columns]
        made.rows.append([f"{row.model} [{numbers[row.source]}]", *cells])
    for key, number in numbers.items():
        source = known.sources[key]
        made.notes.append(f"[{number}] {source.text}: {source.url}")
