"""Raw text read document by document, and the errors for text that cannot be read."""

import bz2
import gzip
import json
import lzma
import sys

import msgspec
import pytest

from atoll.data import hub
from atoll.data.rows import BadRow, Document, Unwanted
from atoll.data.shapes import Text
from atoll.data.sources import Place, SourceReader
from atoll.errors import UserError
from atoll.recipe import Range, Source

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
zstandard = pytest.importorskip("zstandard")
PACK = {".gz": gzip.compress, ".zst": zstandard.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def items(**source):
    return list(
        SourceReader(
            "s", Source(**{key: str(value) if key in KINDS else value for key, value in source.items()})
        )
    )


KINDS = ("text", "code", "jsonl", "parquet", "dataset")


def texts(**source):
    found = items(**source)
    assert all(isinstance(item, Document) for item in found)
    return [item.text for item in found]


def bad_rows(**source):
    return [(item.origin.row, item.reason) for item in items(**source) if isinstance(item, BadRow)]


def test_a_folder_of_text_is_read_in_order_of_path(tmp_path):
    (tmp_path / "b").mkdir()
    for name, content in {"c.txt": "three", "b/x.txt": "two", "a.txt": "one", "not.md": "no"}.items():
        (tmp_path / name).write_text(content)
    assert texts(text=tmp_path) == ["one", "two", "three"]


@pytest.mark.parametrize("separator", ["\f", "<|end|>"])
def test_a_separator_is_found_wherever_a_read_ends(tmp_path, separator, monkeypatch):
    monkeypatch.setattr("atoll.data.stream.READ_BYTES", 3)
    parts = ["one\r\n", "<|twö|", "  ", "", "three<|"]
    (tmp_path / "a.txt").write_bytes(separator.join(parts).encode())
    found = items(text=tmp_path / "a.txt", separator=separator)
    assert [(item.text, item.origin.row) for item in found] == [("one\r\n", 1), ("<|twö|", 2), ("three<|", 5)]


def test_the_books_ship_with_the_package():
    documents = texts(text="package:books", separator="\f")
    assert 200 < len(documents) < 300
    assert 1_500_000 < sum(map(len, documents)) < 2_000_000
    assert all(len(document.encode()) < 25_000 for document in documents)


def test_the_standard_library_is_code_without_tests():
    found = items(code="stdlib")
    assert all(isinstance(item, Document) and item.text.strip() for item in found)
    assert 2_000_000 < sum(len(item.text.encode()) for item in found) <= 8_000_000
    assert not any("/test/" in item.origin.file or "site-packages" in item.origin.file for item in found)


def test_code_is_read_by_suffix_and_empty_files_are_passed_over(tmp_path):
    (tmp_path / "a.rs").write_text("fn main() {}")
    (tmp_path / "b.rs").write_text("")
    (tmp_path / "c.py").write_text("pass")
    (tmp_path / "d.rs").write_bytes(b"// \xe9.")
    assert [item[0] for item in items(code=tmp_path, suffix=".rs")] == ["fn main() {}", "not UTF-8 at byte 3"]


@pytest.mark.parametrize("name", ["rows.jsonl", *(f"rows.jsonl{packed}" for packed in PACK)])
def test_json_lines_may_be_compressed(tmp_path, name):
    data = b"\n".join(json.dumps({"body": text, "n": 1}).encode() for text in ("one", "zwei ü")) + b"\n\n"
    pack = PACK.get((tmp_path / name).suffix, bytes)
    (tmp_path / name).write_bytes(pack(data[:20]) + pack(data[20:]))  # two members, as `cat` makes them
    assert texts(jsonl=tmp_path, column="body") == ["one", "zwei ü"]
    assert texts(dataset=tmp_path, column="body") == ["one", "zwei ü"]


@pytest.mark.parametrize("name", [f"rows.jsonl{packed}" for packed in PACK])
def test_a_truncated_or_damaged_archive_is_named(tmp_path, name):
    rows = b"".join(msgspec.json.encode({"text": f"row {number}"}) + b"\n" for number in range(1000))
    whole = PACK[(tmp_path / name).suffix](rows)
    (tmp_path / name).write_bytes(whole[:-20])
    with pytest.raises(UserError, match=f"{name}: truncated"):
        items(jsonl=tmp_path / name)
    (tmp_path / name).write_bytes(whole + b"garbage")
    with pytest.raises(UserError, match=f"{name}: (damaged|truncated)"):
        items(jsonl=tmp_path / name)


def test_bad_json_rows_are_named_by_number(tmp_path):
    rows = [
        b'{"text": "good"}',
        b'{"text": null}',
        b'{"text": 7}',
        b'{"text": "\xff"}',
        b'{"other": 1}',
        b'{"text": " "}',
        b'["text"]',
        b'{"text": "cut',
        b'{"text": "\\ud800"}',
        b'{"text": ' + b"[" * 100_000,
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(rows))
    found = bad_rows(jsonl=tmp_path / "a.jsonl")
    assert [row for row, _ in found] == list(range(2, 11))
    assert [reason for _, reason in found[:5]] == [
        "null instead of text",
        "int instead of text",
        "not UTF-8",
        "no column 'text'; there is: other",
        "empty text",
    ]
    assert all(reason.startswith("not a JSON object") for _, reason in found[5:])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_parquet_rows_are_documents_or_bad_rows(tmp_path, kind):
    values = pa.array(["one", None, "", "zwei ü"], kind)
    pq.write_table(pa.table({"text": values, "n": [1, 2, 3, 4]}), tmp_path / "a.parquet")
    assert [item.text for item in items(parquet=tmp_path) if isinstance(item, Document)] == ["one", "zwei ü"]
    assert bad_rows(parquet=tmp_path) == [(2, "null instead of text"), (3, "empty text")]


def test_parquet_text_that_is_not_utf_8_is_a_bad_row(tmp_path):
    raw = pa.array([b"fine", b"caf\xe9"])
    pq.write_table(
        pa.table({"text": pa.Array.from_buffers(pa.string(), 2, raw.buffers())}), tmp_path / "a.parquet"
    )
    assert bad_rows(parquet=tmp_path) == [(2, "not UTF-8 at byte 3; is the file truncated?")]


def test_parquet_that_cannot_be_used_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [1, 2]}), path)
    with pytest.raises(UserError, match=r"a.parquet: no column 'text'; there is: n"):
        items(parquet=path)
    with pytest.raises(UserError, match="column 'n' is int64, not text"):
        items(parquet=path, column="n")
    pq.write_table(pa.table({"text": ["x" * 1000] * 100}), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"a.parquet: damaged or truncated"):
        items(parquet=path)


