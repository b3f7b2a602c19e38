"""Ask checkpoints the questions of a suite or of a list of tasks, unless the answers are known already."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from atoll.errors import UserError
from atoll.evaluate import results
from atoll.evaluate.answers import Answers
from atoll.evaluate.checkpoint import Files
from atoll.evaluate.data import DataSets
from atoll.evaluate.progress import Report
from atoll.evaluate.results import Checkpoint, Measured, Result, Settings
from atoll.evaluate.suites import Question
from atoll.evaluate.tokens import ONE_BOS
from atoll.files import DirectoryLock
from atoll.words import listed

if TYPE_CHECKING:  # importing it takes seconds, and what is known needs none of it
    from atoll.evaluate.harness import Model, Outcome, Tasks

PACKAGES = ("lm_eval", "transformers", "tokenizers", "datasets", "torch")
ANSWERS_SUFFIX = ".answers.jsonl"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of each checkpoint."""

    questions: tuple[Question, ...]
    optional: bool = False  # leave out, and tell, the questions whose data is not at hand
    limit: int | None = None
    chat_template: bool | None = None  # None: as the checkpoint says
    batch_size: int = 1
    device: str = ""  # "": a GPU, if there is one


class Measuring:
    """Measures one checkpoint after the other."""

    def __init__(self, asked: Asked, data: DataSets, directory: Path, say: Say, report: Report) -> None:
        """`directory`: where results are kept. `say`: called with sentences for people.

        Raises UserError where lm-eval is not installed.
        """
        self._asked = replace(asked, device=asked.device or _device())
        self._data, self._directory = data, directory
        self._say, self._report = say, report
        self._versions = {name: _version(name) for name in PACKAGES}
        self._tasks: Tasks | None = None
        self.left_out: list[str] = []  # sentences about questions whose data is not at hand

    def measure(self, files: Files, checkpoint: Checkpoint) -> list[Result]:
        """The results of all questions, in their order; those of this question's earlier runs where known.

        Raises UserError where a task does not exist or its data is nowhere, before anything is asked; where
        another process measures this checkpoint; and where the model cannot be asked a question.
        """
        chats = self._chats(files)
        known = {question: self._known(checkpoint, question, chats) for question in self._asked.questions}
        if all(known.values()):
            return [result for result in known.values() if result is not None]
        questions = self._resolved()
        found: list[Result] = []
        place = self._directory / checkpoint.digest[: results.DIGEST_DIGITS]
        with DirectoryLock(place) as lock:
            if not lock.acquire():
                raise UserError(f"{place}: another process measures this checkpoint; wait for it to end")
            model = None
            for question in questions:
                result = self._known(checkpoint, question, chats)
                if result is None:
                    model = model or self._opened(files)
                    result = self._measured(model, checkpoint, question, chats)
                found.append(result)
        return found

    def _chats(self, files: Files) -> bool:
        """Whether questions are put in turns of a conversation; says why, if the checkpoint decides it."""
        wanted = self._asked.chat_template
        if wanted is None:
            chats, reason = files.chats()
            self._say(f"{files.name}: {'with' if chats else 'without'} chat template: {reason}")
            return chats
        if wanted and not files.has_chat_template():
            raise UserError(
                f"{files.name}: its tokenizer has no chat template; leave --chat-template yes out"
            )
        return wanted

    def _settings(self, question: Question, chats: bool) -> Settings:
        return Settings(
            task=question.task,
            num_fewshot=question.num_fewshot,
            limit=self._asked.limit,
            chat_template=chats,
            batch_size=self._asked.batch_size,
            device=self._asked.device,
            versions=self._versions,
        )

    def _known(self, checkpoint: Checkpoint, question: Question, chats: bool) -> Result | None:
        """The result of this very question, if its data has not changed since."""
        path = results.path_of(self._directory, checkpoint.digest, self._settings(question, chats))
        if not path.is_file():
            return None
        result = results.read(path)
        if self._data.digests(result.data) != result.data:
            return None
        # The files are equal, but may be called otherwise now: a state and its export.
        return msgspec.structs.replace(result, checkpoint=checkpoint)

    def _resolved(self) -> tuple[Question, ...]:
        """The questions that can be asked, by what lm-eval and the data sets have."""
        if self._tasks is None:
            self._say("lm-eval reads its tasks …")
            from atoll.evaluate.harness import Tasks

            self._tasks = Tasks()
        here: list[Question] = []
        left_out: list[str] = []
        for question in self._tasks.resolved(self._asked.questions):
            missing = self._data.missing(self._tasks.data_of(question.task))
            if not missing:
                here.append(question)
                continue
            left_out.append(
                f"{question.task}: its data is not at hand: {listed(missing)}, looked for in "
                f"{self._data.folder}"
            )
        if left_out and (not self._asked.optional or not here):
            raise UserError("; ".join(left_out))
        for sentence in left_out:
            if sentence not in self.left_out:
                self._say(sentence)
                self.left_out.append(sentence)
        return tuple(here)

    def _opened(self, files: Files) -> "Model":
        from atoll.evaluate.harness import Model

        self._say(f"{files.name}: loading the model …")
        return Model(files.directory, device=self._asked.device, batch_size=self._asked.batch_size)

    def _measured(self, model: "Model", checkpoint: Checkpoint, question: Question, chats: bool) -> Result:
        assert self._tasks is not None
        settings = self._settings(question, chats)
        path = results.path_of(self._directory, checkpoint.digest, settings)
        data = self._data.digests(self._tasks.data_of(question.task))
        # Answers belong to the data too: with other data the same file must not be gone on with.
        name = f"{question.task}-{settings.key}-{_key(data)}{ANSWERS_SUFFIX}"
        with Answers(path.with_name(name)) as answers:
            if len(answers):
                self._say(f"{question.task}: goes on after {len(answers):,} answers of an earlier start")
            outcome = model.evaluate(
                self._tasks.load(question, self._data.folder),
                question,
                limit=self._asked.limit,
                chat_template=chats,
                answers=answers,
                report=self._report,
            )
            result = _result(model, checkpoint, settings, data, outcome, answers)
            results.write(path, result)
            answers.discard()
        if result.num_cut:
            self._say(
                f"{question.task}: {result.num_cut:,} of {result.num_requests:,} requests are longer than "
                f"the {result.max_length:,} tokens that this model reads; lm-eval cuts them on the left"
                + (", and so their BOS is gone" if ONE_BOS in result.starts_with else "")
            )
        return result


