"""What holds for windows of any documents, with any window length and shard size."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.loader import NO_LABEL, Loader
from atoll.data.manifest import FORMAT, Manifest, PreparedSource
from atoll.data.tokens import ShardWriter
from atoll.recipe import parse

BOS = 0
documents = st.lists(st.lists(st.integers(1, 70_000), max_size=40), min_size=1, max_size=30)


def loader_over(data_dir: Path, texts: list[list[int]], length: int, shard_tokens: int) -> Loader:
    with ShardWriter(data_dir, "s/train", "<u4") as writer:
        for text in texts:
            writer.append(np.array([BOS, *text]), 1)
            if writer.num_tokens >= shard_tokens:
                writer.cut()
    source = PreparedSource(train=writer.shards, heldout=writer.shards)
    Manifest(
        format=FORMAT,
        tokenizer="",
        vocab_size=70_001,
        bos_id=BOS,
        sources={"s": source},
        files=writer.files,
        made_from={},
    ).save(data_dir)
    tree = {
        "name": "t",
        "model": {"preset": "demo"},
        "tokenizer": {"train": 1},
        "sources": {"s": {"text": "s"}},
        "stage": [{"until": 1, "mixture": {"s": 1}}],
        "inner": {"context_length": length, "tokens_per_step": length},
        "outer": {"inner_steps": 1},
    }
    return Loader(data_dir, parse(tree, "test"))


@settings(max_examples=60)
@given(documents, st.integers(1, 50), st.integers(1, 100))
def test_every_token_is_an_input_once_and_labels_stay_within_documents(texts, length, shard_tokens):
    stream = [token for text in texts for token in (BOS, *text)]
    owner = [number for number, text in enumerate(texts) for _ in range(len(text) + 1)]
    length = min(length, len(stream))
    with tempfile.TemporaryDirectory() as folder:
        loader = loader_over(Path(folder), texts, length, shard_tokens)
        num_windows = -(-len(stream) // length)
        batches = [batch[:3] for _, batch in loader.heldout(micro_batch=4)]
        (passed,) = loader.batches(range(num_windows), [0], num_windows, micro_batch=num_windows)
        tokens, labels, ids = (np.concatenate(parts).ravel() for parts in zip(*batches, strict=True))
        assert sorted(map(tuple, passed[0].tokens)) == sorted(map(tuple, tokens.reshape(-1, length)))
    assert len(tokens) == num_windows * length
    assert tokens[: len(stream)].tolist() == stream
    following = [*zip(stream[1:], owner[1:], strict=True), (None, None)]
    pairs = zip(following, owner, strict=True)
    expected = [token if document == ours else NO_LABEL for (token, document), ours in pairs]
    assert labels[: len(stream)].tolist() == expected
    assert (labels[len(stream) :] == NO_LABEL).all()
    for window in range(num_windows):
        inside = owner[window * length : (window + 1) * length]
        numbers = ids[window * length : window * length + len(inside)]
        assert numbers.tolist() == [ours - inside[0] for ours in inside]
        padding = ids[window * length + len(inside) : (window + 1) * length]
        assert (padding == numbers[-1] + 1).all()
