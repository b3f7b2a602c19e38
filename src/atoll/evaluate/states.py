"""A run's committed state as a checkpoint directory for the time that it is measured."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from atoll.data.manifest import TOKENIZER_DIR, Manifest
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.evaluate.checkpoint import Files
from atoll.evaluate.results import Checkpoint
from atoll.given import named
from atoll.model import hf
from atoll.publish.export import load_model
from atoll.publish.states import CommittedState, committed_state
from atoll.recipe import Recipe
from atoll.run.directory import RunDir


class State:
    """A committed state that is at hand, proven by the run's records."""

    def __init__(self, run_dir: RunDir, step: int | None = None) -> None:
        """The state `step`, or the newest at hand. Raises UserError where none can be loaded."""
        self._run_dir = run_dir
        self.saved: CommittedState = committed_state(run_dir, step)
        self.recipe: Recipe = self.saved.recipe
        refuse_own_module(self.recipe, run_dir)
        self.tokens = sum(self.saved.tokens.values())

    @contextmanager
    def as_checkpoint(self, inside: Path) -> Generator[tuple[Files, Checkpoint, hf.Model]]:
        """Its files, written into a directory in `inside` that is gone afterwards; and its model."""
        directory = inside / f".state-{self.saved.step:08}.tmp"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        try:
            model = load_model(self.recipe, Manifest.load(self._run_dir.data).vocab_size, self.saved)
            tokenizer = Tokenizer.load(self._run_dir.data / TOKENIZER_DIR / "tokenizer.json")
            hf.save_model(
                directory,
                model,
                context_length=self.recipe.inner.context_length,
                bos_token_id=tokenizer.bos_id,
                eos_token_id=tokenizer.eos_ids,
            )
            tokenizer.save(directory)
            chats = self.recipe.objective.rows != "stream"
            files = Files(directory, named(self._run_dir.path), chats)
            yield files, self._described(files), model
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _described(self, files: Files) -> Checkpoint:
        return msgspec.structs.replace(
            files.described(),
            step=self.saved.step,
            root=self.saved.root.hex(),
            tokens=self.tokens,
            run_id=self.saved.member.run_id,
        )


def refuse_own_module(recipe: Recipe, run_dir: RunDir) -> None:
    """Raises UserError for a run of a module that only its own program can make."""
    if recipe.model.own:
        raise UserError(
            f"{run_dir.path}: this run trains a module of its own, which transformers cannot load"
        )
