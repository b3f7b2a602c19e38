"""Preparing data: what is written, that it is written once, and the errors where it cannot be."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers")

from atoll import files
from atoll.data import prepare as preparing
from atoll.data.blocks import BLOCK_BYTES, hash_blocks
from atoll.data.manifest import FORMAT, Manifest, PreparedSource
from atoll.data.prepare import prepare
from atoll.data.tokenizer import Tokenizer
from atoll.data.tokens import ShardWriter, TokenStream
from atoll.data.verify import verify
from atoll.errors import UserError
from atoll.files import DirectoryLock
from atoll.recipe import parse

LINE = "the old sea dog sat by the fire and told of islands, storms and gold; nobody dared to ask him more"


def story(number: int) -> str:
    words = LINE.split()
    return " ".join(words[(number * 7 + step * step) % len(words)] for step in range(60)) + f" {number}.\n"


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("\f".join(story(number) for number in range(40)))
    (folder / "b.txt").write_text("\f".join(story(number) for number in range(40, 60)))
    return folder


def recipe_for(texts: Path, **changes):
    tree = {
        "name": "test",
        "model": {"preset": "demo"},
        "tokenizer": {"train": 300},
        "sources": {"tales": {"text": str(texts), "separator": "\f"}},
        "stage": [{"until": 10, "mixture": {"tales": 1}}],
        "inner": {"context_length": 32, "tokens_per_step": 64},
        "outer": {"inner_steps": 2},
        "heldout_fraction": 0.2,
    }
    return parse(tree | changes, "test")


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_document_is_in_one_split_and_comes_back_as_it_was(texts, tmp_path):
    recipe = recipe_for(texts)
    manifest = prepare(recipe, tmp_path / "data")
    tokenizer = Tokenizer.load(tmp_path / "data/tokenizer")
    assert (manifest.tokenizer, manifest.vocab_size, manifest.token_type) == (tokenizer.digest(), 300, "<u2")
    tales = manifest.sources["tales"]
    found = {}
    for split in ("train", "heldout"):
        stream = TokenStream(tmp_path / "data", manifest, "tales", split)
        tokens, begins = stream.read(0, stream.num_tokens)
        assert (tokens[begins] == manifest.bos_id).all()
        documents = np.split(tokens, np.flatnonzero(begins)[1:])
        found[split] = [tokenizer.decode(document) for document in documents]
        assert len(documents) == tales.num_documents(split)
        assert sum(len(text.encode()) for text in found[split]) == tales.num_bytes(split)
    assert 2 < len(found["heldout"]) < 30
    for split, documents in found.items():
        assert {preparing.is_heldout(text.encode(), 0.2) for text in documents} == {split == "heldout"}
    assert sorted(found["train"] + found["heldout"]) == sorted(story(number) for number in range(60))


def test_reading_data_needs_neither_torch_nor_the_libraries_that_made_it():
    """An agent and a coordinator run where none of these is installed."""
    program = (
        "import sys, atoll.data.loader, atoll.data.mixture, atoll.data.prepare, atoll.data.unigram;"
        "print({'torch', 'tokenizers', 'transformers', 'pyarrow', 'zstandard'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"


def test_equal_input_makes_equal_bytes(texts, tmp_path):
    for name in ("one", "two"):
        prepare(recipe_for(texts), tmp_path / name)
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two")
    one = Manifest.load(tmp_path / "one")
    other = prepare(recipe_for(texts, heldout_fraction=0.3), tmp_path / "three")
    assert one.digest() == Manifest.load(tmp_path / "two").digest() != other.digest()


def test_the_digest_names_the_data_and_not_where_it_came_from(texts, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in texts.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    first = prepare(recipe_for(texts), tmp_path / "one")
    assert prepare(recipe_for(moved), tmp_path / "two").digest() == first.digest()


def test_preparing_again_keeps_and_verifies_the_data(texts, tmp_path, monkeypatch):
    manifest = prepare(recipe_for(texts), tmp_path / "data")
    monkeypatch.setattr(preparing, "_prepare", None)
    again = prepare(recipe_for(texts, inner={"context_length": 8, "tokens_per_step": 8}), tmp_path / "data")
    assert again == manifest
    shard = tmp_path / "data" / manifest.sources["tales"].train[0].tokens
    damage(shard, 5)
    with pytest.raises(UserError, match=r"train-00000.tokens: block 0 is damaged"):
        prepare(recipe_for(texts), tmp_path / "data")


def test_a_directory_made_from_another_recipe_is_refused_with_the_keys_that_differ(texts, tmp_path):
    prepare(recipe_for(texts), tmp_path / "data")
    changed = recipe_for(texts, heldout_fraction=0.1, tokenizer={"train": 310}, seed=4)
    with pytest.raises(
        UserError, match=r"another recipe; these keys differ: heldout_fraction, tokenizer.train$"
    ):
        prepare(changed, tmp_path / "data")


def test_a_given_tokenizer_is_used_and_kept_beside_the_data(texts, tmp_path):
    Tokenizer.train([story(number) for number in range(9)], 280).save(tmp_path / "given")
    recipe = recipe_for(texts, tokenizer={"file": str(tmp_path / "given/tokenizer.json")})
    assert prepare(recipe, tmp_path / "data").vocab_size == 280
    assert files_in(tmp_path / "data/tokenizer") == files_in(tmp_path / "given")


def test_held_out_text_never_reaches_the_tokenizer(texts, tmp_path, monkeypatch):
    seen = []
    train = Tokenizer.train

    def watched(given, vocab_size):
        seen.extend(given)
        return train(seen, vocab_size)

    monkeypatch.setattr(Tokenizer, "train", watched)
    prepare(recipe_for(texts), tmp_path / "data")
    assert len(seen) == Manifest.load(tmp_path / "data").sources["tales"].num_documents("train")
    assert not any(preparing.is_heldout(text.encode(), 0.2) for text in seen)


def test_progress_is_reported(texts, tmp_path):
    reports = []
    prepare(recipe_for(texts), tmp_path / "data", reports.append)
    assert reports[0].phase == "tokenizer"
    assert (reports[-1].phase, reports[-1].source, reports[-1].num_documents) == ("tokens", "tales", 60)
    assert reports[-1].num_bytes == sum(len(story(number).encode()) for number in range(60))


def test_a_bad_row_is_named_or_skipped_and_counted(texts, tmp_path):
    (texts / "c.txt").write_bytes(b"fine\f\xff\f\xff")
    with pytest.raises(
        UserError, match=r"sources.tales: .*c.txt, row 2: not UTF-8 at byte 0; correct it, or set"
    ):
        prepare(recipe_for(texts), tmp_path / "data")
    assert not any(path.name.endswith(".tmp") for path in (tmp_path / "data").rglob("*"))
    assert not (tmp_path / "data/manifest.json").exists()
    lenient = {"tales": {"text": str(texts), "separator": "\f", "skip_bad_rows": True}}
    assert prepare(recipe_for(texts, sources=lenient), tmp_path / "data").sources["tales"].num_skipped == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"preset": "demo", "vocab_size": 299}},
            "model.vocab_size = 299 does not fit .* which has 300",
        ),
        ({"tokenizer": {"train": 100}}, "at least 262"),
        ({"tokenizer": {"train": 9000}}, "the text yields only"),
        ({"tokenizer": {"file": "/nowhere/tokenizer.json"}}, "/nowhere/tokenizer.json: cannot be read"),
        (
            {"inner": {"context_length": 1 << 20, "tokens_per_step": 1 << 20}},
            "sources.tales: .* less than one window",
        ),
        ({"heldout_fraction": 1 - 1e-9, "tokenizer": {"file": "given"}}, "every document was held out"),
    ],
)
def test_recipes_that_do_not_fit_the_text_are_refused(texts, tmp_path, changes, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Tokenizer.train([story(1)], 270).save(tmp_path / "given")
    with pytest.raises(UserError, match=message):
        prepare(recipe_for(texts, **changes), tmp_path / "data")


def test_a_source_name_that_would_leave_the_directory_is_refused(texts, tmp_path):
    odd = {"../x": {"text": str(texts)}}
    with pytest.raises(UserError, match="letters, digits, - and _ only"):
        prepare(
            recipe_for(texts, sources=odd, stage=[{"until": 1, "mixture": {"../x": 1}}]), tmp_path / "data"
        )


def test_a_second_process_cannot_prepare_the_same_directory(texts, tmp_path):
    lock = DirectoryLock(tmp_path / "data")
    assert lock.acquire()
    with pytest.raises(UserError, match="another process is preparing"):
        prepare(recipe_for(texts), tmp_path / "data")
    lock.release()


@pytest.mark.parametrize("writes_before", range(10))
def test_a_full_disk_leaves_nothing_half_written(texts, tmp_path, monkeypatch, writes_before):
    sync = files.Disk.sync
    left = iter(range(2 * writes_before))  # a write makes the file's bytes durable, and then its name

    def full(disk, path):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(disk, path)

    monkeypatch.setattr(files.Disk, "sync", full)
    with pytest.raises(UserError, match="no space left on the disk"):
        prepare(recipe_for(texts), tmp_path / "data")
    assert not [name for name in files_in(tmp_path / "data") if name.endswith(".tmp")]
    monkeypatch.undo()
    prepare(recipe_for(texts), tmp_path / "data")
    prepare(recipe_for(texts), tmp_path / "undisturbed")
    assert files_in(tmp_path / "data") == files_in(tmp_path / "undisturbed")


def test_shards_are_read_as_one_stream(tmp_path):
    documents = [np.arange(start, start + 1 + start % 5, dtype=np.uint32) for start in range(30)]
    with ShardWriter(tmp_path, "s/train", "<u4") as writer:
        for document in documents:
            writer.append(document, 3)
            if writer.num_tokens >= 10:
                writer.cut()
    assert len(writer.shards) > 5
    assert all(shard.num_tokens < 10 + 5 for shard in writer.shards)
    manifest = manifest_of(writer)
    stream = TokenStream(tmp_path, manifest, "s", "train")
    everything = np.concatenate(documents)
    starts = np.cumsum([0, *map(len, documents)])[:-1]
    assert stream.num_tokens == len(everything)
    for start in range(0, stream.num_tokens, 7):
        for stop in {start + 1, min(start + 25, stream.num_tokens), stream.num_tokens}:
            tokens, begins = stream.read(start, stop)
            assert tokens.tolist() == everything[start:stop].tolist()
            assert np.flatnonzero(begins).tolist() == [at - start for at in starts if start <= at < stop]


def manifest_of(writer: ShardWriter) -> Manifest:
    source = PreparedSource(train=writer.shards, heldout=[])
    return Manifest(
        format=FORMAT,
        tokenizer="",
        vocab_size=1 << 17,
        bos_id=0,
        sources={"s": source},
        files=writer.files,
        made_from={},
    )


def test_a_damaged_block_is_named_and_the_others_can_be_read(tmp_path):
    with ShardWriter(tmp_path, "s/train", "<u4") as writer:
        writer.append(np.arange(BLOCK_BYTES, dtype=np.uint32), 1)
    damage(tmp_path / writer.shards[0].tokens, 2 * BLOCK_BYTES + 9)
    manifest = manifest_of(writer)
    manifest.save(tmp_path)
    stream = TokenStream(tmp_path, manifest, "s", "train")
    assert stream.read(0, 5)[0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match=r"train-00000.tokens: block 2 is damaged"):
        stream.read(2 * BLOCK_BYTES // 4, 2 * BLOCK_BYTES // 4 + 1)
    with pytest.raises(UserError, match=r"train-00000.tokens: block 2 is damaged"):
        verify(tmp_path)


def damage(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_a_missing_or_shortened_file_is_named(texts, tmp_path):
    manifest = prepare(recipe_for(texts), tmp_path / "data")
    shard = tmp_path / "data" / manifest.sources["tales"].train[0].tokens
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"train-00000.tokens: damaged: \d+ bytes, not"):
        verify(tmp_path / "data")
    shard.unlink()
    with pytest.raises(UserError, match=r"train-00000.tokens: missing"):
        verify(tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: None, "no prepared data here"),
        (lambda tree: tree | {"format": 0}, "format 0, but this atoll reads 3"),
        (lambda tree: [tree], "damaged"),
    ],
)
def test_manifests_that_cannot_be_read_are_refused(texts, tmp_path, change, message):
    prepare(recipe_for(texts), tmp_path / "data")
    path = tmp_path / "data/manifest.json"
    tree = change(json.loads(path.read_text()))
    path.unlink() if tree is None else path.write_text(json.dumps(tree))
    with pytest.raises(UserError, match=message):
        Manifest.load(tmp_path / "data")


def test_a_file_has_a_digest_for_each_block(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    assert hash_blocks(path).num_blocks == 0
    path.write_bytes(bytes(BLOCK_BYTES + 1))
    blocks = hash_blocks(path)
    assert (blocks.num_bytes, blocks.num_blocks) == (BLOCK_BYTES + 1, 2)
    assert blocks.digest(0) != blocks.digest(1)
