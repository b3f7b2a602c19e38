"""lm-eval, behind the little of it that is used here. Only this file imports it; that takes seconds.

Tasks, prompts, scores and the running of the model are lm-eval's own. Added is what happens around a batch:
its answers are kept, progress is told, and requests are looked at for their BOS and their length.
"""

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval import evaluator
from lm_eval.api.model import hash_args
from lm_eval.models import huggingface
from lm_eval.tasks import TaskManager

from atoll.errors import UserError
from atoll.evaluate.answers import Answers, Batch
from atoll.evaluate.progress import Pace, Report
from atoll.evaluate.suites import Question
from atoll.evaluate.tokens import beginning, end_ids, end_of_turn, lacks_bos
from atoll.words import listed

HFLM: Any = huggingface.HFLM  # the decorator around it hides its type
SEED, OTHER_SEED = 0, 1234  # lm-eval's own: of Python; of numpy, of torch and of the choice of examples
NUM_SHOWN = 3  # names of data sets in a sentence

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of every request that it cuts
for noisy in ("datasets", "evaluate", "huggingface_hub"):
    logging.getLogger(noisy).setLevel(logging.ERROR)


@dataclass(kw_only=True)
class Outcome:
    """What lm-eval makes of the answers to one question."""

    metrics: dict[str, tuple[float, float | None]]  # by its name for them: (value, standard error)
    subtasks: dict[str, dict[str, tuple[float, float | None]]]
    task_versions: dict[str, str]
    num_samples: int
    num_requests: int
    starts_with: str  # how every request begins, judged by the first of each task
    stop_tokens: list[str]  # at which the model's own generation ends


class Tasks:
    """The tasks that lm-eval knows. Making it reads thousands of small files, in seconds."""

    def __init__(self) -> None:
        self._manager = TaskManager()

    def resolved(self, questions: Iterable[Question]) -> tuple[Question, ...]:
        """The questions, with each tag of lm-eval replaced by the tasks that have it.

        Raises UserError, with names that are near, for a task that does not exist.
        """
        found: list[Question] = []
        for question in questions:
            entry = self._manager.task_index.get(question.task)
            if entry is None:
                near = get_close_matches(question.task, self._manager.all_tasks, n=5)
                hint = f"near: {listed(near, 'or')}" if near else "`lm-eval ls tasks` lists them"
                raise UserError(f"--tasks {question.task}: lm-eval has no such task; {hint}")
            names = sorted(entry.tags) if entry.cfg is None else [question.task]
            found += [replace(question, task=name) if name != question.task else question for name in names]
        return tuple(dict.fromkeys(found))

    def data_of(self, task: str) -> list[str]:
        """The names on the hub of the data sets that a task, or each of a group, reads; sorted."""
        return sorted(set(self._data_of(task)))

    def _data_of(self, member: Any) -> Iterator[str]:
        """`member`: a name, or what a group has in its place: a name with settings, or an inner group."""
        given: dict[str, Any] = member if isinstance(member, dict) else {"task": member}
        name: Any = given.get("task") or given.get("group")
        entry = None if isinstance(name, list) else self._manager.task_index.get(name)
        known: dict[str, Any] = (entry.cfg or {}) if entry else {}
        members: Any = name if isinstance(name, list) else known.get("task")
        if entry is not None and entry.cfg is None:  # a tag
            members = sorted(entry.tags)
        for each in members if isinstance(members, list) else ():
            yield from self._data_of(each)
        if path := given.get("dataset_path") or known.get("dataset_path"):
            yield str(path)

    def load(self, question: Question, data_dir: Path) -> dict[str, Any]:
        """lm-eval's objects for a question; data sets are first looked for in `data_dir`, by their names.

        Raises UserError, naming the data and where it was looked for, where it cannot be had.
        """
        try:
            with contextlib.chdir(data_dir):
                loaded: dict[str, Any] = dict(self._manager.load([question.task]))
        except ModuleNotFoundError as error:
            raise UserError(
                f"{question.task}: lm-eval needs {error.name} for this task; install it with: "
                f"pip install {error.name}"
            ) from error
        except Exception as error:  # its own types, those of the hub, of network libraries, and ValueError
            names = self.data_of(question.task)
            shown = listed([*names[:NUM_SHOWN], *(["others"] if len(names) > NUM_SHOWN else [])])
            raise UserError(
                f"{question.task}: its data ({shown or 'unnamed'}) cannot be loaded; looked for it in "
                f"{data_dir} and on the hub: {_first_line(error)}"
            ) from error
        for task in loaded["tasks"].values():
            given = task.get_config("num_fewshot")
            if question.num_fewshot is not None and given != 0:
                task.set_config(key="num_fewshot", value=question.num_fewshot)
            elif given is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=OTHER_SEED)
        return loaded


