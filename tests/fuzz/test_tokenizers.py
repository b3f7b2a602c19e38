"""Tokenizer files, changed anywhere: refused in a sentence, or one BOS heads every document."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.test_data_tokenizer_files import unigram, word_level

from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError

TEXTS = ["once upon a time", "a <s> b </s>", "", " \n ", "größe 日本 \x00", "<unk>[UNK]<|begin_of_text|>"]
ODD = [None, True, 0, -1, 3, 1 << 40, 0.5, "", "<s>", "BPE", [], {}, [None], {"type": "Sequence"}, "é"]
TRAINED = Tokenizer.train([f"once upon a time there were {number} whales" for number in range(99)], 280)
KINDS = {
    "trained": json.loads(TRAINED._json()),
    "unigram": json.loads(unigram().to_str()),
    "words": json.loads(word_level().to_str()),
}
CONFIGS = st.dictionaries(
    st.sampled_from(["eos_token", "bos_token", "chat_template", "pad_token", "added_tokens_decoder", "x"]),
    st.sampled_from([*ODD, {"content": "</s>"}, {"content": 7}, "</s>", "{{ bos_token }}", "{% for %}"]),
)
TEMPLATES = st.none() | st.lists(
    st.sampled_from(
        ["{{ bos_token }}", "{% generation %}", "{% endgeneration %}", "{{ messages }}", "{%", "text"]
    ),
    max_size=4,
).map("".join)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every part of a JSON tree."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, part in parts for place in places(part, (*path, key)))][: 1 << 12]


PLACES = {name: places(tree)[1:] for name, tree in KINDS.items()}


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a tree with another value at a path; an Ellipsis removes it."""
    key, rest = path[0], path[1:]
    if isinstance(tree, list):
        new = [] if value is ... and not rest else [changed(tree[key], rest, value) if rest else value]
        return tree[:key] + new + tree[key + 1 :]
    if value is ... and not rest:
        return {name: part for name, part in tree.items() if name != key}
    return tree | {key: changed(tree[key], rest, value) if rest else value}


@given(data=st.data(), kind=st.sampled_from(sorted(KINDS)), config=CONFIGS, template=TEMPLATES)
def test_a_changed_tokenizer_is_refused_or_gives_every_document_one_bos(data, kind, config, template):
    tree = KINDS[kind]
    for _ in range(data.draw(st.integers(0, 2))):
        path = data.draw(st.sampled_from(PLACES[kind]))
        try:
            tree = changed(tree, path, data.draw(st.sampled_from([..., *ODD])))
        except (KeyError, IndexError, TypeError, AttributeError):
            continue
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_text(json.dumps(tree))
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
        if template is not None:
            (Path(folder) / "chat_template.jinja").write_text(template)
        try:
            tokenizer = Tokenizer.load(Path(folder))
        except UserError as error:
            assert "tokenizer" in str(error)
            return
        for tokens in tokenizer.encode_documents(TEXTS):
            assert tokens[0] == tokenizer.bos_id
            assert tokenizer.special_within(tokens) or tokenizer.bos_id not in tokens[1:]
            assert tokens.max() < tokenizer.vocab_size
        assert all(0 <= number < tokenizer.vocab_size for number in tokenizer.eos_ids)
        tokenizer.save(Path(folder) / "saved")
        again = Tokenizer.load(Path(folder) / "saved")
        assert again.digest() == tokenizer.digest()
        assert again.eos_ids == tokenizer.eos_ids


@given(content=st.binary(max_size=60), name=st.sampled_from(["tokenizer.json", "tokenizer.model"]))
def test_bytes_that_are_no_tokenizer_are_refused(content, name):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            Tokenizer.load(Path(folder) / name)
