"""Results as they are kept, found again, and shown beside published figures."""

import msgspec
import pytest
from unit.scores import result

from atoll.errors import UserError
from atoll.evaluate import published, results
from atoll.evaluate.curve import curves
from atoll.evaluate.figure import draw, refuse_other
from atoll.evaluate.suites import INTELLECT_1, questions, suite
from atoll.evaluate.table import table


def kept(directory, given: results.Result) -> None:
    results.write(results.path_of(directory, given.checkpoint.digest, given.settings), given)


# ------------------------------------------------------------------------------------------------------- kept
def test_what_is_kept_is_found_again_oldest_first(tmp_path):
    later, earlier = result(time=2.0), result(time=1.0, digest="e" * 64)
    for each in (later, earlier):
        kept(tmp_path, each)
    assert results.load(tmp_path) == [earlier, later]


def test_another_setting_is_another_file(tmp_path):
    for each in (result(), result(limit=5), result(batch_size=2), result(chat_template=True)):
        kept(tmp_path, each)
    assert len(results.load(tmp_path)) == 4


def test_a_file_that_is_no_result_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"x{results.SUFFIX}").write_text("{}")
    with pytest.raises(UserError, match="not a result"):
        results.load(tmp_path)


def test_a_result_of_another_version_is_refused(tmp_path):
    path = tmp_path / "a" / f"x{results.SUFFIX}"
    results.write(path, msgspec.structs.replace(result(), version=0))
    with pytest.raises(UserError, match="another version"):
        results.read(path)


def test_a_checkpoint_is_found_by_its_digest_or_by_the_root_of_its_state():
    old, new = result(time=1.0, root="ab"), result(time=2.0, root="ab", digest="e" * 64)
    other = result(time=3.0, digest="f" * 64, root="cd")
    found = [old, new, other]
    assert results.of_checkpoint(found, digest="d" * 64) == [old]
    assert results.of_checkpoint(found, root="ab") == [new]


# ------------------------------------------------------------------------------------------------------ suite
def test_the_suite_has_the_settings_of_the_original():
    shots = {question.label: question.num_fewshot for question in INTELLECT_1}
    assert {name: shots[name] for name in ("MMLU", "GSM8K", "ARC-C", "HellaSwag")} == {
        "MMLU": 5,
        "GSM8K": 5,
        "ARC-C": 25,
        "HellaSwag": 10,
    }


def test_a_suite_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="there is intellect-1"):
        suite("other")


def test_tasks_that_are_named_are_asked_as_they_are_by_themselves():
    asked = questions("hellaswag, piqa,hellaswag", None)
    assert [(question.task, question.num_fewshot) for question in asked] == [
        ("hellaswag", None),
        ("piqa", None),
    ]
    assert questions("hellaswag", 3)[0].num_fewshot == 3
    with pytest.raises(UserError, match="no task is named"):
        questions(" , ", None)


# ------------------------------------------------------------------------------------------------------ table
def test_every_published_figure_has_a_source_and_is_of_a_task_of_the_suite():
    known = published.load()
    tasks = {question.task for question in INTELLECT_1}
    assert len(known.rows) > 8
    for row in known.rows:
        assert row.source in known.sources
        assert row.scores.keys() <= tasks
        assert all(0 < score < 100 for score in row.scores.values())
    assert all(source.url.startswith("https://") for source in known.sources.values())


def test_a_figure_stands_with_its_error_beside_chance_and_published_ones():
    made = table([result(0.5213, 0.0146)])
    assert made.header == ["model", "ARC-C (25-shot)"]
    assert made.rows[:2] == [["model", "52.13 ± 1.46"], ["chance", "25.00"]]
    assert ["INTELLECT-1 10B [1]", "52.13"] in made.rows
    assert not [row for row in made.rows if "Instruct" in row[0]]
    assert "https://arxiv.org/abs/2412.01152" in made.notes[0]


def test_a_model_that_chats_stands_beside_models_that_chat():
    made = table([result(chat_template=True)])
    assert [row[0] for row in made.rows if "[" in row[0]] == [
        "MPT-7B-Chat [1]",
        "Falcon-7B-Instruct [1]",
        "AmberChat 7B [2]",
    ]


@pytest.mark.parametrize(
    ("given", "mark", "note"),
    [
        (result(0.26, 0.01), "*", "guessing"),
        (result(0.40, 0.01, num_cut=3), "†", "longer than the model reads"),
        (result(0.40, 0.01, limit=5), "‡", "only a part"),
    ],
)
def test_a_figure_to_beware_of_is_marked_and_the_mark_is_explained(given, mark, note):
    made = table([given])
    assert made.rows[0][1].endswith(mark)
    assert [text for text in made.notes if text.startswith(mark) and note in text]


def test_a_figure_above_chance_has_no_mark():
    assert table([result(0.28, 0.01)]).rows[0][1] == "28.00 ± 1.00"


def test_a_figure_that_is_no_share_stands_as_it_is():
    given = result(
        task="wikitext", metrics={"word_perplexity,none": results.Measured(value=31.5, standard_error=None)}
    )
    assert table([given]).rows == [["model", "31.50"]]


def test_a_table_is_markdown_that_no_name_breaks():
    lines = table([result(name="a|b")]).markdown().splitlines()
    assert lines[0] == "| model | ARC-C (25-shot) |"
    assert lines[2].startswith("| a/b |")


# ------------------------------------------------------------------------------------------------------ curve
def states(*values: float) -> list[results.Result]:
    return [
        result(value, digest=str(step) * 64, step=step, tokens=1000 * step, run_id="reef-1")
        for step, value in enumerate(values, start=1)
    ]


def test_states_of_one_run_are_a_curve_over_tokens():
    given = states(0.25, 0.5)
    (curve,) = curves([*reversed(given), result(0.9)], "reef-1")
    assert [(point.tokens, point.value, point.error) for point in curve.points] == [
        (1000, 25.0, 1.0),
        (2000, 50.0, 1.0),
    ]
    assert (curve.title, curve.chance) == ("ARC-C", 25.0)


def test_one_state_is_no_curve_and_another_run_is_not_in_it():
    assert not curves(states(0.25), "reef-1")
    assert not curves(states(0.25, 0.5), "reef-2")


def test_a_curve_is_drawn_as_a_png(tmp_path):
    path = tmp_path / "curve.png"
    draw(path, curves(states(0.25, 0.5, 0.4), "reef-1"))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_only_a_png_can_be_drawn(tmp_path):
    with pytest.raises(UserError, match=r"ends in \.png"):
        refuse_other(tmp_path / "curve.pdf")
