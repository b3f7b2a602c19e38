"""What another model says of prepared rows: as it says it of a row alone, resumable, and of no other rows."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from unit.chats import chat_recipe, prepared

from atoll.data.loader import NO_LABEL, Loader
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.island.step import Island
from atoll.model import hf
from atoll.model.attention import Mask
from atoll.objective import build
from atoll.objective.entries import Entries
from atoll.post import capture as module
from atoll.post import verb
from atoll.post.capture import Part, ranges
from atoll.post.verb import Asked, capture_for
from atoll.publish.export import load_model
from atoll.recipe import Recipe
from atoll.run.captured import check_captured
from atoll.run.directory import RunDir

Prepared = tuple[Recipe, RunDir]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Prepared:
    return prepared(tmp_path_factory.mktemp("pairs"), "dpo")


@pytest.fixture(scope="module")
def chats(tmp_path_factory) -> Prepared:
    return prepared(tmp_path_factory.mktemp("chats"), "distill")


@pytest.fixture
def copied(request, tmp_path) -> Iterator[Prepared]:
    """A copy of what the test names, so that it may change it."""
    recipe, run_dir = request.getfixturevalue(request.param)
    shutil.copytree(run_dir.path, tmp_path / "run")
    yield recipe, RunDir(tmp_path / "run")


a_run_of = pytest.mark.parametrize("copied", ["pairs"], indirect=True)
a_run_of_chats = pytest.mark.parametrize("copied", ["chats"], indirect=True)


def quiet(done: int, count: int) -> None:
    pass


def teacher_of(run: Prepared, directory: Path, vocab_size: int = 384) -> Path:
    """A checkpoint of `transformers` with the tokenizer of the run's data, of weights that mean nothing."""
    recipe, run_dir = run
    described = msgspec.structs.replace(recipe.model, vocab_size=vocab_size)
    model = hf.build(described, 320)
    assert isinstance(model, hf.Llama)
    model.init_weights(7)
    directory.mkdir()
    hf.save_model(directory, model, context_length=192, bos_token_id=0, eos_token_id=1)
    Tokenizer.load(run_dir.data / "tokenizer").save(directory)
    return directory


# ------------------------------------------------------------------------------------------------ a reference
@a_run_of
def test_a_run_whose_reference_is_missing_is_refused_and_told_what_to_do(copied) -> None:
    with pytest.raises(UserError, match=r"has no column 'reference'.*atoll capture"):
        check_captured(*copied)


@a_run_of
def test_with_its_reference_a_run_of_pairs_starts_at_ln_2_on_all_data(copied) -> None:
    recipe, run_dir = copied
    assert capture_for(recipe, run_dir, Asked(), quiet) == (0, "")
    check_captured(recipe, run_dir)
    assert not (run_dir.path / "capture" / "reference").exists()
    loader = Loader(run_dir.data, recipe)
    model = load_model(recipe, loader.manifest.vocab_size, run_dir.state_0())
    island = Island(model, build(recipe, loader.manifest.vocab_size), recipe)
    batches = [batch for _, batch in loader.heldout(3)]
    batches += [
        loader.windows(each.source, each.split, range(each.first, each.stop))
        for each in ranges(loader.manifest)
    ]
    for batch in batches:
        loss, count = island.evaluate([batch])
        assert count > 0
        assert loss / count == pytest.approx(math.log(2), abs=1e-6)


@a_run_of
def test_a_capture_goes_on_where_it_was_interrupted_and_parts_share_it(copied, monkeypatch) -> None:
    recipe, run_dir = copied
    monkeypatch.setattr(module, "WINDOWS_AT_ONCE", 4)
    missing, _ = capture_for(recipe, run_dir, Asked(part=Part(2, 2)), quiet)
    assert missing > 1
    with pytest.raises(UserError, match="or only a part of it"):
        check_captured(recipe, run_dir)
    done = {path.name: path.stat().st_mtime_ns for path in (run_dir.path / "capture" / "reference").iterdir()}

    def interrupted(number: int, count: int) -> None:
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture_for(recipe, run_dir, Asked(), interrupted)
    told: list[tuple[int, int]] = []
    assert capture_for(recipe, run_dir, Asked(), lambda *each: told.append(each))[0] == 0
    assert told[-1][0] == told[-1][1] > len(done)
    whole = run_dir.data.rglob("*.reference")
    assert all(path.stat().st_size for path in whole)
    check_captured(recipe, run_dir)


