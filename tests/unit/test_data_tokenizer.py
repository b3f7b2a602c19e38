"""Tokenizers: training, loading, and one BOS wherever a document begins."""

import base64
import json
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("tokenizers")
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, processors

from atoll.data import tokenizer as tokenizers
from atoll.data.chat import SPECIAL_TOKENS
from atoll.data.tokenizer import LLAMA_3_SPLIT, Tokenizer
from atoll.errors import UserError

NOUNS = ("cat", "whale", "island")
TEXTS = [f"The {noun} can't see {number} of the {noun}s.\n\n" for noun in NOUNS for number in range(99)]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 320)


def test_every_document_has_one_bos_at_its_head_and_decodes_to_its_text(tokenizer):
    texts = ["The whale.", "", "naïve 🏝 \x00 \r\n  spaces   ", "<|begin_of_text|>spelled<|eot_id|>", "12345"]
    for text, tokens in zip(texts, tokenizer.encode_documents(texts), strict=True):
        assert tokens.dtype == np.uint32
        assert tokens[0] == tokenizer.bos_id
        assert (tokens >= len(SPECIAL_TOKENS)).sum() == len(tokens) - 1
        assert tokenizer.decode(tokens) == text


def test_a_trained_vocabulary_has_the_size_asked_for_and_is_the_same_each_time(tokenizer):
    assert tokenizer.vocab_size == 320
    assert Tokenizer.train(iter(TEXTS), 320).digest() == tokenizer.digest()


def test_numbers_are_cut_into_threes_as_in_llama_3(tokenizer):
    one, two = tokenizer.encode_documents(["111222", "111"])
    assert tokenizer.decode(one[: len(two)]) == "111"


@pytest.mark.parametrize(("size", "message"), [(261, "at least 262"), (5000, "the text yields only")])
def test_an_impossible_size_of_vocabulary_is_refused(size, message):
    with pytest.raises(UserError, match=message):
        Tokenizer.train(TEXTS, size)


def test_a_saved_tokenizer_can_be_loaded(tokenizer, tmp_path):
    names = [path.name for path in tokenizer.save(tmp_path)]
    assert names == ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(place)
        assert loaded.digest() == tokenizer.digest()
        assert (loaded.vocab_size, loaded.bos_id) == (320, tokenizer.bos_id)
    again = tmp_path / "again"
    loaded.save(again)
    assert all((again / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_transformers_agrees_in_pre_training_and_chat(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("The island.")["input_ids"] == tokenizer.encode_documents(["The island."])[0].tolist()
    assert (theirs.bos_token_id, len(theirs)) == (tokenizer.bos_id, tokenizer.vocab_size)
    assert theirs.eos_token == "<|end_of_text|>"
    chat = [{"role": "user", "content": " Where? "}, {"role": "assistant", "content": "Here."}]
    tokens = theirs.apply_chat_template(chat, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert tokens[0] == tokenizer.bos_id
    assert tokens.count(tokenizer.bos_id) == 1
    assert tokenizer.decode(tokens, skip_special_tokens=False) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhere?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHere.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def engine_with(template: str | None) -> Engine:
    words = {word: number for number, word in enumerate(["<s>", "</s>", "text", "[UNK]"])}
    engine = Engine(models.WordLevel(words, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.add_special_tokens(["<s>", "</s>"])
    if template is not None:
        engine.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    return engine


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "puts no beginning-of-text tokens"),
        ("$A </s>", "puts no beginning-of-text tokens"),
        ("<s> <s> $A", "puts 2 beginning-of-text tokens"),
        ("<s> $A </s>", "adds 1 tokens after a text"),
    ],
)
def test_a_tokenizer_without_exactly_one_bos_is_refused(tmp_path, template, message):
    engine_with(template).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=message):
        Tokenizer.load(tmp_path)


def test_a_foreign_tokenizer_keeps_what_lies_beside_it(tmp_path):
    engine = engine_with("<s> $A")
    engine.enable_truncation(1)
    engine.enable_padding(length=9)
    engine.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}))
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}hello")
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    assert tokenizer.encode_documents(["text text </s>"])[0][:3].tolist() == [0, 2, 2]
    tokenizer.save(tmp_path / "copy")
    config = json.loads((tmp_path / "copy/tokenizer_config.json").read_text())
    assert (config["model_max_length"], config["bos_token"], config["eos_token"]) == (77, "<s>", "</s>")
    assert (tmp_path / "copy/chat_template.jinja").read_text() == "{{ bos_token }}hello"


