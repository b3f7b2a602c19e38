"""What a checkpoint scores on a task of lm-eval, as one number: measured as `atoll evaluate` measures it."""

from dataclasses import replace
from pathlib import Path

from atoll.errors import UserError
from atoll.evaluate.checkpoint import Files
from atoll.evaluate.data import DataSets
from atoll.evaluate.measure import Asked, Measuring
from atoll.evaluate.results import Result
from atoll.evaluate.suites import questions
from atoll.evaluate.table import figure_of, is_share
from atoll.given import expanded
from atoll.recipe.metric import By
from atoll.words import listed

# Figures of texts as a whole; all others of lm-eval that are no shares are refused, rather than guessed at.
LOWER_IS_BETTER = ("perplexity", "bits_per_byte")


class TaskScore:
    """The score of a checkpoint. What was measured once, by its digest, is not measured again."""

    def __init__(self, by: By, directory: Path) -> None:
        """`directory`: where results are kept. Raises UserError for data that is not there, or no lm-eval."""
        assert by.task is not None
        self._by, self._directory = by, directory
        self._asked = Asked(
            questions=questions(by.task, by.num_fewshot), limit=by.limit, chat_template=by.chat_template
        )
        if len(self._asked.questions) != 1:
            raise UserError(f"{by.task}: models are compared by one task; name one")
        self._data = DataSets(expanded(by.data) if by.data is not None else None)
        self._measuring: Measuring | None = None
        self.name, self.higher_is_better = by.task, True  # better known once something was measured

    def __call__(self, checkpoint: Path) -> float:
        """A share of 1, or what the task counts in. Raises UserError for a model that cannot be asked."""
        files = Files(checkpoint)
        if self._measuring is None:
            # All are asked in the same way; a merge that is being tried has no card that could say which.
            if self._asked.chat_template is None:
                self._asked = replace(self._asked, chat_template=files.chats()[0])
            self._measuring = Measuring(
                self._asked, self._data, self._directory, lambda _: None, lambda _: None
            )
        results = self._measuring.measure(files, files.described())
        if len(results) != 1:
            names = listed([result.settings.task for result in results])
            raise UserError(f"{self._by.task}: is several tasks, {names}; name one to compare models by")
        name, value = self._figure(results[0])
        self.higher_is_better = is_share(name)
        self.name = f"{self._by.task} {name.removesuffix(',none')}"
        return value

    def _figure(self, result: Result) -> tuple[str, float]:
        """(its name, its value) of the figure that models are compared by."""
        wanted = self._by.figure
        if wanted is not None and wanted not in result.metrics:
            raise UserError(f"{self._by.task}: has no figure {wanted!r}; there is {listed(result.metrics)}")
        found = (wanted, result.metrics[wanted]) if wanted is not None else figure_of(result)
        if found is None:
            raise UserError(f"{self._by.task}: lm-eval gives no figure for it; compare by another task")
        name, measured = found
        if not is_share(name) and not any(word in name for word in LOWER_IS_BETTER):
            raise UserError(
                f"{self._by.task}: it is not known whether more {name} is better; name another `figure`: "
                f"{listed(result.metrics)}"
            )
        return name, measured.value
