"""Preparing with any number of processes, stopped anywhere: the same bytes."""

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("tokenizers")

from atoll.data import encode, sections
from atoll.data.encode import Encoders, How
from atoll.data.prepare import prepare
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.recipe import parse

LINE = "the old sea dog sat by the fire and told of islands, storms and gold; nobody dared to ask him more"


def write_rows(path: Path, numbers: range) -> None:
    words = LINE.split()
    rows = [
        " ".join(words[(number * 7 + step * step) % len(words)] for step in range(40)) for number in numbers
    ]
    text = [
        msgspec.json.encode({"text": f"{row} {number}" if number % 9 else None})
        for number, row in zip(numbers, rows, strict=True)
    ]
    path.write_bytes(b"\n".join(text))


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    write_rows(folder / "a.jsonl", range(100))
    write_rows(folder / "b.jsonl", range(100, 160))
    return folder


@pytest.fixture(autouse=True)
def many_sections(monkeypatch):
    """Five documents a batch, a few batches a section, so that there is something to be interrupted."""
    monkeypatch.setattr(sections, "BATCH_CHARACTERS", 1000)
    monkeypatch.setattr(sections, "SECTION_TOKENS", 900)


def recipe_over(raw: Path):
    return parse(
        {
            "name": "test",
            "model": {"preset": "demo"},
            "tokenizer": {"train": 300},
            "sources": {"tales": {"jsonl": str(raw), "skip_bad_rows": True}},
            "stage": [{"until": 10, "mixture": {"tales": 1}}],
            "inner": {"context_length": 32, "tokens_per_step": 64},
            "outer": {"inner_steps": 2},
            "heldout_fraction": 0.2,
        },
        "test",
    )


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def undisturbed(raw, tmp_path):
    manifest = prepare(recipe_over(raw), tmp_path / "undisturbed")
    tales = manifest.sources["tales"]
    assert len(tales.train) > 5
    assert (tales.num_documents("train") + tales.num_documents("heldout"), tales.num_skipped) == (142, 18)
    return files_in(tmp_path / "undisturbed")


@pytest.mark.parametrize("num_processes", [1, 3])
def test_the_number_of_processes_changes_nothing(raw, tmp_path, undisturbed, monkeypatch, num_processes):
    monkeypatch.setattr(encode, "FEW_BATCHES", 0)
    prepare(recipe_over(raw), tmp_path / "data", num_processes=num_processes)
    assert files_in(tmp_path / "data") == undisturbed


@pytest.mark.parametrize("reports_until_stop", [5, 7, 16])
def test_a_preparation_stopped_again_and_again_loses_and_repeats_nothing(
    raw, tmp_path, undisturbed, reports_until_stop
):
    begun_at = []

    def prepare_until_stopped():
        seen = []

        def stop(progress):
            if progress.phase == "tokens":
                seen.append(progress.num_documents)
                if len(seen) == reports_until_stop:
                    raise KeyboardInterrupt

        try:
            prepare(recipe_over(raw), tmp_path / "data", stop)
        except KeyboardInterrupt:
            return True
        finally:
            begun_at.append(seen[0])
        return False

    while prepare_until_stopped():
        pass
    assert len(begun_at) > 1
    assert begun_at == sorted(set(begun_at))  # it went on each time
    assert files_in(tmp_path / "data") == undisturbed


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_preparation_leaves_no_process_and_can_be_continued(raw, tmp_path, undisturbed):
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_data_resume import recipe_over, sections, encode, prepare
sections.BATCH_CHARACTERS, sections.SECTION_TOKENS, encode.FEW_BATCHES = 1000, 900, 0
count = 0
def kill(progress):
    global count
    count += progress.phase == "tokens"
    if count == 12:
        print(*(path.read_text() for path in Path("/proc/self/task").glob("*/children")), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
prepare(recipe_over(Path({str(raw)!r})), Path({str(tmp_path / "data")!r}), kill, 2)
"""
    killed = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert killed.returncode == -9
    children = [int(line) for line in killed.stdout.split()]
    assert len(children) >= 2
    deadline = time.monotonic() + 10
    while any(map(is_encoding, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_encoding, children))
    assert any(name.endswith(".tmp") for name in files_in(tmp_path / "data"))
    prepare(recipe_over(raw), tmp_path / "data")
    assert files_in(tmp_path / "data") == undisturbed


def is_encoding(process: int) -> bool:
    try:
        return b"atoll.data.encode" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def test_raw_files_that_changed_meanwhile_are_read_from_the_beginning(raw, tmp_path):
    def stop(progress):
        if progress.phase == "tokens" and progress.num_documents > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(recipe_over(raw), tmp_path / "data", stop)
    write_rows(raw / "a.jsonl", range(200, 210))
    manifest = prepare(recipe_over(raw), tmp_path / "data")
    tales = manifest.sources["tales"]
    assert tales.num_documents("train") + tales.num_documents("heldout") + tales.num_skipped == 70
    kept = {name for name in files_in(tmp_path / "data") if name.startswith("shards/")}
    assert kept == {name for name in manifest.files if name.startswith("shards/")}


def test_progress_tells_rate_and_time_left(raw, tmp_path):
    reports = []
    prepare(recipe_over(raw), tmp_path / "data", reports.append)
    shares = [report.fraction for report in reports if report.phase == "tokens"]
    assert shares == sorted(shares)
    assert (shares[-1], reports[-1].seconds_left) == (1.0, 0.0)
    assert reports[-1].bytes_per_second > 0
    assert (reports[-1].phase, reports[-1].source, reports[-1].num_documents) == ("tokens", "tales", 142)


def test_the_death_of_a_tokenizing_process_is_reported(tmp_path, monkeypatch):
    class Batch:
        texts = ("text",)

    monkeypatch.setattr(encode, "FEW_BATCHES", 0)
    Tokenizer.train([LINE], 270).save(tmp_path)
    with Encoders(tmp_path, How(0.1), 1) as encoders, pytest.raises(UserError, match="ended with status -9"):
        for _ in encoders.map(Batch() for _ in range(100)):
            encoders._processes[0]._child.kill()
