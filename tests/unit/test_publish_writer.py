"""`atoll generate`: one prompt streamed, many from a file, or a conversation; a mistake is one sentence."""

import io
import json
import shutil
from pathlib import Path

import msgspec
import pytest

from atoll import cli
from atoll.data.tokenizer import Tokenizer
from atoll.model import hf
from atoll.model.generate import Sampling
from atoll.model.llama import Llama
from atoll.model.presets import PRESETS
from atoll.publish.writer import Writer, end_tokens

GREEDY = Sampling(max_tokens=20, temperature=0)
PROMPTS = ["the captain", "a", "one two three four"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the captain looked at the sea, and the sea at him"] * 3, 268)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tmp_path_factory) -> Path:
    """A checkpoint of arbitrary weights, which reads 64 tokens."""
    config = msgspec.structs.replace(
        PRESETS["demo"],
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
    )
    made = Llama(config)
    made.init_weights(seed=0)
    for parameter in made.parameters():
        parameter.data *= 3
    directory = tmp_path_factory.mktemp("model")
    hf.save(
        directory,
        config,
        made.state_dict(),
        bos_token_id=tokenizer.bos_id,
        eos_token_id=list(tokenizer.eos_ids),
    )
    tokenizer.save(directory)
    return directory


def said(capsys, *arguments: object) -> str:
    assert cli.main(["generate", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def mistake(capsys, *arguments: object) -> str:
    assert cli.main(["generate", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_text_is_streamed_whole_and_in_whole_characters(model: Path) -> None:
    parts: list[str] = []
    (text,) = Writer(model).continued(["the captain"], GREEDY, parts.append)
    assert len(parts) > 1
    assert "".join(parts) == text


def test_equal_seeds_say_equal_texts(model: Path, capsys) -> None:
    texts = [said(capsys, model, "the sea", "--tokens", 12, "--seed", seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("the sea")


def test_prompts_of_a_file_are_answered_in_order_whatever_the_batch(model: Path, tmp_path, capsys) -> None:
    plain, lines = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    plain.write_text("\n".join(PROMPTS) + "\n\n")
    lines.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    options = "--temperature", 0, "--tokens", 9
    found = [
        [json.loads(line) for line in said(capsys, model, "--prompts", path, *options, *batch).splitlines()]
        for path, batch in ((plain, ()), (lines, ("--batch", 1)), (plain, ("--batch", 2)))
    ]
    assert found[0] == found[1] == found[2]
    assert [each["prompt"] for each in found[0]] == PROMPTS
    assert [each["text"] for each in found[0]] == Writer(model).continued(
        PROMPTS, msgspec.structs.replace(GREEDY, max_tokens=9)
    )


def test_a_conversation_is_held_by_the_template_and_remembered(model: Path, capsys, monkeypatch) -> None:
    asked: list[list[int]] = []
    written = Writer._written

    def remembered(self: Writer, prompts: list[list[int]], *given: object) -> list[str]:
        asked.append(prompts[0])
        return written(self, prompts, *given)

    monkeypatch.setattr(Writer, "_written", remembered)
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\n\nho\n"))
    said(capsys, model, "--chat", "--tokens", 2, "--temperature", 0)
    tokenizer = Tokenizer.load(model)
    first, second = (tokenizer.decode(ids, skip_special_tokens=False) for ids in asked)
    begin, turn = "<|begin_of_text|>", "<|start_header_id|>"
    assert first == f"{begin}{turn}user<|end_header_id|>\n\nhi<|eot_id|>{turn}assistant<|end_header_id|>\n\n"
    assert second.startswith(first)
    assert second.count(begin) == 1
    assert second.count("ho<|eot_id|>") == 1


def test_it_stops_at_each_of_the_models_own_end_tokens(model: Path, tokenizer: Tokenizer, tmp_path) -> None:
    assert end_tokens(model) == frozenset(tokenizer.eos_ids)
    assert len(tokenizer.eos_ids) == 2
    (text,) = Writer(model).continued(["a"], GREEDY)
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    letters = [letter for letter in dict.fromkeys(text) if letter.isascii()]
    assert len(letters) > 1
    for letter in letters[:2]:
        end = int(tokenizer.encode_documents([letter])[0][1])
        given = {"eos_token_id": [tokenizer.bos_id, end]}
        (copy / "generation_config.json").write_text(json.dumps(given))
        assert Writer(copy).continued(["a"], GREEDY)[0] == text[: text.index(letter)]


def test_what_a_terminal_would_obey_is_shown_as_text(model: Path, capsys) -> None:
    assert "\x1b" not in said(capsys, model, "\x1b[31mred", "--tokens", 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["one two " * 60], "tokens, and this model reads at most 64; shorten it"),
        ([], "give one of the three"),
        (["a", "--chat"], "give one of the three"),
        (["a", "--temperature", "-1"], "--temperature -1: must be from 0"),
        (["a", "--top-p", "2"], "--top-p 2: must be from 0 to 1"),
        (["a", "--tokens", "0"], "--tokens 0: must be from 1"),
        (["--prompts", "none.txt"], "none.txt"),
        (["a", "--seed", "9" * 400], "--seed: must be from 0 to 9,223,372,036,854,775,807"),
        (["a", "--seed", "-1"], "--seed: must be from 0"),
    ],
)
def test_a_mistake_is_one_sentence(model: Path, options: list[str], words: str, capsys) -> None:
    assert words in mistake(capsys, model, *options)


def test_a_directory_without_model_or_tokenizer_is_named(model: Path, tmp_path: Path, capsys) -> None:
    assert "no exported model here" in mistake(capsys, tmp_path, "a")
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    assert "no tokenizer.json here" in mistake(capsys, tmp_path, "a")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", "\n \n", "no prompt in it"),
        ("list.jsonl", "[1]\n", "prompt 1 is no JSON object"),
        ("other.jsonl", '{"prompt": "a"}\n{"text": "b"}\n', "prompt 2 is no JSON object"),
        ("number.jsonl", '{"prompt": 3}\n', "prompt 1 is no JSON object"),
    ],
)
def test_a_file_without_prompts_is_refused(
    model: Path, tmp_path: Path, name: str, content: str, words: str, capsys
) -> None:
    (tmp_path / name).write_text(content)
    assert words in mistake(capsys, model, "--prompts", tmp_path / name)
