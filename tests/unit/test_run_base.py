"""Where an island that joins takes the checkpoint from that its run began with."""

from pathlib import Path

import pytest
from test_merge import checkpoint
from test_recipe import with_overrides

from atoll.errors import UserError
from atoll.recipe import Recipe
from atoll.run import base as of_run
from atoll.run.base import DESCRIPTION, with_base


def recipe(*overrides: str, lora: bool = True) -> Recipe:
    model = "model={from='/nowhere/base'" + (", lora={rank=2}" if lora else "") + "}"
    return with_overrides(model, "tokenizer={file='t.json'}", *overrides)


def test_a_copy_on_this_machine_is_taken(tmp_path: Path) -> None:
    here = checkpoint(tmp_path / "mine", 1)
    assert with_base(recipe(f"island.base='{here}'")).checkpoint == here
    assert with_base(with_overrides("model={preset='demo'}")).from_ is None


@pytest.mark.parametrize("lora", [True, False])
def test_an_island_without_it_fetches_what_the_recipe_names(lora: bool, tmp_path: Path, monkeypatch) -> None:
    asked: list[object] = []
    here = checkpoint(tmp_path / "cache", 1)
    monkeypatch.setattr(of_run, "fetched", lambda name, patterns: asked.append((name, patterns)) or here)
    assert with_base(recipe("about.base_model=ada/base", lora=lora)).checkpoint == here
    assert asked == [("ada/base", None if lora else DESCRIPTION)]


def test_where_it_is_nowhere_one_sentence_says_what_to_do(monkeypatch) -> None:
    words = (
        "test trains adapters beside a checkpoint that is not on this machine: /nowhere/base; copy it here"
    )
    with pytest.raises(UserError, match=words):
        with_base(recipe())

    def refuses(name: str, patterns: object) -> Path:
        raise UserError("ada/base: no such directory, and the hub does not give it: offline")

    monkeypatch.setattr(of_run, "fetched", refuses)
    with pytest.raises(UserError, match=r"the hub does not give it: offline; copy it here, .*island\.base="):
        with_base(recipe("about.base_model=ada/base"))
