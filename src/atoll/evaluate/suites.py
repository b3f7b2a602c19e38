"""Which tasks are asked together, and what is known of a task beforehand: its figure, and pure chance."""

from dataclasses import dataclass

from atoll.errors import UserError
from atoll.words import listed


@dataclass(frozen=True, kw_only=True)
class Question:
    """A task of lm-eval, or a group of them, and how it is asked."""

    task: str
    num_fewshot: int | None = None  # None: as the task says
    label: str = ""  # in tables; "": the task's name
    metric: str = ""  # the figure that is compared; "": see `result_metric`
    chance: float | None = None  # what guessing scores; None where it is not known

    @property
    def title(self) -> str:
        """What a table calls it."""
        return self.label or self.task


# The settings are those of INTELLECT-1's report (arXiv 2412.01152); where it gives none, lm-eval's own.
INTELLECT_1 = (
    Question(task="mmlu", num_fewshot=5, label="MMLU", metric="acc,none", chance=1 / 4),
    Question(task="gpqa_main_zeroshot", label="GPQA", metric="acc_norm,none", chance=1 / 4),
    Question(task="gsm8k", num_fewshot=5, label="GSM8K", metric="exact_match,flexible-extract", chance=0.0),
    Question(task="arc_challenge", num_fewshot=25, label="ARC-C", metric="acc_norm,none", chance=1 / 4),
    Question(task="hellaswag", num_fewshot=10, label="HellaSwag", metric="acc_norm,none", chance=1 / 4),
    Question(task="winogrande", num_fewshot=5, label="WinoGrande", metric="acc,none", chance=1 / 2),
    Question(task="truthfulqa_mc2", label="TruthfulQA", metric="acc,none"),
    Question(task="bbh_cot_fewshot", label="BBH", metric="exact_match,get-answer"),
    Question(task="ifeval", label="IFEval", metric="inst_level_strict_acc,none", chance=0.0),
)
SUITES = {"intellect-1": INTELLECT_1}
KNOWN = {question.task: question for question in INTELLECT_1}


def suite(name: str) -> tuple[Question, ...]:
    """The questions of a suite. Raises UserError for a name that is none."""
    if name not in SUITES:
        raise UserError(f"--suite {name}: no such suite; there is {listed(sorted(SUITES))}")
    return SUITES[name]


def questions(tasks: str, num_fewshot: int | None) -> tuple[Question, ...]:
    """The questions of a list of tasks, as `hellaswag,arc_easy`, each once.

    Unlike in a suite each is asked as lm-eval asks it by itself, unless `num_fewshot` is given. Raises
    UserError for an empty list.
    """
    names = list(dict.fromkeys(name.strip() for name in tasks.split(",") if name.strip()))
    if not names:
        raise UserError("--tasks: no task is named; give names of lm-eval's tasks, as in hellaswag,arc_easy")
    found = []
    for name in names:
        known = KNOWN.get(name, Question(task=name))
        found.append(
            Question(
                task=name,
                num_fewshot=num_fewshot,
                label=known.label,
                metric=known.metric,
                chance=known.chance,
            )
        )
    return tuple(found)


PREFERRED = ("acc_norm,none", "acc,none", "exact_match,none", "exact_match,flexible-extract")


def result_metric(question: Question, metrics: list[str]) -> str:
    """The name of the figure that stands for a task, of all that lm-eval gives; "" for none."""
    for name in (question.metric, *PREFERRED):
        if name in metrics:
            return name
    return metrics[0] if metrics else ""
