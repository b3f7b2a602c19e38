"""What `atoll prepare --check` and `--show` print."""

import pytest

pytest.importorskip("tokenizers")

from atoll import cli

WORDS = "the old sea dog sat by the fire and told of islands, storms and gold"
RECIPE = """
name = "test"
model.preset = "demo"
tokenizer.train = 300
heldout_fraction = 0.2
outer.inner_steps = 2
[sources]
tales = {{ jsonl = "{raw}", skip_bad_rows = true, keep = {{ kind = ["tale"] }} }}
[[stage]]
until = 10
mixture = {{ tales = 1 }}
[inner]
context_length = 64
tokens_per_step = 128
"""


@pytest.fixture
def prepared(tmp_path):
    from atoll import recipe
    from atoll.data.prepare import prepare

    words = WORDS.split()
    tales = [f"tale {n}: " + " ".join(words[(n * step) % 14] for step in range(20)) for n in range(60)]
    lines = [f'{{"kind": "tale", "text": "{tale}"}}' for tale in tales]
    lines.append('{"kind": "tale", "text": null}')
    lines += ['{"kind": "ad", "text": "buy"}', '{"kind": "ad", "text": "now"}']
    (tmp_path / "raw.jsonl").write_text("\n".join(lines))
    path = tmp_path / "test.toml"
    path.write_text(RECIPE.format(raw=tmp_path / "raw.jsonl"))
    prepare(recipe.load(path), tmp_path / "run/data")
    return [str(path), "--dir", str(tmp_path / "run")]


def test_check_prints_what_there_is_or_what_is_wrong(prepared, tmp_path, capsys):
    assert cli.main(["prepare", *prepared, "--check"]) == 0
    told = capsys.readouterr().out
    assert "every block and every token is as it was written; vocabulary of 300" in told
    assert "tales: 1 bad row skipped: 1 null instead of text" in told
    assert "2 rows left out by keep" in told
    (shard,) = (tmp_path / "run/data/shards/tales").glob("train*.tokens")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    assert cli.main(["prepare", *prepared, "--check"]) == 2
    assert "train-00000.tokens: block 0 is damaged" in capsys.readouterr().err


def test_show_prints_a_sample_with_the_boundaries_of_its_documents(prepared, capsys):
    assert cli.main(["prepare", *prepared, "--show", "3"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("sample 3: window ")
    assert told[0].endswith("of tales, pass 1, stage 1 of 1 (of one island alone)")
    borders = [line for line in told if line.startswith("────")]
    assert len(borders) >= 2
    assert sum(int(line.split()[-3]) for line in borders) == 64
    assert "continued" not in borders[1]
    text = told[told.index(borders[1]) + 1]
    number = int(borders[1].split()[2])
    assert text.startswith("<|begin_of_text|>tale ")
    tale = int(text.removeprefix("<|begin_of_text|>tale ").split(":")[0])
    assert number <= tale  # held-out tales are not counted
    assert cli.main(["prepare", *prepared, "--show", "-1"]) == 2
