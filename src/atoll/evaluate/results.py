"""What was measured, as it is kept: one JSON file for each checkpoint and task, and their reader.

The files of a checkpoint lie in `DIRECTORY/<first digits of its digest>/`. A model card, a table or a curve
reads them with `load` and `of_checkpoint`, and needs neither torch nor lm-eval.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from blake3 import blake3

from atoll.errors import UserError
from atoll.files import write_atomic

VERSION = 1  # of these structs: raise it with every change that a reader of before would misread
DIRECTORY = "evaluations"  # of results, in a run's directory or in the current one
DIGEST_DIGITS = 16  # of a checkpoint's digest, in names of directories
KEY_DIGITS = 12  # of a question's settings, in names of files
SUFFIX = ".result.json"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of a task."""

    value: float  # as lm-eval gives it: a share of 1 for accuracies
    standard_error: float | None  # None where lm-eval gives none


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Which weights and tokenizer were measured."""

    name: str  # as it was given: a path, or a name on the hub
    digest: str  # BLAKE3, in hex, over the files that decide what it answers
    step: int | None = None  # of the run's state that it is; None where it is not known to be one
    root: str = ""  # of that state, in hex
    tokens: int | None = None  # that were committed up to that state
    run_id: str = ""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that was chosen about a measurement. Two with equal settings ask the same question."""

    task: str  # of lm-eval, or one of its groups of tasks
    num_fewshot: int | None  # examples before each question; None: as the task says
    limit: int | None  # only so many questions of each task; None: all
    chat_template: bool  # questions are put in turns of a conversation
    batch_size: int
    device: str  # "cpu" or "cuda"
    versions: dict[str, str]  # of lm-eval, transformers, tokenizers, datasets and torch

    @property
    def key(self) -> str:
        """Equal for equal settings: a part of a file's name."""
        return blake3(msgspec.json.encode(self, order="sorted")).hexdigest()[:KEY_DIGITS]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one checkpoint scored on one task."""

    version: int = VERSION
    time: float  # of its end, in seconds since the epoch
    seconds: float  # that it took, in all its starts together
    checkpoint: Checkpoint
    settings: Settings
    data: dict[str, str]  # by data set: the BLAKE3 of its folder, or "hub"
    metrics: dict[str, Measured]  # by lm-eval's name, as in "acc_norm,none"
    subtasks: dict[str, dict[str, Measured]]  # the same of each task in a group; empty for a single task
    task_versions: dict[str, str]  # lm-eval's, by task
    num_samples: int  # questions
    num_requests: int  # that they took of the model
    num_cut: int  # of these that were too long for the model, and so lost their first tokens, the BOS too
    starts_with: str  # how every request begins: "one BOS", "one BOS, added" or "no BOS"
    stop_tokens: list[str]  # at which the model's own generation ends
    num_parameters: int
    dtype: str  # of the weights
    max_length: int  # positions that the model reads


def path_of(directory: Path, checkpoint_digest: str, settings: Settings) -> Path:
    """Where the result of one question to one checkpoint is kept."""
    name = f"{settings.task}-{settings.key}{SUFFIX}"
    return directory / checkpoint_digest[:DIGEST_DIGITS] / name


def write(path: Path, result: Result) -> None:
    """Keep a result, whole or not at all. Raises DiskError."""
    write_atomic(path, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def read(path: Path) -> Result:
    """One result. Raises UserError for a file that is none, or one of another version."""
    try:
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise UserError(f"{path}: not a result of `atoll evaluate` ({error}); remove it") from error
    if result.version != VERSION:
        raise UserError(f"{path}: a result of another version of atoll; remove it to measure again")
    return result


def load(directory: Path) -> list[Result]:
    """All results below a directory, oldest first; none if there is none. Raises UserError like `read`."""
    found = [read(path) for path in sorted(directory.glob(f"*/*{SUFFIX}"))]
    return sorted(found, key=lambda result: result.time)


def of_checkpoint(results: Iterable[Result], *, digest: str = "", root: str = "") -> list[Result]:
    """The newest result for each question to one checkpoint, which its digest or its state's root names.

    Sorted by task. The root finds what `atoll evaluate RUN --follow` measured of the state, whatever the
    files look like into which it was exported.
    """
    newest: dict[bytes, Result] = {}
    for result in results:
        measured = result.checkpoint
        if (digest and measured.digest == digest) or (root and measured.root == root):
            settings = result.settings
            newest[msgspec.json.encode((settings.task, settings.num_fewshot, settings.limit))] = result
    return sorted(newest.values(), key=lambda result: result.settings.task)
