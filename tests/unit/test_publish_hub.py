"""Exports at the command line: written, verified, pushed; a mistake is one sentence, and nothing is lost."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError
from small_runs import PEOPLE, SmallRun

from atoll import cli
from atoll.publish.export import export


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> SmallRun:
    return SmallRun(tmp_path_factory.mktemp("run")).commit(3)


@pytest.fixture(scope="module")
def whole(run: SmallRun, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "model"
    export(run.dir, out)
    return out


@pytest.fixture
def said(capsys) -> Callable[..., str]:
    def run_verb(*arguments: object) -> str:
        assert cli.main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return run_verb


@pytest.fixture
def mistake(capsys) -> Callable[..., str]:
    def run_verb(*arguments: object) -> str:
        assert cli.main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    return run_verb


class Hub:
    """What is asked of the hub."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._error = error

    def create_repo(self, name: str, **options: Any) -> None:
        self.asked.append((name, options))

    def upload_folder(self, **options: Any) -> str:
        self.asked.append(("upload", options))
        if self._error is not None:
            raise self._error
        return "https://hub/ada/model"


@pytest.fixture
def hub(monkeypatch) -> Hub:
    made = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    return made


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------ export
def test_an_export_of_a_step_says_what_it_is_and_what_is_next(run: SmallRun, tmp_path, said) -> None:
    out = tmp_path / "model"
    text = said("export", run.dir.path, out, "--step", 2, "--dtype", "bf16", "--shard-gigabytes", 0.001)
    assert f"state 2, root {run.log.root(2, b'').hex()[:12]}, is in {out}" in text
    assert f"atoll generate {out}" in text
    assert f"state 2 of {run.recipe.num_outer_steps}" in said("verify", out)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--step", "9"], "state 9 is not at hand; at hand are the states 0 to 3"),
        (["--shard-gigabytes", "0"], "--shard-gigabytes 0: must be from 0.001 to 50"),
        (["--dry-run"], "--dry-run: only with --push"),
        (["--push", "model"], "--push model: not a name on the hub; give it as owner/name"),
        (["--push", "../model"], "not a name on the hub"),
    ],
)
def test_a_mistaken_export_writes_nothing(run, tmp_path, mistake, options: list[str], words: str) -> None:
    assert words in mistake("export", run.dir.path, tmp_path / "model", *options)
    assert not (tmp_path / "model").exists()


# ------------------------------------------------------------------------------------------------ verify
def test_verify_tells_what_is_proven_and_to_whom_it_is_so(run: SmallRun, whole: Path, said) -> None:
    text = said("verify", whole)
    assert "tensors: that state, to the last bit" in text
    for island in PEOPLE:
        assert island in text
    assert "ask the run's host" in text
    certificate = run.dir.coordinator / "authority.pem"
    assert "ask the run's host" not in said("verify", whole, "--certificate", certificate)


def test_verify_of_a_changed_export_names_the_tensor(whole: Path, tmp_path, mistake) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    path = copy / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "model.norm.weight is not what the run has committed" in mistake("verify", copy)


def test_a_certificate_that_is_not_there_is_named(whole: Path, tmp_path, mistake) -> None:
    path = tmp_path / "authority.pem"
    assert f"{path}: cannot be read" in mistake("verify", whole, "--certificate", path)


# -------------------------------------------------------------------------------------------------- push
def test_a_dry_run_lists_what_would_go_and_asks_the_hub_nothing(run, whole: Path, hub: Hub, said) -> None:
    before = files_of(whole)
    text = said("export", run.dir.path, whole, "--push", "ada/model", "--dry-run")
    assert [line.split("  ")[-1] for line in text.splitlines()[1:-1]] == sorted(
        path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()
    )
    assert "proof/records.msgpack" in text
    assert text.splitlines()[-1].endswith("would be uploaded to ada/model; nothing was")
    assert hub.asked == []
    assert files_of(whole) == before


def test_a_push_uploads_a_verified_export(run: SmallRun, whole: Path, hub: Hub, said) -> None:
    text = said("export", run.dir.path, whole, "--push", "ada/model")
    assert text.splitlines()[-1].endswith("are uploaded to https://hub/ada/model")
    (name, _), (_, options) = hub.asked
    assert name == options["repo_id"] == "ada/model"
    assert options["folder_path"] == whole


def test_a_push_of_a_changed_export_or_of_another_run_is_refused(
    run: SmallRun, whole: Path, hub: Hub, tmp_path, mistake
) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    (copy / "extra.py").write_text("")
    assert "extra.py" in mistake("export", run.dir.path, copy, "--push", "ada/model")
    other = SmallRun(tmp_path / "other")
    assert "an export of another run" in mistake("export", other.dir.path, whole, "--push", "ada/model")
    assert hub.asked == []


def test_without_a_token_it_says_how_to_get_one(run, whole: Path, monkeypatch, mistake) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "run `hf auth login`" in mistake("export", run.dir.path, whole, "--push", "ada/model")


FORBIDDEN: Any = SimpleNamespace(headers={}, request=None)
(OfTheClient, *_) = HfHubHTTPError.__bases__


@pytest.mark.parametrize(
    "error",
    [
        OSError("no route\nto the hub"),
        OfTheClient("Name or service not known"),
        HfHubHTTPError("403 Forbidden\nmore", response=FORBIDDEN),
    ],
)
def test_a_refusal_of_the_hub_is_one_sentence_and_the_export_stays(
    run: SmallRun, whole: Path, monkeypatch, mistake, error: Exception
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(error))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    text = mistake("export", run.dir.path, whole, "--push", "ada/model")
    assert str(error).splitlines()[0] in text
    assert "the same command pushes it again" in text
    assert (whole / "model.safetensors").exists()
