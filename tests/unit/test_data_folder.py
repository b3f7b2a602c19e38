"""Folders as they are found on disks: links, other files, odd names, and the layouts of the hub."""

import json
import os
from pathlib import Path

import pytest

from atoll.data.rows import Document
from atoll.data.sources import SourceReader
from atoll.errors import UserError
from atoll.recipe import Source


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"text": Path(name).as_posix()}))


def reader(**source):
    return SourceReader("s", Source(**{key: str(value) for key, value in source.items()}))


def texts(**source):
    return [item.text for item in reader(**source) if isinstance(item, Document)]


def test_links_to_folders_are_followed_and_every_folder_is_read_once(tmp_path):
    write(tmp_path, "data/b/c.jsonl", "data/d.jsonl", "elsewhere/e.jsonl", "elsewhere/f/g.jsonl")
    (tmp_path / "data/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/b/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/again").symlink_to("b")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "data")
    (tmp_path / "data/self").symlink_to("self")
    found = reader(jsonl=tmp_path / "data")
    assert [Path(file).relative_to(tmp_path / "data").as_posix() for file, _ in found.files] == [
        "a/e.jsonl",
        "a/f/g.jsonl",
        "b/c.jsonl",
        "d.jsonl",
    ]
    assert found.left_out == ["1 file left out, a link that leads nowhere: self"]


