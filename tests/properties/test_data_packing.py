"""What holds for packed rows of any lengths: nothing is lost, split or over-full, and packing is tight."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.columns import TRAINED
from atoll.data.loader import NO_LABEL, Loader
from atoll.data.manifest import FORMAT, Manifest, PreparedSource
from atoll.data.packing import PackedRow, PackedWriter, best_fit
from atoll.data.verify import verify
from atoll.recipe import parse

BOS = 0


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 64))
def test_every_row_is_whole_in_one_window(lengths, window_tokens):
    windows = best_fit(lengths, window_tokens)
    assert sorted(row for rows in windows for row in rows) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in rows) <= window_tokens for rows in windows)
    assert windows == sorted(windows) == [sorted(rows) for rows in windows]


@given(st.lists(st.integers(1, 50), max_size=60))
def test_no_two_windows_could_be_one(lengths):
    filled = sorted(sum(lengths[row] for row in rows) for rows in best_fit(lengths, 50))
    assert len(filled) < 2 or filled[0] + filled[1] > 50


def test_best_fit_finds_the_fullest_window_with_room():
    assert best_fit([6, 3, 5, 4, 2], 10) == [[0, 3], [1, 2, 4]]
    assert best_fit([], 10) == []


# A row: whether each token behind the BOS of each of its documents is trained on.
rows = st.lists(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=2), max_size=25
)


@settings(max_examples=30, deadline=None)
@given(rows, st.integers(8, 40))
def test_windows_give_each_row_once_with_labels_where_it_is_trained_on(made, shard_rows):
    """Read back through the loader: every row's tokens, and a label for exactly what is trained on."""
    made = [[[True, *document] for document in row] for row in made] or [[[True]]]
    length = 28
    with tempfile.TemporaryDirectory() as folder:
        loader = loader_over(Path(folder), made, length, shard_rows)
        batches = [batch for _, batch in loader.heldout(micro_batch=3)]
        verify(Path(folder))
    found = []
    for batch in batches:
        for tokens, labels, documents in zip(*batch[:3], strict=True):
            known = [documents == number for number in range(documents.max() + 1)]
            for place in known:
                is_label = labels[place] != NO_LABEL
                assert (labels[place][:-1] == tokens[place][1:])[is_label[:-1]].all()
                assert not is_label[-1]
                if (tokens[place] != BOS).any():
                    found.append((tokens[place].tolist(), is_label.tolist()))
                else:
                    assert not is_label.any()
    expected = []
    for number, row in enumerate(made):
        for trained in row:
            tokens = [BOS, *[number + 1] * len(trained)]
            expected.append((tokens, [*trained, False]))
    assert sorted(found) == sorted(expected)


def loader_over(data_dir: Path, made: list[list[list[bool]]], length: int, shard_rows: int) -> Loader:
    writer = PackedWriter(data_dir, "s/train", "<u4", 0, length, BOS)
    for number, row in enumerate(made):
        documents = [[BOS, *[number + 1] * len(trained)] for trained in row]
        writer.append(
            PackedRow(
                np.array([token for document in documents for token in document], np.uint32),
                np.array([each for trained in row for each in (False, *trained)]),
                [len(document) for document in documents],
                1,
            )
        )
        if number % shard_rows == shard_rows - 1:
            writer.cut()
    writer.cut()
    num_tokens = sum(len(trained) + 1 for row in made for trained in row)
    assert sum(shard.num_tokens - shard.num_padding for shard in writer.shards) == num_tokens
    Manifest(
        format=FORMAT,
        tokenizer="",
        vocab_size=70_001,
        bos_id=BOS,
        sources={"s": PreparedSource(train=writer.shards, heldout=writer.shards)},
        files=writer.files,
        made_from={},
        window_tokens=length,
        columns=[TRAINED],
    ).save(data_dir)
    tree = {
        "name": "t",
        "model": {"preset": "demo"},
        "objective": {"type": "sft"},
        "tokenizer": {"train": 1},
        "sources": {"s": {"jsonl": "s"}},
        "stage": [{"until": 1, "mixture": {"s": 1}}],
        "inner": {"context_length": length, "tokens_per_step": length},
        "outer": {"inner_steps": 1},
    }
    return Loader(data_dir, parse(tree, "test"))