def test_a_tokenizer_without_tokens_for_a_chat_gets_no_template(tmp_path):
    engine_with("<s> $A").save(str(tmp_path / "tokenizer.json"))
    saved = Tokenizer.load(tmp_path).save(tmp_path / "copy")
    assert "chat_template.jinja" not in [path.name for path in saved]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "not a tokenizer.json"),
        (b"\xff", "tokenizer.json: not UTF-8 at byte 0"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        Tokenizer.load(path)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for message in messages %}{{ message['content'] }}{% endfor %}", "puts 0 <s> into a chat"),
        (
            "{{ bos_token }}{% for message in messages %}{{ bos_token + message['content'] }}{% endfor %}",
            "puts 3 <s> into",
        ),
        ("chat: {{ bos_token }}", "does not put <s> at the head"),
        ("{{ raise_exception('no system prompt') }}", "cannot render .*: no system prompt"),
        ("{% for %}", "cannot render"),
    ],
)
@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_chat_template_without_exactly_one_bos_is_refused(tmp_path, template, message, place):
    engine_with("<s> $A").save(str(tmp_path / "tokenizer.json"))
    (tmp_path / place).write_text(
        template if place.endswith("jinja") else json.dumps({"chat_template": template})
    )
    with pytest.raises(UserError, match=message):
        Tokenizer.load(tmp_path)


def write_llama_3_file(path, tokens: list[bytes]) -> None:
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)))


@pytest.fixture(scope="module")
def llama_3_tokens(tokenizer):
    """A vocabulary trained here, in the order of Meta's file: single bytes, then the merged tokens."""
    merged_ids = range(len(SPECIAL_TOKENS) + 256, tokenizer.vocab_size)
    words = [tokenizer.decode([token]).encode() for token in merged_ids]
    return [bytes([byte]) for byte in range(256)] + [word for word in words if b"\xef" not in word]


def merged(word: bytes, ranks: dict[bytes, int]) -> list[int]:
    """A word's tokens by tiktoken's rule: join the neighbours whose union has the lowest rank, and repeat.

    A word that is a token itself stays whole.
    """
    if word in ranks:
        return [ranks[word]]
    parts = [bytes([byte]) for byte in word]
    while True:
        pairs = [
            (ranks[left + right], at)
            for at, (left, right) in enumerate(pairwise(parts))
            if left + right in ranks
        ]
        if not pairs:
            return [ranks[part] for part in parts]
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def test_llama_3s_own_file_is_converted(tmp_path, llama_3_tokens, tokenizer):
    write_llama_3_file(tmp_path / "tokenizer.model", llama_3_tokens)
    converted = Tokenizer.load(tmp_path / "tokenizer.model")
    size = len(llama_3_tokens)
    assert (converted.vocab_size, converted.bos_id) == (size + 256, size)
    assert converted.eos_ids == [size + 1, size + 9]
    ranks = {token: rank for rank, token in enumerate(llama_3_tokens)}
    text = "The whale can't sea 12345 islands;\n\nnaïve 🏝 cat \x00 end  <|eot_id|>"
    words = pytest.importorskip("regex").findall(LLAMA_3_SPLIT, text)
    expected = [token for word in words for token in merged(word.encode(), ranks)]
    (tokens,) = converted.encode_documents([text])
    assert tokens.tolist() == [size, *expected]
    assert len(tokens) < len(text.encode()) - 5
    assert converted.decode(tokens) == text
    converted.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").digest() == converted.digest()
    engine = Engine.from_file(str(tmp_path / "saved/tokenizer.json"))
    assert engine.id_to_token(size + 255) == "<|reserved_special_token_247|>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"\x0a\x0e\x0a\x05<unk>\x15", "line 1: not a token and its rank"),
        (b"IQ== 0\nIg== 2\n", "truncated or damaged"),
        (b"", "truncated or damaged"),
    ],
)
def test_other_model_files_are_refused(tmp_path, content, message):
    path = tmp_path / "tokenizer.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        Tokenizer.load(path)


@pytest.mark.parametrize("between", [" ", "\n", "\n\n  ", "--", ""])
def test_a_long_document_encoded_in_parts_has_the_tokens_of_the_whole(tokenizer, monkeypatch, between):
    text = between.join(line.strip() for line in TEXTS)
    (whole,) = tokenizer.encode_documents([text])
    monkeypatch.setattr(tokenizers, "PART_CHARACTERS", 500)
    assert len(list(tokenizers._parts(text))) > 10
    cut, short = tokenizer.encode_documents([text, "short"])
    assert cut.tolist() == whole.tolist()
    assert short[0] == tokenizer.bos_id


def test_a_long_document_without_a_seam_is_cut_anywhere_and_decodes_to_its_text(tokenizer, monkeypatch):
    text = "c" * 5000
    monkeypatch.setattr(tokenizers, "PART_CHARACTERS", 500)
    (tokens,) = tokenizer.encode_documents([text])
    assert tokenizer.decode(tokens) == text
    assert (tokens == tokenizer.bos_id).sum() == 1