@a_run_of
def test_a_capture_of_other_rows_or_of_another_model_is_refused(copied, monkeypatch) -> None:
    recipe, run_dir = copied
    monkeypatch.setattr(module, "WINDOWS_AT_ONCE", 4)
    capture_for(recipe, run_dir, Asked(part=Part(1, 2)), quiet)
    claim = run_dir.path / "capture" / "reference" / "capture.json"
    known = msgspec.json.decode(claim.read_bytes(), type=module.Claim)
    changed = msgspec.structs.replace(known, rows="0" * 64)
    claim.write_bytes(msgspec.json.encode(changed))
    with pytest.raises(UserError, match="captured here is of other rows; delete it"):
        capture_for(recipe, run_dir, Asked(), quiet)
    other = msgspec.structs.replace(known, column=msgspec.structs.replace(known.column, of="another"))
    claim.write_bytes(msgspec.json.encode(other))
    with pytest.raises(UserError, match="of another model"):
        capture_for(recipe, run_dir, Asked(), quiet)


@a_run_of
def test_a_reference_of_another_start_is_refused(copied) -> None:
    recipe, run_dir = copied
    capture_for(recipe, run_dir, Asked(), quiet)
    path = run_dir.data / "manifest.json"
    root = run_dir.state_0().root.hex()
    path.write_text(path.read_text().replace(root, "0" * 64))
    with pytest.raises(UserError, match="of another model than this run starts from"):
        check_captured(recipe, run_dir)


@a_run_of
def test_a_reference_that_is_nan_is_refused(copied, monkeypatch) -> None:
    recipe, run_dir = copied
    model = load_model(recipe, Loader(run_dir.data, recipe).manifest.vocab_size, run_dir.state_0())
    model.model.norm.weight.data.fill_(torch.nan)
    monkeypatch.setattr(verb, "load_model", lambda *_: model)
    with pytest.raises(UserError, match="a reference is NaN, so the model is broken; nothing was stored"):
        capture_for(recipe, run_dir, Asked(), quiet)
    assert not list(run_dir.data.rglob("*.reference"))
    with pytest.raises(UserError, match="has no column 'reference'"):
        check_captured(recipe, run_dir)


@a_run_of
def test_a_hosted_run_is_not_captured_any_more(copied) -> None:
    recipe, run_dir = copied
    run_dir.coordinator.mkdir()
    (run_dir.coordinator / "ticket").write_text("")
    with pytest.raises(UserError, match="is hosted already"):
        capture_for(recipe, run_dir, Asked(), quiet)


def test_an_objective_that_needs_nothing_is_told_so(tmp_path) -> None:
    recipe = chat_recipe(tmp_path, "sft")
    with pytest.raises(UserError, match="needs nothing captured"):
        capture_for(recipe, RunDir(tmp_path / "run"), Asked(), quiet)


