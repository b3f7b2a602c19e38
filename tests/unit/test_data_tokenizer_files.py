"""Tokenizers as they are found: what lies beside them, and special tokens that a text spells."""

import json

import pytest

pytest.importorskip("tokenizers")
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, processors

from atoll import cli
from atoll.data import encode, sections
from atoll.data.encode import Encoders, How
from atoll.data.manifest import Manifest
from atoll.data.prepare import check
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.recipe import load

LETTERS = "abcdefghijklmnopqrstuvwxyz<>/|._ ▁"


def unigram() -> Engine:
    """As converted from SentencePiece: its special tokens are pieces of the model too."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((letter, -3.0) for letter in LETTERS)]
    return with_bos(Engine(models.Unigram(pieces, unk_id=0)), "<s>", ["<unk>", "<s>", "</s>"])


def word_level() -> Engine:
    """Its words are cut at spaces only, so that a special token is a word."""
    words = ["[UNK]", "<s>", "</s>", "once", "upon", "a", "time", "text"]
    engine = Engine(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return with_bos(engine, "<s>", ["[UNK]", "<s>", "</s>"])


def with_bos(engine: Engine, bos: str, special: list[str]) -> Engine:
    engine.add_special_tokens(special)
    engine.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, engine.token_to_id(bos))]
    )
    return engine


@pytest.fixture
def folder(tmp_path):
    word_level().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def beside(folder, **config) -> Tokenizer:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer.load(folder)


def test_a_special_token_may_be_an_object(folder, tmp_path):
    of_object = {"__type": "AddedToken", "content": "</s>", "lstrip": False}
    tokenizer = beside(folder, eos_token=of_object, pad_token=of_object)
    assert tokenizer.eos_ids == [2]
    tokenizer.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").eos_ids == [2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"eos_token": "<|none|>"}, "eos_token .* is '<|none|>', which is not one of its tokens"),
        ({"eos_token": {"text": "</s>"}}, "eos_token .* is neither a string nor an object"),
        ({"eos_token": 2}, "eos_token .* is neither a string nor an object"),
        ({"chat_template": 7}, "chat_template .* is neither text nor named texts"),
        ({"chat_template": [{"name": "default", "template": "none"}]}, "puts 0 <s> into a chat"),
    ],
)
def test_a_configuration_that_export_could_not_use_is_refused_when_it_is_read(folder, config, message):
    with pytest.raises(UserError, match=message):
        beside(folder, **config)


def test_of_several_templates_the_default_is_checked(folder):
    templates = [{"name": "tool", "template": ""}, {"name": "default", "template": "{{ bos_token }}"}]
    assert beside(folder, chat_template=templates).bos_id == 1


@pytest.mark.parametrize(
    "template",
    [
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}"
        "{{ m['content'] }}{% endgeneration %}{% endif %}{% endfor %}",
        "{{ bos_token }}{{ messages | tojson(indent=2, ensure_ascii=False) }}",
        "{{ bos_token }}{% for m in messages %}{% break %}{% endfor %}",
    ],
)
def test_templates_may_say_what_transformers_knows(folder, template):
    (folder / "chat_template.jinja").write_text(template)
    assert Tokenizer.load(folder).bos_id == 1


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 // 0 }}",
        "{{ messages[9]['x']['y'] }}",
        "{{ range(10**9) | list }}",
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
    ],
)
def test_whatever_a_template_runs_into_is_one_sentence(folder, template):
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match="cannot render a question and an answer"):
        Tokenizer.load(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_each_file_may_have_a_byte_order_mark_and_may_be_no_pointer(folder, name):
    content = {"tokenizer_config.json": b"{}", "chat_template.jinja": b"{{ bos_token }}"}
    data = content.get(name) or (folder / name).read_bytes()
    (folder / name).write_bytes(b"\xef\xbb\xbf" + data)
    assert Tokenizer.load(folder).bos_id == 1
    for bad, message in {
        b"version https://git-lfs.github.com/spec/v1\n": "a Git LFS pointer",
        b"\xff\xfe{\0}\0": "UTF-16, as its byte-order mark says",
        b"caf\xe9": "not UTF-8 at byte 3",
    }.items():
        (folder / name).write_bytes(bad)
        with pytest.raises(UserError, match=f"{name}: {message}"):
            Tokenizer.load(folder)


def test_a_pointer_in_the_place_of_llama_3s_file_is_named(tmp_path):
    (tmp_path / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"tokenizer.model: a Git LFS pointer"):
        Tokenizer.load(tmp_path / "tokenizer.model")


@pytest.mark.parametrize("content", ["[]", "7", "{", '{"a": ' + "[" * 100_000])
def test_a_configuration_that_is_no_object_is_refused(folder, content):
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(UserError, match=r"tokenizer_config.json: not a JSON object"):
        Tokenizer.load(folder)


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ({"<s>": 0, "a": 1, "b": 1}, "tokenizer.json: 'a' and 'b' have the same id, 1"),
        ({}, "has no token"),
    ],
)
def test_a_vocabulary_that_names_nothing_or_one_id_twice_is_refused(tmp_path, vocabulary, message):
    tree = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": vocabulary}}
    tree["model"]["unk_token"] = "a"
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=message):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("num_processes", [0, 1])
def test_a_text_that_cannot_be_encoded_is_one_sentence_from_any_process(tmp_path, monkeypatch, num_processes):
    engine = with_bos(Engine(models.WordLevel({"<s>": 0, "text": 1}, unk_token="[UNK]")), "<s>", ["<s>"])
    engine.save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setattr(encode, "FEW_BATCHES", 0 if num_processes else 16)
    with (
        Encoders(tmp_path, How(0.1), 1) as encoders,
        pytest.raises(UserError, match="cannot encode a text: "),
    ):
        list(encoders.map([sections.Batch(texts=["text"]), sections.Batch(texts=["whale"])]))


@pytest.mark.parametrize("engine", [unigram(), word_level()])
def test_a_text_that_turns_into_a_special_token_is_found(tmp_path, engine):
    engine.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    texts = ["once upon a time", "once <s> upon", "a </s>", "", "text ☃ unknown"]
    found = [tokenizer.special_within(tokens) for tokens in tokenizer.encode_documents(texts)]
    assert found == ["", "<s>", "</s>", "", ""]


RECIPE = """
name = "test"
model.preset = "demo"
tokenizer.file = "{folder}"
heldout_fraction = 0.3
sources.s = {{ jsonl = "{folder}/a.jsonl"{more} }}
stage = [{{ until = 4, mixture = {{ s = 1 }} }}]
inner = {{ context_length = 16, tokens_per_step = 32 }}
outer.inner_steps = 2
"""


def test_a_row_that_spells_a_special_token_is_refused_by_name_or_skipped_and_counted(tmp_path, capsys):
    unigram().save(str(tmp_path / "tokenizer.json"))
    rows = [f"once upon a time {letter}" for letter in LETTERS[:26]]
    rows[7] = "struck <s>out</s>"
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": row}) for row in rows))
    path = tmp_path / "r.toml"
    path.write_text(RECIPE.format(folder=tmp_path, more=""))
    assert cli.main(["prepare", str(path), "--dir", str(tmp_path / "strict")]) == 2
    told = capsys.readouterr().err
    assert "a.jsonl, row 8: the tokenizer takes what it spells for its special token <s>; correct it" in told
    path.write_text(RECIPE.format(folder=tmp_path, more=", skip_bad_rows = true"))
    assert cli.main(["prepare", str(path), "--dir", str(tmp_path / "run")]) == 0
    assert "s: 1 bad row skipped: 1 spelling <s>" in capsys.readouterr().out
    manifest = check(load(path), tmp_path / "run/data")  # as the next start does
    source = Manifest.load(tmp_path / "run/data").sources["s"]
    assert source.num_documents("train") + source.num_documents("heldout") == 25
    assert manifest.sources["s"].num_skipped == 1
