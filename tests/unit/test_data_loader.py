"""Windows, batches and the unigram loss, on data small enough to compute by hand."""

from math import log

import msgspec
import numpy as np
import pytest

from atoll.data import blocks
from atoll.data.loader import Loader
from atoll.data.manifest import FORMAT, Manifest, PreparedSource
from atoll.data.partial import PartialData
from atoll.data.tokens import ShardWriter
from atoll.data.unigram import heldout_bytes_per_token, heldout_unigram_loss, heldout_weights
from atoll.data.verify import verify
from atoll.errors import UserError
from atoll.recipe import parse

BOS = 9


def write_data(data_dir, sources, shard_tokens=1 << 20, vocab_size=10):
    """Write prepared data and return its manifest.

    `sources`: {name: (training documents, held-out documents)}. A document is a list of tokens, of which each
    but the BOS counts as one byte of text.
    """
    prepared, files = {}, {}
    for name, splits in sources.items():
        shards = []
        for split, documents in zip(("train", "heldout"), splits, strict=True):
            with ShardWriter(data_dir, f"{name}/{split}", "<u2") as writer:
                for document in documents:
                    writer.append(np.array(document), len(document) - 1)
                    if writer.num_tokens >= shard_tokens:
                        writer.cut()
            shards.append(writer.shards)
            files |= writer.files
        prepared[name] = PreparedSource(train=shards[0], heldout=shards[1])
    manifest = Manifest(
        format=FORMAT,
        tokenizer="",
        vocab_size=vocab_size,
        bos_id=BOS,
        sources=prepared,
        files=files,
        made_from={},
    )
    manifest.save(data_dir)
    return manifest


def recipe_for(context_length, **weights):
    return parse(
        {
            "name": "test",
            "model": {"preset": "demo", "vocab_size": 10},
            "tokenizer": {"train": 300},
            "sources": {name: {"text": name} for name in weights},
            "stage": [{"until": 10, "mixture": weights}],
            "inner": {"context_length": context_length, "tokens_per_step": context_length},
            "outer": {"inner_steps": 2},
        },
        "test",
    )


TALES = [[BOS, 1, 2, 3, 4], [BOS, 5], [BOS], [BOS, 6, 7]]  # 11 tokens


def test_windows_are_those_computed_by_hand(tmp_path):
    write_data(tmp_path, {"a": (TALES, TALES)}, shard_tokens=6)
    ((name, batch),) = Loader(tmp_path, recipe_for(4, a=1)).heldout(micro_batch=8)
    assert name == "a"
    assert batch.tokens.tolist() == [[9, 1, 2, 3], [4, 9, 5, 9], [9, 6, 7, 9]]
    assert batch.labels.tolist() == [[1, 2, 3, 4], [-100, 5, -100, -100], [6, 7, -100, -100]]
    assert batch.documents.tolist() == [[0, 0, 0, 0], [0, 1, 1, 2], [0, 0, 0, 1]]
    assert [part.dtype for part in batch[:3]] == [np.int64, np.int64, np.int32]
    assert batch[3:] == ({}, {})


def test_a_window_that_ends_with_a_document_has_no_label_there(tmp_path):
    write_data(tmp_path, {"a": ([[BOS, 1], [BOS, 2]], [[BOS, 1], [BOS, 2]])})
    ((_, batch),) = Loader(tmp_path, recipe_for(2, a=1)).heldout(micro_batch=8)
    assert batch.labels.tolist() == [[1, -100], [2, -100]]
    assert batch.documents.tolist() == [[0, 0], [0, 0]]


def test_a_step_is_cut_into_micro_batches_in_the_order_of_its_samples(tmp_path):
    write_data(tmp_path, {"a": ([[BOS, *[n % 8] * 6] for n in range(30)], []), "b": ([[BOS, 8] * 20], [])})
    loader = Loader(tmp_path, recipe_for(7, a=80, b=20))
    steps = list(loader.batches(range(100, 120), [0], windows_per_step=10, micro_batch=4))
    assert [[len(batch.tokens) for batch in step] for step in steps] == [[4, 4, 2]] * 2
    rows = np.concatenate([batch.tokens for step in steps for batch in step])
    for row, index in zip(rows, range(100, 120), strict=True):
        sample = loader.mixture.sample(index, [0])
        assert row[1] == (sample.window % 8 if sample.source == "a" else 8 if row[0] == BOS else BOS)
    parts = list(loader.batches(range(110, 120), [0], windows_per_step=10, micro_batch=4))
    assert (parts[0][2].tokens == steps[1][2].tokens).all()


