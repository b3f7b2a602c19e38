"""Figures in docs/ are those in bench/results/, and a bench keeps its rows with where they come from."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import tables
from harness import report, results
from harness.machine import Machine
from harness.markdown import Columns, Grid, Lines, Measured
from harness.results import Origin, Results, Row
from measured import BENCH_DIR, TABLES

from atoll.errors import UserError

ROOT = Path(__file__).parents[2]
BENCHES = sorted(BENCH_DIR.glob("*.py"))
THERE = Machine(cores=2, processor="AMD EPYC", memory="24 GiB")


def row(values: dict[str, object], commit: str | None = "abc1234") -> Row:
    command = "python bench/example.py"
    return Row(values=values, origin=Origin(commit=commit, date="2026-11-27", machine=THERE, command=command))


def example(*rows: Row) -> Results:
    return Results(bench="example", keys=["shape", "packed"], rows=list(rows))


# ---------------------------------------------------------------------------------------------- the documents
def test_the_tables_in_docs_are_what_was_measured():
    assert not tables.stale(tables.pages()), "run python docs/tables.py"


def test_a_figure_that_is_changed_by_hand_is_found(tmp_path):
    page = (ROOT / "docs" / "island.md").read_text()
    assert "21,208" in page
    changed = tmp_path / "island.md"
    changed.write_text(page.replace("21,208", "31,208"))
    assert tables.stale([changed]) == {changed: page}


def test_every_table_is_on_a_page_and_no_page_asks_for_another():
    pages = "".join(path.read_text() for path in tables.pages())
    assert set(re.findall(r"<!-- table: (.*?) -->", pages)) == TABLES.keys()
    assert pages.count("<!-- table: ") == pages.count("<!-- end -->")


def test_every_result_is_of_a_bench_and_has_no_two_rows_of_the_same_thing():
    kept = sorted(results.RESULTS_DIR.glob("*.json"))
    assert {path.stem for path in kept} <= {path.stem for path in BENCHES}
    for path in kept:
        found = results.load(path.stem)
        assert found is not None
        assert found.bench == path.stem
        identities = [found.identity(each) for each in found.rows]
        assert not [one for one in identities if identities.count(one) > 1]


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_a_bench_says_what_it_measures_and_keeps_rows_under_its_own_name(path):
    tree = ast.parse(path.read_text())
    what, command, *rest = (ast.get_docstring(tree) or "").split("\n\n")
    assert what.endswith(".")
    assert command.strip().startswith(f"python bench/{path.name}")
    assert rest, "and what its figures mean"
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Report"]
    assert [ast.literal_eval(name) for name in named] == [path.stem]


# ------------------------------------------------------------------------------------------------ the results
def test_a_row_that_is_measured_again_takes_the_place_of_the_old_one_and_leaves_the_others():
    old = example(row({"shape": "1M", "packed": False, "ours": 1}), row({"shape": "1M", "packed": True}))
    again = row({"shape": "1M", "packed": False, "ours": 2}, commit="def5678")
    assert old.with_row(again).rows == [again, old.rows[1]]
    other = row({"shape": "10M", "ours": 3}, commit="def5678")
    assert old.with_row(other).rows == [*old.rows, other]


def test_rows_are_printed_and_kept_with_their_origin(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench/example.py", "--seed", "3", "--save-to", str(tmp_path)])
    monkeypatch.setattr(report, "commit", lambda: "abc1234-dirty")
    parser = report.arguments("An example.")
    parser.add_argument("--seed", type=int)
    reporting = report.Report(
        "example", parser.parse_args(), keys=("shape",), packages=("msgspec", "nothing")
    )
    reporting.add({"shape": "1M", "ours": (1, 2)})
    printed = msgspec.json.decode(capsys.readouterr().out)
    assert printed["bench"] == "example"
    assert (printed["shape"], printed["ours"], printed["commit"]) == ("1M", [1, 2], "abc1234-dirty")
    kept = results.load("example", tmp_path)
    assert kept is not None
    assert kept.rows[0].values == {"shape": "1M", "ours": [1, 2], "load": printed["load"]}
    assert kept.rows[0].origin.command == "python bench/example.py --seed 3"
    assert kept.rows[0].origin.packages == {"msgspec": msgspec.__version__}


def test_nothing_is_saved_of_a_commit_that_nobody_knows(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "commit", lambda: None)
    parser = report.arguments(None)
    with pytest.raises(SystemExit, match="--commit"):
        report.Report("example", parser.parse_args(["--save-to", str(tmp_path)]), keys=())
    saving = ["--save-to", str(tmp_path), "--commit", "abc1234"]
    report.Report("example", parser.parse_args(saving), keys=()).add({"ours": 1})
    kept = results.load("example", tmp_path)
    assert kept is not None
    assert kept.rows[0].origin.commit == "abc1234"


def test_a_commit_is_dirty_where_code_differs_from_it_and_not_for_figures(tmp_path, monkeypatch):
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    monkeypatch.setattr(report, "ROOT", tmp_path)
    assert report.commit() is None
    git("init")
    (tmp_path / "code.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    clean = report.commit()
    assert clean
    assert "dirty" not in clean
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "bench" / "results" / "example.json").write_text("{}")
    assert report.commit() == clean
    (tmp_path / "code.py").write_text("2")
    assert report.commit() == f"{clean}-dirty"


def test_a_file_that_is_no_result_is_named(tmp_path):
    (tmp_path / "example.json").write_text('{"bench": "example"}')
    with pytest.raises(UserError, match=r"example\.json"):
        results.load("example", tmp_path)
    assert results.load("another", tmp_path) is None


# ------------------------------------------------------------------------------------------------- the tables
def test_lines_have_a_line_a_row_and_a_dash_for_what_a_row_lacks():
    cells = {"shape": "{shape}", "packed": "{packed}", "tokens/s": "{ours:,}", "seconds": "{s:.1f}"}
    form = Lines(columns=cells)
    kept = example(
        row({"shape": "1|M", "packed": True, "ours": 1234}), row({"shape": "2M", "s": [1.0, 2.55]})
    )
    text = Measured(bench="example", form=form).render(kept)
    assert text.splitlines()[:4] == [
        "| shape | packed | tokens/s | seconds |",
        "|---|---|---|---|",
        r"| 1\|M | yes | 1,234 | – |",
        "| 2M | – | – | 1.0 to 2.5 |",
    ]
    assert text.endswith(
        "From `python bench/example.py`: commit abc1234, 2026-11-27, 2 cores (AMD EPYC), 24 GiB."
    )


def test_columns_and_grids_turn_rows_the_other_way():
    rows = [row({"shape": shape, "kind": kind, "n": n}) for shape, kind, n in [("a", "x", 1), ("b", "y", 2)]]
    assert (
        Columns(head="{shape}", lines={"n": "{n}"}).render(rows)
        == "|  | a | b |\n|---|---|---|\n| n | 1 | 2 |"
    )
    grid = Grid(corner="", down="{shape}", across="{kind}", cell="{n}")
    assert grid.render(rows) == "|  | x | y |\n|---|---|---|\n| a | 1 | – |\n| b | – | 2 |"


def test_rows_of_different_commits_are_told_apart_under_their_table():
    first = row({"shape": "1M", "packed": False})
    second = row({"shape": "1M", "packed": True}, commit=None)
    text = Measured(bench="example", form=Lines(columns={"shape": "{shape}"})).render(example(first, second))
    assert "commit abc1234, 2026-11-27, 2 cores (AMD EPYC), 24 GiB. Of: shape 1M, packed False." in text
    assert "commit not recorded" in text


def test_a_table_without_rows_says_how_to_get_them():
    only = Measured(bench="example", form=Lines(columns={}), only=lambda values: "other" in values)
    assert only.render(None) == only.render(example(row({"shape": "1M"})))
    assert "python bench/example.py --save" in only.render(None)
