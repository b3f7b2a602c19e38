"""Bad input is named, `atoll prepare` ends with status 2, and nothing half-written is left."""

import gzip
import json
import lzma
from itertools import pairwise

import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet as pq

from atoll import cli, recipe
from atoll.data import sections, tokenizer
from atoll.data.manifest import Manifest
from atoll.data.prepare import prepare
from atoll.data.tokens import TokenStream

ROWS = [
    {"text": f"once upon a time there were {number} whales in the sea, and {number * 7} islands"}
    for number in range(40)
]
TEXTS = [row["text"] for row in ROWS]
LINES = [json.dumps(row).encode() for row in ROWS]
RECIPE = """
name = "bad"
model.preset = "demo"
tokenizer.train = 280
heldout_fraction = 0.1
outer.inner_steps = 2
[sources]
s = {{ {kind} = "{path}"{more} }}
[[stage]]
until = 10
mixture = {{ s = {weight} }}
[inner]
context_length = {length}
tokens_per_step = {length}
"""


def parquet_of(rows, name="text", cut=None):
    def write(path):
        pq.write_table(pa.table({name: rows}), path)
        path.write_bytes(path.read_bytes()[:cut])

    return write


def run(tmp_path, name, content, weight="1", length=16, more=""):
    path = tmp_path / name
    content(path) if callable(content) else path.write_bytes(content)
    more += ', separator = "\\f"' if name.endswith("txt") else ""
    kind = "parquet" if name.endswith("parquet") else "text" if name.endswith("txt") else "jsonl"
    toml = tmp_path / "bad.toml"
    toml.write_text(RECIPE.format(kind=kind, path=path, weight=weight, length=length, more=more))
    return toml


def inserted(row: bytes) -> bytes:
    return b"\n".join([*LINES[:6], row, *LINES[6:]])


BAD = {
    "missing column": (
        "a.jsonl",
        inserted(b'{"other": "x"}'),
        "a.jsonl, row 7: no column 'text'; there is: other",
    ),
    "missing parquet column": (
        "a.parquet",
        parquet_of(["x"], "body"),
        "a.parquet: no column 'text'; there is: body",
    ),
    "null": ("a.jsonl", inserted(b'{"text": null}'), "a.jsonl, row 7: null instead of text"),
    "null in parquet": ("a.parquet", parquet_of([*TEXTS, None]), "a.parquet, row 41: null instead of text"),
    "a number": ("a.jsonl", inserted(b'{"text": 3.5}'), "a.jsonl, row 7: float instead of text"),
    "numbers in parquet": ("a.parquet", parquet_of([1, 2]), "a.parquet: column 'text' is int64, not text"),
    "not UTF-8": ("a.jsonl", inserted(b'{"text": "\xff"}'), "a.jsonl, row 7: not UTF-8"),
    "not UTF-8 in text": ("a.txt", b"\f".join(LINES) + b"\f\xe9", "a.txt, row 41: not UTF-8 at byte 0"),
    "an empty document": ("a.jsonl", inserted(b'{"text": "  "}'), "a.jsonl, row 7: empty text"),
    "a truncated parquet": ("a.parquet", parquet_of(["x"] * 99, cut=-20), "a.parquet: damaged or truncated"),
    "one array of rows": ("a.jsonl", b"[" + b", ".join(LINES) + b"]", "write its rows one a line: jq -c"),
    "a damaged bzip2": ("a.jsonl.bz2", b"BZh9" + bytes(99), "a.jsonl.bz2: damaged"),
    "a damaged xz": ("a.jsonl.xz", lzma.compress(b"x" * 99)[:-40] + bytes(40), "a.jsonl.xz: damaged"),
    "a truncated xz": ("a.jsonl.xz", lzma.compress(b"\n".join(LINES))[:-9], "a.jsonl.xz: truncated"),
    "a truncated gzip": ("a.jsonl.gz", gzip.compress(b"\n".join(LINES))[:-9], "a.jsonl.gz: truncated"),
    "nothing": ("a.jsonl", b"", "a.jsonl: there is no text in it"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_text_is_named_by_file_and_row(tmp_path, capsys, bad):
    name, content, message = BAD[bad]
    refused(tmp_path, run(tmp_path, name, content), message, capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": "-1"}, "must be a finite number >= 0, not -1"),
        ({"weight": "0"}, "at stage.0.mixture: at least one source must weigh more than 0"),
        ({"length": 1 << 20}, "tokens to train on, less than one window of 1048576"),
    ],
)
def test_impossible_recipes_are_refused(tmp_path, capsys, change, message):
    refused(tmp_path, run(tmp_path, "a.jsonl", b"\n".join(LINES), **change), message, capsys)


def refused(tmp_path, toml, message, capsys):
    assert cli.main(["prepare", str(toml), "--dir", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    left = [path.name for path in (tmp_path / "run").rglob("*")]
    assert "manifest.json" not in left
    assert not [name for name in left if name.endswith(".tmp")]


def test_bad_rows_can_be_skipped_and_are_counted(tmp_path):
    content = inserted(b'{"text": null}\n{"text": "\xff"}\n{"other": 1}')
    toml = run(tmp_path, "a.jsonl", content, more=", skip_bad_rows = true")
    prepared = prepare(recipe.load(toml), tmp_path / "data").sources["s"]
    assert prepared.num_skipped == 3
    assert prepared.num_documents("train") + prepared.num_documents("heldout") == 40


def test_a_document_longer_than_every_limit_is_kept_whole(tmp_path, monkeypatch):
    """Longer than a window, a batch, a section, and what the tokenizer takes at a time."""
    monkeypatch.setattr(tokenizer, "PART_CHARACTERS", 200)
    monkeypatch.setattr(sections, "BATCH_CHARACTERS", 100)
    monkeypatch.setattr(sections, "SECTION_TOKENS", 100)
    text = " ".join(TEXTS * 5)
    content = b"\n".join([*LINES[:20], json.dumps({"text": text}).encode(), *LINES[20:]])
    toml = run(tmp_path, "a.jsonl", content, more="")
    prepare(recipe.load(toml), tmp_path / "data")
    stream = TokenStream(tmp_path / "data", Manifest.load(tmp_path / "data"), "s", "train")
    tokens, begins = stream.read(0, stream.num_tokens)
    edges = [*begins.nonzero()[0].tolist(), len(tokens)]
    start, stop = max(pairwise(edges), key=lambda edge: edge[1] - edge[0])
    assert tokenizer.Tokenizer.load(tmp_path / "data/tokenizer").decode(tokens[start:stop]) == text