def test_samples_that_do_not_fill_a_step_are_a_programming_error(tmp_path):
    write_data(tmp_path, {"a": (TALES, [])})
    with pytest.raises(ValueError, match="3 samples are left, but a step takes 8"):
        list(Loader(tmp_path, recipe_for(4, a=1)).batches(range(11), [0], windows_per_step=8, micro_batch=8))


def test_a_number_of_held_out_windows_can_be_read_evenly_spaced(tmp_path):
    documents = [[BOS, number % 8, 0, 0] for number in range(20)]
    write_data(tmp_path, {"a": (documents, documents), "b": (documents, documents[:3])})
    loader = Loader(tmp_path, recipe_for(4, a=1, b=1))
    thinned = [
        (name, batch.tokens[:, 1].tolist()) for name, batch in loader.heldout(micro_batch=3, num_windows=5)
    ]
    assert thinned == [("a", [0, 4, 0]), ("a", [4, 0]), ("b", [0, 1, 2])]
    assert sum(len(batch.tokens) for _, batch in loader.heldout(micro_batch=3)) == 23


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (recipe_for(12, a=1), "sources.a: 11 tokens to train on, less than one window of 12"),
        (recipe_for(4, a=1, c=1), "sources.c: not in the prepared data"),
    ],
)
def test_data_that_does_not_fit_the_recipe_is_refused(tmp_path, recipe, message):
    write_data(tmp_path, {"a": (TALES, [])})
    with pytest.raises(UserError, match=message):
        Loader(tmp_path, recipe)


def test_a_vocabulary_larger_than_the_models_is_refused(tmp_path):
    write_data(tmp_path, {"a": (TALES, [])}, vocab_size=11)
    with pytest.raises(
        UserError, match=r"model.vocab_size = 10 does not fit the tokenizer, which has 11 tokens"
    ):
        Loader(tmp_path, recipe_for(4, a=1))


def test_the_unigram_loss_is_that_computed_by_hand(tmp_path):
    write_data(
        tmp_path, {"a": ([[BOS, 0, 0, 0, 1]], [[BOS, 0, 1]]), "b": ([[BOS, 2, 2]], [[BOS, 2], [BOS, 2]])}
    )
    a = np.array([4, 2, 1, 1, 1, 1, 1, 1, 1, 1]) / 14  # one added to each count
    b = np.array([1, 1, 3, 1, 1, 1, 1, 1, 1, 1]) / 12
    train = 0.75 * a + 0.25 * b
    expected = -(0.75 * (0.5 * log(train[0]) + 0.5 * log(train[1])) + 0.25 * log(train[2]))
    assert heldout_unigram_loss(tmp_path, {"a": 3, "b": 1}) == pytest.approx(expected, rel=1e-12)


def test_held_out_weights_leave_out_sources_without_held_out_text(tmp_path):
    manifest = write_data(tmp_path, {"a": (TALES, [[BOS, 1, 2]]), "b": (TALES, []), "c": (TALES, [[BOS]])})
    assert heldout_weights(manifest, {"a": 2, "b": 5, "c": 1}) == {"a": 1.0}
    assert heldout_bytes_per_token(manifest, {"a": 2, "b": 5}) == 1.0
    with pytest.raises(UserError, match="no document is held out; raise heldout_fraction"):
        heldout_weights(manifest, {"b": 1})