def _result(
    model: "Model",
    checkpoint: Checkpoint,
    settings: Settings,
    data: dict[str, str],
    outcome: "Outcome",
    answers: Answers,
) -> Result:
    def figures(metrics: dict[str, tuple[float, float | None]]) -> dict[str, Measured]:
        return {name: Measured(value=v, standard_error=e) for name, (v, e) in metrics.items()}

    return Result(
        time=time.time(),
        seconds=answers.seconds,
        checkpoint=checkpoint,
        settings=settings,
        data=data,
        metrics=figures(outcome.metrics),
        subtasks={name: figures(metrics) for name, metrics in outcome.subtasks.items()},
        task_versions=outcome.task_versions,
        num_samples=outcome.num_samples,
        num_requests=outcome.num_requests,
        num_cut=answers.num_cut,
        starts_with=outcome.starts_with,
        stop_tokens=outcome.stop_tokens,
        num_parameters=model.num_parameters,
        dtype=model.dtype,
        max_length=model.max_length,
    )


def _key(data: dict[str, str]) -> str:
    return blake3(msgspec.json.encode(data, order="sorted")).hexdigest()[: results.KEY_DIGITS]


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError as error:
        raise UserError(
            f"this verb needs {package}; install it with: pip install 'atoll[evaluate]'"
        ) from error