@pytest.mark.parametrize(
    ("content", "source", "message"),
    [
        (None, {"text": "{}/none"}, "no such file or folder"),
        (None, {"text": "{}"}, "no .txt file in this folder"),
        (None, {"text": "package:films"}, "nothing named 'films' ships with atoll; there is: books"),
        (b"", {"text": "{}/a.txt"}, "a.txt: there is no text in it"),
        (b" \f\n", {"text": "{}/a.txt", "separator": "\f"}, "a.txt: there is no text in it"),
    ],
)
def test_sources_without_text_are_refused(tmp_path, content, source, message):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        items(**{key: value.replace("{}", str(tmp_path)) for key, value in source.items()})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"caf\xe9 noir", "not UTF-8 at byte 3"),
        ("café".encode()[:-1], "not UTF-8 at byte 3; is the file truncated?"),
    ],
)
def test_text_that_is_not_utf_8_is_a_bad_row(tmp_path, content, reason):
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "b.txt").write_text("fine")
    assert bad_rows(text=tmp_path) == [(1, reason)]


@pytest.fixture
def hub_folder(tmp_path):
    rows = {
        "main/train": "one",
        "main/test": "two",
        "socratic/train-00001": "four",
        "socratic/train-00000": "three",
    }
    for name, text in rows.items():
        (tmp_path / "openai/gsm8k" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"openai/gsm8k/{name}.jsonl").write_text(json.dumps({"text": text}))
    pq.write_table(pa.table({"text": ["five"]}), tmp_path / "openai/gsm8k/socratic/test.parquet")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({}, ["one", "three", "four"]),
        ({"config": "main"}, ["one"]),
        ({"config": "socratic", "split": "test", "revision": "1234567"}, ["five"]),
        ({"data_files": "*/test.*"}, ["two", "five"]),
    ],
)
def test_a_folder_named_like_a_hub_dataset_is_read_in_its_place(hub_folder, monkeypatch, source, expected):
    monkeypatch.chdir(hub_folder)
    assert texts(dataset="openai/gsm8k", **source) == expected


def test_a_folder_that_names_no_split_is_all_training(tmp_path):
    (tmp_path / "books-00.jsonl").write_text('{"text": "one"}')
    assert texts(dataset=tmp_path) == ["one"]
    with pytest.raises(UserError, match=r"no .jsonl or .* file for config None, split 'test'"):
        items(dataset=tmp_path, split="test")


@pytest.mark.parametrize("pattern", ["/etc/*.parquet", "**.parquet"])
def test_data_files_that_are_no_pattern_are_refused(tmp_path, pattern):
    with pytest.raises(UserError, match="data_files"):
        items(dataset=tmp_path, data_files=pattern)


