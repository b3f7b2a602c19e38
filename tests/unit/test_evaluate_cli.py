"""Mistakes at the command line of `atoll evaluate`: one sentence, exit status 2, no import of lm-eval."""

import sys

import pytest
from unit.test_evaluate_checkpoint import checkpoint

from atoll import cli
from atoll.errors import UserError
from atoll.evaluate.hub import fetched


def mistake(capsys, *arguments: object) -> str:
    """What a command says that ends with the status of a user's mistake."""
    assert cli.main(["evaluate", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("atoll: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--num-fewshot", "3"], "--num-fewshot: a suite says itself"),
        (["--tasks", "piqa", "--num-fewshot", "-1"], "--num-fewshot -1: must be from 0"),
        (["--limit", "0"], "--limit 0: must be from 1"),
        (["--batch-size", "0"], "--batch-size 0: must be from 1"),
        (["--every", "2"], "--every: this is about"),
        (["--follow", "--json"], "--follow: takes the directory of one run"),
        (["--suite", "other"], "no such suite; there is intellect-1"),
        (["--tasks", ","], "no task is named"),
        (["--plot", "scores.pdf"], "ends in .png"),
        (["--data", "nowhere"], "no such folder"),
        (["--chat-template", "yes"], "has no chat template"),
    ],
)
def test_an_option_without_sense_is_refused(capsys, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    model = checkpoint(tmp_path / "model")
    assert reason in mistake(capsys, model, *arguments)
    assert list(tmp_path.iterdir()) == [model]


def test_a_directory_that_is_no_checkpoint_is_refused(capsys, tmp_path):
    assert "no checkpoint here" in mistake(capsys, tmp_path)


def test_all_models_are_looked_at_before_anything_is_asked(capsys, tmp_path):
    model = checkpoint(tmp_path / "model")
    said = mistake(capsys, model, tmp_path / "other", "--device", "cpu")
    assert f"{tmp_path / 'other'}: no such directory" in said


def test_a_name_that_the_hub_does_not_give_is_refused(monkeypatch):
    def offline(*_: object, **__: object) -> str:
        raise OSError("no connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(
        UserError, match="nobody/nothing: no such directory, and the hub does not give it: no c"
    ):
        fetched("nobody/nothing")


def test_an_export_that_does_not_exist_is_not_looked_for_on_the_hub(tmp_path):
    assert fetched(str(tmp_path / "nowhere")) == tmp_path / "nowhere"


def test_a_mistake_costs_no_import_of_lm_eval(capsys, tmp_path):
    before = "lm_eval" in sys.modules
    mistake(capsys, tmp_path)
    assert ("lm_eval" in sys.modules) is before