# -------------------------------------------------------------------------------------------------- a teacher
@a_run_of_chats
def test_a_teachers_entries_are_those_of_its_logits(copied, tmp_path) -> None:
    recipe, run_dir = copied
    teacher = teacher_of(copied, tmp_path / "teacher")
    missing, text = capture_for(recipe, run_dir, Asked(teacher=teacher, num_entries=8), quiet)
    assert missing == 0
    assert text.startswith("4 bytes an entry; log-probabilities are off by")
    loader = Loader(run_dir.data, recipe)
    batch = loader.windows("rows", "train", range(3))
    model = hf.open_model(teacher)
    documents = torch.tensor(batch.documents)
    hidden = model(torch.tensor(batch.tokens), Mask.of_documents(documents))
    logprobs = (hidden @ model.head_weight.T).detach().double().log_softmax(-1)
    values, ids = logprobs[..., :320].topk(7)
    others = torch.log1p(-values.exp().sum(-1, keepdim=True))  # the model's 64 rows of padding included
    words = torch.tensor(batch.by_token["teacher"])
    found_ids, found = Entries(320).decoded(words)
    is_label = torch.tensor(batch.labels) != NO_LABEL
    assert (found_ids[is_label] == ids[is_label]).all()
    torch.testing.assert_close(found[is_label], torch.cat((values, others), -1)[is_label], rtol=0, atol=1e-4)
    check_captured(recipe, run_dir)


@a_run_of_chats
def test_a_student_equal_to_its_teacher_has_nearly_nothing_to_learn(copied, tmp_path) -> None:
    recipe, run_dir = copied
    teacher = teacher_of(copied, tmp_path / "teacher")
    capture_for(recipe, run_dir, Asked(teacher=teacher), quiet)
    loader = Loader(run_dir.data, recipe)
    batch = loader.windows("rows", "train", range(4))
    losses = [
        Island(model, build(recipe, 320), recipe).evaluate([batch])
        for model in (hf.open_model(teacher), load_model(recipe, 320, run_dir.state_0()))
    ]
    (equal, count), (other, _) = losses
    assert abs(equal / count) < 1e-6
    assert other / count > 1e-3


@a_run_of_chats
def test_a_teacher_with_nan_is_refused(copied, tmp_path, monkeypatch) -> None:
    recipe, run_dir = copied
    teacher = teacher_of(copied, tmp_path / "teacher")
    model = hf.open_model(teacher)
    model.model.norm.weight.data.fill_(torch.nan)
    monkeypatch.setattr(hf, "open_model", lambda _: model)
    with pytest.raises(UserError, match="the teacher is broken: a log-probability is NaN"):
        capture_for(recipe, run_dir, Asked(teacher=teacher), quiet)
    assert not list(run_dir.data.rglob("*.teacher"))
    # It has captured nothing, so another teacher is welcome.
    monkeypatch.undo()
    other = teacher_of(copied, tmp_path / "other")
    assert capture_for(recipe, run_dir, Asked(teacher=other, num_entries=8), quiet)[0] == 0


@a_run_of_chats
def test_a_teacher_of_another_vocabulary_is_refused_by_the_first_id_that_differs(copied, tmp_path) -> None:
    recipe, run_dir = copied
    teacher = teacher_of(copied, tmp_path / "teacher")
    tokenizer = teacher / "tokenizer.json"
    text = tokenizer.read_text()
    assert '"<|eot_id|>"' in text
    tokenizer.write_text(text.replace("<|finetune_right_pad_id|>", "<|another|>"))
    config = teacher / "tokenizer_config.json"
    config.write_text(config.read_text().replace("<|finetune_right_pad_id|>", "<|another|>"))
    with pytest.raises(UserError, match=r"another vocabulary: id \d+ is '<\|another\|>', and '<\|finetune"):
        capture_for(recipe, run_dir, Asked(teacher=teacher), quiet)


@a_run_of_chats
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(), "exactly one of --teacher DIR, --server URL and --rows FILE"),
        (Asked(teacher=Path("a"), server="http://x/v1"), "exactly one of"),
        (Asked(server="http://x/v1"), "say with --tokenizer where"),
    ],
)
def test_who_teaches_has_to_be_said(copied, asked, message) -> None:
    with pytest.raises(UserError, match=message):
        capture_for(*copied, asked, quiet)


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "/"])
def test_a_part_that_is_none_is_refused(text) -> None:
    with pytest.raises(UserError, match="write it as 2/4"):
        Part.parse(text)
