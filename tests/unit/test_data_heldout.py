"""Sources of one document, or of few: their end is held out, and what was skipped is told."""

import json
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

from atoll import cli, recipe
from atoll.cli.opened import opened
from atoll.data import sections
from atoll.data.heldout import is_heldout
from atoll.data.manifest import Manifest
from atoll.data.partition import HELDOUT_FRACTION
from atoll.data.prepare import check, prepare
from atoll.data.tokenizer import Tokenizer
from atoll.data.tokens import TokenStream
from atoll.data.unigram import heldout_weights

WORDS = [
    "the",
    "old",
    "sea",
    "dog",
    "sat",
    "by",
    "fire",
    "and",
    "told",
    "of",
    "islands,",
    "storms",
    "gold",
    "!",
]


def story(number: int, length: int = 30) -> str:
    return f"{number}: " + " ".join(WORDS[(number * step + step // 7) % 14] for step in range(length))


def write_recipe(folder: Path, documents: list[str], **changes) -> Path:
    rows = "\n".join(json.dumps({"text": text}) for text in documents)
    (folder / "a.jsonl").write_text(rows)
    tree = {
        "name": '"test"',
        "model.preset": '"demo"',
        "tokenizer.train": "270",
        "heldout_fraction": "0.1",
        "sources.tales": f'{{ jsonl = "{folder}/a.jsonl", skip_bad_rows = true }}',
        "stage": "[{ until = 4, mixture = { tales = 1 } }]",
        "inner": "{ context_length = 16, tokens_per_step = 32 }",
        "outer.inner_steps": "2",
        **changes,
    }
    (folder / "r.toml").write_text("\n".join(f"{key} = {value}" for key, value in tree.items()))
    return folder / "r.toml"


def documents_in(data_dir: Path, split: str) -> list[str]:
    manifest, tokenizer = Manifest.load(data_dir), Tokenizer.load(data_dir / "tokenizer")
    stream = TokenStream(data_dir, manifest, "tales", split)
    tokens, begins = stream.read(0, stream.num_tokens)
    edges = [*begins.nonzero()[0].tolist(), len(tokens)]
    return [tokenizer.decode(tokens[low:high]) for low, high in pairwise(edges)]


@pytest.mark.parametrize(
    ("documents", "num_train", "num_heldout"),
    [([story(1, 400)], 1, 1), ([story(2, 400) + "\n" * 50], 1, 1), ([story(n) for n in (1, 3, 5)], 3, 1)],
)
def test_a_source_of_few_documents_is_held_out_by_its_end(tmp_path, documents, num_train, num_heldout):
    loaded = recipe.load(write_recipe(tmp_path, documents))
    source = prepare(loaded, tmp_path / "data").sources["tales"]
    assert source.is_end_heldout
    assert (source.num_documents("train"), source.num_documents("heldout")) == (num_train, num_heldout)
    train, heldout = (documents_in(tmp_path / "data", split) for split in ("train", "heldout"))
    assert "".join(train + heldout) == "".join(documents), "nothing is lost, and the order is kept"
    assert 0.05 < sum(map(len, heldout)) / sum(map(len, documents)) < 0.15 + 50 * documents[0].count("\n")
    assert heldout[0].startswith(" "), "cut before a word"
    assert heldout_weights(check(loaded, tmp_path / "data"), {"tales": 1}) == {"tales": 1.0}


def test_documents_that_were_all_to_be_held_out_are_held_out_by_their_end(tmp_path):
    path = write_recipe(tmp_path, [story(1, 400), story(3, 400)], heldout_fraction="0.9")
    source = prepare(recipe.load(path, ["tokenizer.train=262"]), tmp_path / "data").sources["tales"]
    assert source.is_end_heldout
    assert source.num_documents("heldout") == 2


def test_many_documents_are_held_out_by_their_hashes(tmp_path):
    path = write_recipe(tmp_path, [story(number) for number in range(60)])
    source = prepare(recipe.load(path), tmp_path / "data").sources["tales"]
    assert not source.is_end_heldout
    assert 1 < source.num_documents("heldout") < 20


def test_the_tokenizer_is_not_trained_on_an_end_that_is_held_out(tmp_path, monkeypatch):
    path = write_recipe(tmp_path, [story(1, 400), story(2, 20) + "§"])
    seen, train = [], Tokenizer.train

    def watched(texts, vocab_size):
        seen.extend(texts)
        return train(seen, vocab_size)

    monkeypatch.setattr(Tokenizer, "train", watched)
    prepare(recipe.load(path), tmp_path / "data")
    assert seen == documents_in(tmp_path / "data", "train")
    assert "§" not in "".join(seen)


def test_an_end_is_the_same_after_any_interruption(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "BATCH_CHARACTERS", 100)
    monkeypatch.setattr(sections, "SECTION_TOKENS", 100)
    stories = [story(n) for n in range(20) if not is_heldout(story(n).encode(), 0.04)][:7]
    loaded = recipe.load(write_recipe(tmp_path, stories, heldout_fraction="0.04"))
    whole = prepare(loaded, tmp_path / "whole")
    assert whole.sources["tales"].is_end_heldout
    assert len(whole.sources["tales"].train) > 2

    def stop(progress):
        if progress.phase == "tokens" and progress.num_documents > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(loaded, tmp_path / "data", stop)
    assert prepare(loaded, tmp_path / "data").digest() == whole.digest()


def test_nothing_of_a_partition_is_held_out(tmp_path):
    path = write_recipe(tmp_path, [story(1, 400)], heldout_fraction=str(HELDOUT_FRACTION))
    source = prepare(recipe.load(path), tmp_path / "data").sources["tales"]
    assert not source.is_end_heldout
    assert source.heldout == []


def test_prepare_tells_what_it_skipped_and_held_out_and_a_next_line_that_works(tmp_path, capsys):
    path = write_recipe(tmp_path, [story(1, 400)])
    rows = ['{"text": null}', "no JSON", '{"text": null}', '{"text": " "}', '{"text": "\\ud800"}']
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("\n" + "\n".join(rows))
    where, odd = tmp_path / "it's a run", tmp_path / "my recipe.toml"
    path.rename(odd)
    assert cli.main(["prepare", str(odd), "seed=3", "--dir", str(where)]) == 0
    told = capsys.readouterr().out
    assert "tales: 5 bad rows skipped: 2 not a JSON object, 2 null instead of text, 1 empty text" in told
    assert "tales: its end is held out, " in told
    next_line = shlex.split(told.rsplit("next: ", 1)[1])
    assert next_line == ["atoll", "host", str(where)]
    hosted = cli.parser().parse_args(next_line[1:])
    hosted_recipe, run_dir = opened(hosted)
    assert (hosted_recipe.seed, run_dir.path) == (3, where), (
        "the run's directory knows its recipe and overrides"
    )
    assert cli.main(["prepare", str(odd), "seed=3", "--check", "--dir", str(where)]) == 0
    assert "tales: 5 bad rows skipped: " in capsys.readouterr().out


def test_what_else_was_in_a_folder_is_told_and_does_not_change_the_digest(tmp_path):
    path = write_recipe(
        tmp_path, [story(n) for n in range(40)], **{"sources.tales": f'{{ jsonl = "{tmp_path}" }}'}
    )
    plain = prepare(recipe.load(path), tmp_path.parent / f"{tmp_path.name}-one")
    (tmp_path / "b.jsonl.7z").write_bytes(b"")
    more = prepare(recipe.load(path), tmp_path.parent / f"{tmp_path.name}-two")
    assert more.notes() == ["tales: 2 files left out, of another kind: b.jsonl.7z, r.toml"]
    assert more.digest() == plain.digest()