def test_a_link_to_data_that_is_not_there_is_refused(tmp_path):
    write(tmp_path, "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"sources.s: .*b.jsonl: a link that leads nowhere"):
        reader(jsonl=tmp_path)


@pytest.mark.parametrize("kind", ["jsonl", "text", "code", "dataset"])
def test_a_folder_that_may_not_be_read_is_refused(tmp_path, monkeypatch, kind):
    write(tmp_path, "a.jsonl", "a.txt", "a.py", "closed/b.jsonl")
    scan = os.scandir

    def guarded(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(UserError, match=r"closed: cannot be read: Permission denied"):
        reader(**{kind: tmp_path})


def test_suffixes_are_told_apart_from_their_case_and_other_files_are_named(tmp_path):
    write(tmp_path, "a.jsonl", "B.JSONL", "c.ndjson", "notes.md", "d.jsonl.7z", "info.json")
    os.mkfifo(tmp_path / "e.jsonl")
    found = reader(jsonl=tmp_path)
    assert [Path(file).name for file, _ in found.files] == ["B.JSONL", "a.jsonl", "c.ndjson"]
    assert found.left_out == ["4 files left out, of another kind: d.jsonl.7z, e.jsonl, info.json, …"]
    write(tmp_path / "text", "a.TXT")
    assert texts(text=tmp_path / "text") == ['{"text": "a.TXT"}']
    with pytest.raises(UserError, match=r"no .parquet file in this folder; 8 files left out"):
        reader(parquet=tmp_path)
    with pytest.raises(UserError, match=r"e.jsonl: neither a file nor a folder"):
        reader(jsonl=tmp_path / "e.jsonl")


def test_hidden_files_and_folders_are_no_data_unless_they_are_named(tmp_path):
    write(tmp_path, "a.jsonl", "._a.jsonl")
    write(tmp_path / ".ipynb_checkpoints", "a-checkpoint.jsonl")
    found = reader(jsonl=tmp_path)
    assert [Path(file).name for file, _ in found.files] == ["a.jsonl"]
    assert found.left_out == [
        "2 files left out, hidden by a dot before the name: ._a.jsonl, .ipynb_checkpoints"
    ]
    assert [Path(file).name for file, _ in reader(jsonl=tmp_path / "._a.jsonl").files] == ["._a.jsonl"]


def test_names_that_are_not_utf_8_are_read_and_can_be_shown(tmp_path):
    name = os.fsdecode(b"caf\xe9.jsonl")
    (tmp_path / name).write_text('{"text": "one"}\n{"text": null}')
    one, bad = reader(jsonl=tmp_path)
    assert one.text == "one"
    assert str(bad.origin) == f"{tmp_path}/caf\\xe9.jsonl, row 2"
    json.dumps(reader(jsonl=tmp_path).files).encode("utf-8")


LAYOUTS = {
    "a folder comes before a file's name": (
        ["train/unit_test_examples.jsonl", "test/held_train_station.jsonl"],
        {"train": ["train/unit_test_examples.jsonl"], "test": ["test/held_train_station.jsonl"]},
    ),
    "shards of the hub": (
        [
            "data/train_sft-00000-of-00002.jsonl",
            "data/train_sft-00001-of-00002.jsonl",
            "data/train_gen-00000-of-00001-0a1b.jsonl",
            "data/test_sft-00000-of-00001.jsonl",
        ],
        {
            "train_sft": ["data/train_sft-00000-of-00002.jsonl", "data/train_sft-00001-of-00002.jsonl"],
            "test": ["data/test_sft-00000-of-00001.jsonl"],
            "train": "could be train_gen or train_sft",
            "sft": "no .jsonl or .parquet file",
        },
    ),
    "splits without a keyword": (
        ["data/sft-00000-of-00001.jsonl", "data/gen-00000-of-00001.jsonl"],
        {"sft": ["data/sft-00000-of-00001.jsonl"], "train": "no .jsonl or .parquet file"},
    ),
    "the keyword alone is the split": (
        ["train.jsonl", "train_extra.jsonl"],
        {"train": ["train.jsonl"], "train_extra": ["train_extra.jsonl"]},
    ),
    "other words for the splits": (
        ["training.jsonl", "dev.jsonl", "eval.jsonl"],
        {"train": ["training.jsonl"], "validation": ["dev.jsonl"], "test": ["eval.jsonl"]},
    ),
    "names of data before the keyword": (
        ["c4-train.00000-of-00002.jsonl", "books_train.jsonl", "c4-validation.00000-of-00001.jsonl"],
        {"train": ["books_train.jsonl", "c4-train.00000-of-00002.jsonl"]},
    ),
    "letters are no words": (["constraint/latest.jsonl"], {"train": ["constraint/latest.jsonl"]}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_belong_to_the_splits_that_the_hub_would_give_them(tmp_path, layout):
    names, splits = LAYOUTS[layout]
    write(tmp_path, *names)
    for split, expected in splits.items():
        if isinstance(expected, str):
            with pytest.raises(UserError, match=expected):
                reader(dataset=tmp_path, split=split)
        else:
            assert texts(dataset=tmp_path, split=split) == expected


def test_files_of_other_splits_are_told(tmp_path):
    write(tmp_path, "train.jsonl", "test.jsonl", "more.jsonl")
    assert reader(dataset=tmp_path).left_out == [
        "2 files left out, not of split train: more.jsonl, test.jsonl"
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**", ["a.jsonl", "b/c.jsonl", "b/d/e.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "b/c.jsonl", "b/d/e.jsonl"]),
        ("b/**", ["b/c.jsonl", "b/d/e.jsonl"]),
        ("b", ["b/c.jsonl", "b/d/e.jsonl"]),
        ("*/*.jsonl", ["b/c.jsonl"]),
        ("b/[a-c].jsonl", ["b/c.jsonl"]),
        ("{}/b/**/e.*", ["b/d/e.jsonl"]),
        ("../data/a.jsonl", ["a.jsonl"]),
    ],
)
def test_data_files_may_be_patterns_of_any_depth_and_absolute(tmp_path, pattern, expected):
    write(tmp_path, "a.jsonl", "b/c.jsonl", "b/d/e.jsonl", "b/notes.md")
    pattern = pattern.replace("{}", str(tmp_path)).replace("../data", f"../{tmp_path.name}")
    assert texts(dataset=tmp_path, data_files=pattern) == expected


@pytest.mark.parametrize("pattern", ["*.csv", "{}/none/**", "none", "[", "*.md", "notes.md"])
def test_data_files_that_name_no_rows_are_refused(tmp_path, pattern):
    write(tmp_path / "data", "a.jsonl", "b/notes.md")
    with pytest.raises(UserError, match=r"no .jsonl or .parquet file for data_files = ") as refusal:
        reader(dataset=tmp_path / "data/b", data_files=pattern.replace("{}", str(tmp_path)))
    assert ("notes.md" in str(refusal.value)) == pattern.endswith("md")


@pytest.mark.parametrize("key", ["jsonl", "text", "code", "parquet", "dataset"])
def test_a_home_that_nobody_has_is_refused(key):
    with pytest.raises(UserError, match=r"sources.s: ~nobody-of-that-name/x: .*no such home"):
        reader(**{key: "~nobody-of-that-name/x"})


def test_data_files_begin_in_a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "corpus/a.jsonl")
    assert texts(dataset=tmp_path, data_files="~/corpus/*.jsonl") == ["corpus/a.jsonl"]


def test_a_configuration_that_is_no_folder_is_refused_with_those_that_are(tmp_path):
    write(tmp_path, "de/train.jsonl", "en/train.jsonl")
    with pytest.raises(UserError, match="no folder 'fr'; there is: de and en"):
        reader(dataset=tmp_path, config="fr")


@pytest.mark.parametrize("kind", ["text", "code", "jsonl", "parquet"])
def test_a_path_that_the_system_refuses_is_a_source_that_cannot_be_read(kind):
    with pytest.raises(UserError, match=r"sources.s: x+: cannot be read: File name too long"):
        reader(**{kind: "x" * 5000})
