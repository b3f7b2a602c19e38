"""Columns of parquet files: what can only mean one thing is read, and the rest is refused by name."""

import datetime
from decimal import Decimal

import pytest

from atoll.data.rows import BadRow, Document, Unwanted
from atoll.data.sources import SourceReader
from atoll.errors import UserError
from atoll.recipe import Range, Source

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

WORDS = ["one", None, "two", "one"]


def read(path, **more):
    return list(SourceReader("s", Source(parquet=str(path), **more)))


def texts(path, **more):
    return [item.text for item in read(path, **more) if isinstance(item, Document)]


def of_bytes(values, kind):
    return pa.array([value and value.encode() for value in values], kind)


COLUMNS = {
    "text": pa.array(WORDS, pa.string()),
    "large text": pa.array(WORDS, pa.large_string()),
    "a view of text": pa.array(WORDS, pa.string_view()),
    "pandas' categories": pa.array(WORDS).dictionary_encode(),
    "a dictionary of large text": pa.array(WORDS, pa.large_string()).dictionary_encode(),
    "text that is not marked as text": of_bytes(WORDS, pa.binary()),
    "the same, large": of_bytes(WORDS, pa.large_binary()),
    "the same, a view": of_bytes(WORDS, pa.binary_view()),
    "JSON": pa.ExtensionArray.from_storage(pa.json_(), pa.array(WORDS)),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_whatever_holds_text_is_read(tmp_path, name):
    pq.write_table(pa.table({"text": COLUMNS[name]}), tmp_path / "a.parquet")
    found = read(tmp_path)
    assert [item.text if isinstance(item, Document) else item.reason for item in found] == [
        "one",
        "null instead of text",
        "two",
        "one",
    ]
    kept = read(tmp_path, keep={"text": ["one"]})
    assert [type(item) for item in kept] == [Document, Unwanted, Unwanted, Document]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1]), "int64"),
        (pa.array([["a"]]), "list<element: string>"),
        (pa.array([{"a": "b"}]), "struct<a: string>"),
        (pa.array([b"abcd"], pa.binary(4)), r"fixed_size_binary\[4\]"),
        (pa.array([datetime.date(2026, 1, 1)]), "date32"),
        (pa.array([1]).dictionary_encode(), "int64"),
    ],
)
def test_a_column_that_is_no_text_is_refused_with_its_type(tmp_path, column, kind):
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=rf"sources.s: .*a.parquet: column 'text' is {kind}.*, not text"):
        read(tmp_path)


def test_a_shard_that_is_all_null_is_so_many_bad_rows(tmp_path):
    pq.write_table(pa.table({"text": ["one"], "n": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"text": pa.nulls(2), "n": pa.nulls(2)}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"text": ["two"], "n": [2]}), tmp_path / "2.parquet")
    found = read(tmp_path)
    assert [item.text for item in found if isinstance(item, Document)] == ["one", "two"]
    assert [item.reason for item in found if isinstance(item, BadRow)] == ["null instead of text"] * 2
    assert [type(item) for item in read(tmp_path, keep={"n": Range(min=1)})] == [
        Document,
        Unwanted,
        Unwanted,
        Document,
    ]


@pytest.mark.parametrize(("column", "keep"), [("text", {}), ("n", {"n": [1]})])
def test_a_name_that_two_columns_have_is_refused_where_it_is_asked_for(tmp_path, column, keep):
    columns = {"text": pa.array(["one"]), "n": pa.array([1])}
    names = [*columns, column]
    pq.write_table(pa.Table.from_arrays([columns[name] for name in names], names), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=rf"a.parquet: 2 columns are named '{column}'"):
        read(tmp_path, keep=keep)
    if column == "n":
        assert texts(tmp_path) == ["one"]


SCORES = [0.1, 0.5, 0.9, None]
NUMBERS = {
    "half": pa.array(SCORES, pa.float16()),
    "single": pa.array(SCORES, pa.float32()),
    "double": pa.array(SCORES, pa.float64()),
    "decimal": pa.array([value and Decimal(str(value)) for value in SCORES], pa.decimal128(5, 3)),
    "a dictionary": pa.array(SCORES, pa.float32()).dictionary_encode(),
}


def test_whole_numbers_are_compared_to_the_last_digit(tmp_path):
    large = [2**53 + number for number in range(4)]
    table = pa.table({"text": ["0", "1", "2", "3"], "id": pa.array(large, pa.int64())})
    pq.write_table(table, tmp_path / "a.parquet")
    assert texts(tmp_path, keep={"id": Range(min=2**53 + 1, max=2**53 + 1)}) == ["1"]
    assert texts(tmp_path, keep={"id": [2**53 + 3]}) == ["3"]


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Range(min=0.9), ["2"]),
        (Range(max=0.1), ["0"]),
        (Range(min=0.1, max=0.9), ["0", "1", "2"]),
        (Range(max=1e300), ["0", "1", "2"]),
        ([0.1, 0.9], ["0", "2"]),
    ],
)
def test_numbers_are_compared_in_the_precision_of_their_column(tmp_path, kind, wanted, expected):
    table = pa.table({"text": ["0", "1", "2", "3"], "score": NUMBERS[kind]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert texts(tmp_path, keep={"score": wanted}) == expected


@pytest.mark.parametrize(
    ("column", "wanted", "expected"),
    [
        (pa.array([2**63, 1], pa.uint64()), Range(min=2.0**63), ["0"]),
        (pa.array([True, False]), [True], ["0"]),
        (pa.array([1, 0]), [1, "x"], ["0"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["b"], ["1"]),
        (pa.array(["a", "b"], pa.string_view()), ["b"], ["1"]),
        (pa.array([b"a", b"b"]), ["b"], ["1"]),
    ],
)
def test_rows_are_kept_by_columns_of_any_comparable_type(tmp_path, column, wanted, expected):
    pq.write_table(pa.table({"text": ["0", "1"], "c": column}), tmp_path / "a.parquet")
    assert texts(tmp_path, keep={"c": wanted}) == expected


@pytest.mark.parametrize(
    ("column", "wanted", "message"),
    [
        (pa.array([datetime.datetime(2026, 1, 1)]), Range(min=1), "and keep gives a range of numbers"),
        (pa.array([datetime.datetime(2026, 1, 1)]), ["2026"], "keep compares numbers, texts, true and false"),
        (pa.array([True]), Range(min=1), "bool, and keep gives a range of numbers"),
        (pa.array(["a"]), Range(min=1), "string, and keep gives a range of numbers"),
        (pa.array(["a"]), [1, 2.0], "string, and keep gives no value of that kind"),
        (pa.array([1]), ["1", True], "int64, and keep gives no value of that kind"),
        (pa.array([[1]]), [1], "keep compares numbers, texts, true and false only"),
    ],
)
def test_a_column_that_can_have_none_of_the_wanted_values_is_refused(tmp_path, column, wanted, message):
    pq.write_table(pa.table({"text": ["one"], "c": column}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=f"a.parquet: column 'c' is .*{message}"):
        read(tmp_path, keep={"c": wanted})


def test_a_pointer_of_git_lfs_is_not_called_damage(tmp_path):
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(UserError, match=r"a.parquet: a Git LFS pointer"):
        read(tmp_path)