class FakeHub:
    """Stands for `datasets`, which reads rows as they come."""

    def __init__(self):
        self.rows = [{"content": f"text {number}", "stars": number} for number in range(5)]

    def load_dataset(self, *place, **options):
        self.asked = place, options
        if place[0] == "nobody/knows":
            raise FileNotFoundError("no such dataset on the hub")
        return self

    def skip(self, count):
        self.skipped = count
        return self

    def __iter__(self):
        yield from self.rows[getattr(self, "skipped", 0) :]


@pytest.fixture
def fake_hub(monkeypatch):
    hub = FakeHub()
    monkeypatch.setitem(sys.modules, "datasets", hub)
    return hub


def test_a_dataset_of_the_hub_is_streamed_at_its_revision_and_from_any_row(fake_hub):
    source = Source(
        dataset="some/code",
        revision="abc123",
        config="python",
        column="content",
        keep={"stars": Range(min=2)},
    )
    reading = SourceReader("s", source)
    assert [item.text for item in reading if isinstance(item, Document)] == ["text 2", "text 3", "text 4"]
    assert fake_hub.asked == (
        ("some/code", "python"),
        {"split": "train", "revision": "abc123", "data_files": None, "streaming": True},
    )
    assert reading.fraction is None
    (last,) = SourceReader("s", source, Place(0, 4))
    assert (last.text, str(last.origin), fake_hub.skipped) == ("text 4", "some/code@abc123, row 5", 4)


def test_rows_of_the_hub_are_kept_in_the_precision_that_it_tells(fake_hub):
    schema = pa.schema([("content", pa.string()), ("stars", pa.float32())])
    rows = [{"content": str(stars), "stars": float(pa.scalar(stars, pa.float32()))} for stars in (0.5, 0.9)]

    class Features(dict):
        arrow_schema = schema

    fake_hub.features = Features(content=1, stars=2)
    fake_hub.rows = rows
    source = Source(dataset="some/code", revision="abc", column="content", keep={"stars": Range(min=0.9)})
    found = list(SourceReader("s", source))
    assert [item.text for item in found if isinstance(item, Document)] == ["0.9"]
    fake_hub.features.arrow_schema = pa.schema([("content", pa.string()), ("stars", pa.date32())])
    with pytest.raises(UserError, match="some/code@abc: column 'stars' is date32"):
        list(SourceReader("s", source))


@pytest.mark.usefixtures("fake_hub")
def test_errors_of_the_hub_name_the_dataset():
    with pytest.raises(
        UserError, match="there is no folder some/code; to read it from the hub, give a revision"
    ):
        items(dataset="some/code")
    with pytest.raises(UserError, match=r"sources.s: nobody/knows@main: FileNotFoundError: no such dataset"):
        items(dataset="nobody/knows", revision="main")


def test_the_datasets_library_streams_a_local_folder(tmp_path):
    """The same call that asks the hub."""
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(5)))
    found = list(hub.stream("s", Source(dataset=str(tmp_path), revision="main"), Text("text"), skip=2))
    assert [(item.text, item.origin.row) for item in found] == [("row 2", 3), ("row 3", 4), ("row 4", 5)]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ({"language": ["rust", "c"]}, ["one", "three"]),
        ({"stars": {"min": 2}}, ["two", "three"]),
        ({"stars": {"min": 2, "max": 2}, "language": ["c", "python"]}, ["two"]),
        ({"text": ["three"]}, ["three"]),
    ],
)
def test_rows_are_kept_by_their_columns(tmp_path, keep, expected):
    rows = [("one", "rust", 1), ("two", "python", 2), ("three", "c", 3), ("", None, None)]
    table = [dict(zip(("text", "language", "stars"), row, strict=True)) for row in rows]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in table))
    kept = msgspec.convert(keep, dict[str, list[str | int] | Range])
    for found in (items(parquet=tmp_path, keep=kept), items(jsonl=tmp_path, keep=kept)):
        assert [item.text for item in found if isinstance(item, Document)] == expected
        assert sum(isinstance(item, Unwanted) for item in found) == 4 - len(expected)


def test_keep_needs_its_column_and_must_keep_something(tmp_path):
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no column 'stars'; there is: text"):
        items(parquet=tmp_path, keep={"stars": Range(min=1)})
    with pytest.raises(UserError, match=r"a.parquet: keep leaves out all 1 rows"):
        items(parquet=tmp_path, keep={"text": ["two"]})


@pytest.mark.parametrize("place", [Place(0, 0), Place(0, 1), Place(1, 0), Place(1, 2), Place(2, 0)])
def test_reading_can_be_continued_at_any_place(tmp_path, place):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("\f".join(f"{name}{number}" for number in range(3)))
    source = Source(text=str(tmp_path), separator="\f")
    places = {}
    reader = SourceReader("s", source)
    for item in reader:
        places[item.text] = reader.place
    rest = [item.text for item in SourceReader("s", source, place)]
    assert rest == [text for text, after in places.items() if after > place]