class Model(HFLM):
    """lm-eval's model of `transformers`, whose answers are kept batch by batch."""

    def __init__(self, directory: Path, *, device: str, batch_size: int) -> None:
        """Raises UserError where transformers cannot load it."""
        try:
            super().__init__(pretrained=str(directory), device=device, batch_size=batch_size)
        except Exception as error:  # a checkpoint can be wrong in as many ways as there are models
            raise UserError(
                f"{directory}: transformers cannot load this checkpoint: {_first_line(error)}"
            ) from error
        self.cache_hook = self  # lm-eval tells its `add_partial` every answer
        self._first: dict[str, str] = {}  # by task: how its first request begins
        self._adds_bos, self._is_rolling = False, False
        self._cut: set[tuple[str, ...]] = set()  # requests, or their contexts, that are too long
        self._new: list[tuple[str, Any]] = []  # answers of the batch in work
        self._num_cut, self._begun = 0, 0.0  # of that batch

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    def evaluate(
        self,
        tasks: dict[str, Any],
        question: Question,
        *,
        limit: int | None,
        chat_template: bool,
        answers: Answers,
        report: Report,
    ) -> Outcome:
        """What the model scores. Answers that are known are not asked for again, and new ones are kept.

        Raises UserError where the model cannot be asked this: a request does not fit, or begins wrongly.
        """
        self._answers, self._report = answers, report
        self._first, self._new, self._cut = {}, [], set()
        self._adds_bos, self._num_cut, self._begun = False, 0, time.monotonic()
        if chat_template:
            self._stop_at_end_of_turn()
        random.seed(SEED)
        np.random.seed(OTHER_SEED)
        torch.manual_seed(OTHER_SEED)
        try:
            found: Any = evaluator.evaluate(
                self,
                tasks,  # pyright: ignore[reportArgumentType]
                limit=limit,
                log_samples=False,
                apply_chat_template=chat_template,
                fewshot_as_multiturn=True,
            )
        except ValueError as error:  # as of tasks that would run code of the model's
            raise UserError(f"{question.task}: lm-eval refuses this: {_first_line(error)}") from error
        figures = {name: _figures(metrics) for name, metrics in found["results"].items()}
        return Outcome(
            metrics=figures[question.task],
            subtasks=figures if len(figures) > 1 else {},
            task_versions={name: str(version) for name, version in found["versions"].items()},
            num_samples=sum(samples["effective"] for samples in found["n-samples"].values()),
            num_requests=sum(len(task.instances) for task in tasks["tasks"].values()),
            starts_with=listed(sorted(set(self._first.values()))),
            stop_tokens=self.tokenizer.convert_ids_to_tokens(self._end_ids()),
        )

    # --------------------------------------------------------------------------------- what lm-eval calls
    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        ask = super().loglikelihood
        return self._answered("loglikelihood", requests, lambda missing: ask(missing, disable_tqdm=True))

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        ask, self._is_rolling = super().loglikelihood_rolling, True
        try:  # one by one, because lm-eval tells the answers only at the end
            return self._answered(
                "loglikelihood_rolling",
                requests,
                lambda missing: [ask([request], disable_tqdm=True)[0] for request in missing],
            )
        finally:
            self._is_rolling = False

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        ask = super().generate_until
        for request in requests:
            num_tokens = request.args[1].get("max_gen_toks", self.max_gen_toks)
            if num_tokens >= self.max_length:
                raise UserError(
                    f"{request.task_name}: an answer may have {num_tokens} tokens, but this model reads only "
                    f"{self.max_length} with the question; leave the task out"
                )
        return self._answered("generate_until", requests, lambda missing: ask(missing, disable_tqdm=True))

    def add_partial(self, attribute: str, request: Any, answer: Any) -> None:
        """An answer of the batch in work."""
        self._new.append((hash_args(attribute, request), answer))
        key = tuple(request) if attribute == "loglikelihood" else (request[0],)
        self._num_cut += key in self._cut

    def _model_call(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        self._keep()
        return super()._model_call(*arguments, **keywords)

    def _model_generate(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        self._keep()
        return super()._model_generate(*arguments, **keywords)

    def _loglikelihood_tokens(self, requests: list[Any], *arguments: Any, **keywords: Any) -> list[Any]:
        for request, context, continuation in requests:
            if len(continuation) > self.max_length:
                raise UserError(
                    f"an answer to be judged has {len(continuation)} tokens, but this model reads only "
                    f"{self.max_length}; leave the task out"
                )
            if request is not None and len(context) + len(continuation) > self.max_length + 1:
                self._cut.add(tuple(request))
        return super()._loglikelihood_tokens(requests, *arguments, **keywords)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **keywords: Any) -> list[int]:
        if add_special_tokens is None:
            if self._is_rolling:  # lm-eval itself puts a BOS before these, and the tokenizer's would follow
                add_special_tokens = False
            elif self._adds_bos:
                string = self._with_bos(string)
        return super().tok_encode(string, add_special_tokens, **keywords)

    def tok_batch_encode(
        self, strings: list[str], *arguments: Any, left_truncate_len: int | None = None, **keywords: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        texts = [self._with_bos(string) for string in strings] if self._adds_bos else strings
        ids, mask = super().tok_batch_encode(texts, *arguments, **keywords)
        if left_truncate_len is not None:
            is_cut = (mask.sum(1) > left_truncate_len).tolist()
            self._cut |= {(string,) for string, cut in zip(strings, is_cut, strict=True) if cut}
            ids, mask = ids[:, -left_truncate_len:], mask[:, -left_truncate_len:]
        return ids, mask

    # ------------------------------------------------------------------------------------------ answers
    def _answered(
        self, attribute: str, requests: list[Any], ask: Callable[[list[Any]], list[Any]]
    ) -> list[Any]:
        """The answers to all requests, in their order; `ask` is given those that are not known."""
        for request in requests:
            if request.task_name not in self._first:
                self._first[request.task_name] = self._beginning(attribute, request)
        if any(_is_sampled(attribute, request) for request in requests):
            return ask(requests)  # equal requests get unequal answers, which cannot be told apart later
        digests = [hash_args(attribute, request.args) for request in requests]
        missing = [
            request for request, digest in zip(requests, digests, strict=True) if digest not in self._answers
        ]
        self._pace = Pace(requests[0].task_name, len(requests), len(requests) - len(missing))
        if missing:
            ask(missing)
            self._keep()
        return [_as_lm_eval_has_it(self._answers[digest]) for digest in digests]

    def _keep(self) -> None:
        """Keep the answers of the batch that is done, if there is one, and tell how far it is."""
        if not self._new:
            return
        now = time.monotonic()
        self._answers.add(Batch(answers=self._new, num_cut=self._num_cut, seconds=now - self._begun))
        self._report(self._pace.add(len(self._new)))
        self._new, self._num_cut, self._begun = [], 0, now

    # ------------------------------------------------------------------------------- first and last tokens
    def _beginning(self, attribute: str, request: Any) -> str:
        """How a request begins, for people; from now on one that lacks its BOS gets it. Raises UserError."""
        ids = self._first_ids(attribute, request)
        if lacks_bos(self.tokenizer, ids) and not self._adds_bos:
            self._adds_bos = True
            ids = self._first_ids(attribute, request)
        return beginning(self.tokenizer, ids, request.task_name, self._adds_bos)

    def _first_ids(self, attribute: str, request: Any) -> list[int]:
        """The tokens that the model reads first of a request, without the cut of one that is too long."""
        context = request.args[0]
        if attribute == "generate_until":
            return self.tok_batch_encode([context])[0][0].tolist()
        if attribute == "loglikelihood" and context:
            return self._encode_pair(context, request.args[1])[0]
        return [self.prefix_token_id, *(self.tok_encode(context) if context else [])]

    def _with_bos(self, text: str) -> str:
        bos: str = self.tokenizer.bos_token
        return text if text.startswith(bos) else bos + text

    def _end_ids(self) -> list[int]:
        return end_ids(self.tokenizer, self.model.generation_config)

    def _stop_at_end_of_turn(self) -> None:
        """From now on generation ends where the template ends a turn, also if the checkpoint forgot that."""
        end, ends = end_of_turn(self.tokenizer), self._end_ids()
        if end is not None and end not in ends:
            self.model.generation_config.eos_token_id = [*ends, end]


def _is_sampled(attribute: str, request: Any) -> bool:
    return attribute == "generate_until" and bool(request.args[1].get("do_sample"))


def _as_lm_eval_has_it(answer: Any) -> Any:
    """A log-likelihood is a pair; JSON makes lists of pairs."""
    return tuple(answer) if isinstance(answer, list) else answer


def _figures(metrics: dict[str, Any]) -> dict[str, tuple[float, float | None]]:
    """(value, standard error) of each figure of a task, by lm-eval's name, as in "acc_norm,none"."""
    found: dict[str, tuple[float, float | None]] = {}
    for key, value in metrics.items():
        name, _, kind = key.partition(",")
        if kind and not name.endswith("_stderr") and isinstance(value, int | float):
            error = metrics.get(f"{name}_stderr,{kind}")
            found[key] = float(value), float(error) if isinstance(error, int | float) else None
    return found


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error) or 'no reason given').splitlines()[0]}"