@pytest.fixture
def partial(tmp_path, monkeypatch):
    """Complete data, data with only the manifest, and a loader of the latter; blocks are 64 bytes."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    documents = [[BOS, *[n % 8] * 9] for n in range(400)]
    manifest = write_data(tmp_path / "theirs", {"a": (documents, documents[:40])}, shard_tokens=1000)
    manifest.save(tmp_path / "ours")
    theirs, ours = (PartialData(manifest.digest(), [tmp_path / name]) for name in ("theirs", "ours"))
    return theirs, ours, Loader(tmp_path / "ours", recipe_for(4, a=1))


def bring(theirs, ours, needed):
    missing = ours.missing(needed)
    for file, block in missing:
        ours.put(file, block, theirs.block(file, block))
    return missing


def read(loader, samples):
    (step,) = loader.batches(samples, [0], len(samples), 8)
    return [batch.tokens.tolist() for batch in step]


def test_the_blocks_named_for_a_lease_are_few_and_enough_to_read_it(tmp_path, partial):
    theirs, ours, loader = partial
    lease = range(100, 108)
    with pytest.raises(UserError, match=r"train-0000\d.tokens: missing"):
        read(loader, lease)
    brought = bring(theirs, ours, loader.blocks(lease, [0]))
    tokens = [file for file, _ in brought if file.endswith(".tokens")]
    assert 0 < len(tokens) <= len(lease) + 1  # of 126: windows of a lease lie together
    assert all(file.startswith("a/train") for file, _ in brought)
    assert read(loader, lease) == read(Loader(tmp_path / "theirs", recipe_for(4, a=1)), lease)
    assert bring(theirs, ours, loader.blocks(lease, [0])) == []  # kept
    with pytest.raises(UserError, match=r"damaged, or was never fetched|missing"):
        read(loader, range(200))


def test_the_blocks_named_for_held_out_windows_are_enough_to_read_them(tmp_path, partial):
    theirs, ours, loader = partial
    brought = bring(theirs, ours, loader.heldout_blocks(3))
    assert 0 < len(brought) < len(loader.heldout_blocks()["a/heldout-00000.tokens"])
    expected = Loader(tmp_path / "theirs", recipe_for(4, a=1)).heldout(8, 3)
    assert [b.tokens.tolist() for _, b in loader.heldout(8, 3)] == [b.tokens.tolist() for _, b in expected]


def test_partial_data_gives_only_blocks_that_it_has_undamaged(tmp_path, partial):
    theirs, ours, _ = partial
    file = "a/train-00000.tokens"
    assert ours.block(file, 0) is None
    ours.put(file, 3, theirs.block(file, 3))
    assert ours.block(file, 3) == theirs.block(file, 3)
    assert [ours.block(file, block) for block in (-1, 0, 2, 4, 10**6)] == [None] * 5  # the rest is a hole
    assert ours.block("../theirs/" + file, 0) is None
    with (tmp_path / "theirs" / file).open("r+b") as damaged:
        damaged.write(b"\xff")
    assert theirs.block(file, 0) is None
    assert theirs.missing({file: (0, 1)}) == [(file, 0)]


def test_a_manifest_with_another_digest_or_a_file_outside_is_refused(tmp_path, partial):
    theirs, ours, _ = partial
    raw = theirs.block("", 0)
    assert ours.parse_manifest(raw) == msgspec.structs.replace(theirs.manifest, made_from={}, left_out={})
    assert ours.parse_manifest(raw[:-10]) is None
    assert ours.parse_manifest(b"\xff" + raw) is None
    told = msgspec.structs.replace(theirs.manifest, made_from={"evil": 1}, left_out={"s": ["lies"]})
    kept = ours.parse_manifest(msgspec.json.encode(told))
    assert kept is not None and (kept.made_from, kept.left_out) == ({}, {}), "the digest does not cover these"
    outside = msgspec.structs.replace(theirs.manifest, files={"../x": blocks.FileBlocks(0, b"")})
    outside.save(tmp_path / "outside")
    raw = (tmp_path / "outside" / "manifest.json").read_bytes()
    assert ours.parse_manifest(raw) is None
    assert PartialData(outside.digest(), [tmp_path / "ours"]).parse_manifest(raw) is None


def test_tokens_that_the_tokenizer_does_not_have_are_refused(tmp_path):
    write_data(tmp_path, {"a": ([[BOS, 1, 10, 3, 4]], [])})
    message = r"a/train-00000.tokens: token 2 is 10, but the vocabulary ends at 10"
    with pytest.raises(UserError, match=message):
        list(Loader(tmp_path, recipe_for(4, a=1)).batches(range(2), [0], 1, 1))
    with pytest.raises(UserError, match=message):
        verify(tmp_path)


@pytest.mark.parametrize(("document", "at"), [([1, 2, 3, 4], 0), ([BOS, 1, BOS, 2], 7)])
def test_a_document_without_one_bos_at_its_head_is_refused(tmp_path, document, at):
    write_data(tmp_path, {"a": ([document] if at == 0 else [[BOS, 1, 2, 3, 4], document], [])})
    with pytest.raises(UserError, match=f"a/train-00000.tokens: token {at}: BOS must stand at the head"):
        verify(tmp_path)
