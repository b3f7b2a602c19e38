"""What the columns of a row become: chats and pairs in every form in which people keep them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atoll import recipe as recipes
from atoll.data import hub
from atoll.data.rows import BadRow, Document
from atoll.data.shapes import Chats, Row
from atoll.data.sources import SourceReader
from atoll.errors import UserError
from atoll.recipe import Columns, Source

ASK, ANSWER = {"role": "user", "content": "why?"}, {"role": "assistant", "content": "because"}
SYSTEM = {"role": "system", "content": "be brief"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2]}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
TOOL = {"role": "tool", "content": "3"}
WITH_TOOL = [ASK, CALLS, TOOL, ANSWER]


def read(row, form="chats", **columns):
    """What a row becomes, or why it cannot be used."""
    shape = Chats(form, Columns(**columns) if columns else None, "s")
    shape.columns(list(row))
    return Row.of(shape.text(row))


@pytest.mark.parametrize(
    ("row", "columns", "turns"),
    [
        ({"messages": [ASK, ANSWER]}, {}, [ASK, ANSWER]),
        ({"messages": json.dumps([ASK, ANSWER])}, {}, [ASK, ANSWER]),
        ({"dialog": [ASK, ANSWER], "messages": "?"}, {"messages": "dialog"}, [ASK, ANSWER]),
        (
            {"conversations": [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "because"}]},
            {},
            [ASK, ANSWER],
        ),
        (
            {
                "conversations": {"from": ["human", "gpt"], "value": ["why?", "because"]}
            },  # as datasets may say
            {},
            [ASK, ANSWER],
        ),
        ({"instruction": "why?", "input": "", "output": "because"}, {}, [ASK, ANSWER]),
        ({"instruction": "why?", "input": None, "output": "because"}, {}, [ASK, ANSWER]),
        ({"instruction": "why?", "output": "because"}, {}, [ASK, ANSWER]),
        (
            {"instruction": "why", "input": "this?", "output": "because"},
            {},
            [{"role": "user", "content": "why\n\nthis?"}, ANSWER],
        ),
        ({"prompt": "why?", "completion": "because"}, {}, [ASK, ANSWER]),
        ({"prompt": [ASK], "completion": [ANSWER]}, {}, [ASK, ANSWER]),
        ({"q": "why?", "a": "because"}, {"prompt": "q", "completion": "a"}, [ASK, ANSWER]),
        ({"prompt": "why?", "completion": '[{"role": 1}]'}, {}, [ASK, ANSWER | {"content": '[{"role": 1}]'}]),
        ({"system": "be brief", "messages": [ASK, ANSWER]}, {}, [SYSTEM, ASK, ANSWER]),
        ({"system": " ", "messages": [ASK, ANSWER]}, {}, [ASK, ANSWER]),
        ({"system": "other", "messages": [SYSTEM, ASK, ANSWER]}, {}, [SYSTEM, ASK, ANSWER]),
        (
            {"persona": "be brief", "prompt": "why?", "completion": "because"},
            {"prompt": "prompt", "completion": "completion", "system": "persona"},
            [SYSTEM, ASK, ANSWER],
        ),
        ({"messages": [ASK | {"tool_calls": None, "name": None}, ANSWER]}, {}, [ASK, ANSWER]),
        ({"messages": [ASK | {"content": [{"type": "text", "text": "why?"}]}, ANSWER]}, {}, [ASK, ANSWER]),
        ({"messages": [ASK, CALLS, TOOL, ANSWER]}, {}, WITH_TOOL),
        ({"messages": [ASK, CALLS | {"content": None}, TOOL, ANSWER]}, {}, WITH_TOOL),
        (
            {
                "messages": [
                    ASK,
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "1", "function": {"name": "add", "arguments": '{"a": 1, "b": [2]}'}}
                        ],
                    },
                    TOOL | {"tool_call_id": "1"},
                    ANSWER,
                ]
            },
            {},
            WITH_TOOL,
        ),
        (
            {
                "conversations": [
                    {"from": "user", "value": "why?"},
                    {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1, "b": [2]}}'},
                    {"from": "observation", "value": "3"},
                    {"from": "model", "value": "because"},
                ]
            },
            {},
            WITH_TOOL,
        ),
    ],
)
def test_every_form_of_a_chat_becomes_the_same_turns(row, columns, turns):
    found = read(row, **columns)
    assert (found.prompt, found.answers) == ([], [turns])


@pytest.mark.parametrize("tools", [[{"name": "add", "unit": None}], '[{"name": "add"}]'])
def test_tools_are_an_array_or_json_of_one(tools):
    assert read({"messages": [ASK, ANSWER], "tools": tools}).tools == [{"name": "add"}]
    assert read({"messages": [ASK, ANSWER], "tools": ""}).tools is None


WORSE = ANSWER | {"content": "no idea"}


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"prompt": "why?", "chosen": "because", "rejected": "no idea"}, {}),
        ({"prompt": [ASK], "chosen": [ANSWER], "rejected": [WORSE]}, {}),
        ({"prompt": [ASK], "chosen": ANSWER, "rejected": WORSE}, {}),
        ({"prompt": [ASK], "chosen": [ASK, ANSWER], "rejected": [ASK, WORSE]}, {}),
        ({"prompt": "why?", "chosen": [ASK, ANSWER], "rejected": [ASK, WORSE]}, {}),
        ({"chosen": [ASK, ANSWER], "rejected": [ASK, WORSE]}, {}),
        (
            {
                "conversations": [{"from": "human", "value": "why?"}],
                "chosen": {"from": "gpt", "value": "because"},
                "rejected": {"from": "gpt", "value": "no idea"},
            },
            {"prompt": "conversations", "chosen": "chosen", "rejected": "rejected"},
        ),
    ],
)
def test_every_form_of_a_pair_has_one_prompt_and_two_answers(row, columns):
    found = read(row, "pairs", **columns)
    assert (found.prompt, found.answers) == ([ASK], [[ANSWER], [WORSE]])
    found = read(row | {"system": "be brief"}, "pairs", **(columns | {"system": "system"} if columns else {}))
    assert found.prompt == [SYSTEM, ASK]


def test_sides_that_part_before_their_last_turn_have_all_their_own_turns_as_answers():
    row = {"chosen": WITH_TOOL, "rejected": [ASK, ANSWER]}
    found = read(row, "pairs")
    assert (found.prompt, found.answers) == ([ASK], [[CALLS, TOOL, ANSWER], [ANSWER]])


def refusal(row, form, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    item = next(iter(SourceReader("s", Source(jsonl=str(tmp_path / "a.jsonl")), form=form)))
    assert isinstance(item, BadRow)
    return item


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [ASK]}, "no turn of the assistant"),
        ({"messages": []}, "no turn of the assistant"),
        ({"messages": None}, "no turn of the assistant"),
        ({"messages": [SYSTEM]}, "no turn of the assistant"),
        ({"messages": [ASK, ANSWER, ASK]}, "the last turn is of user, and nothing answers it"),
        ({"messages": [ASK, CALLS, TOOL]}, "the last turn is of tool, and nothing answers it"),
        ({"messages": [ASK, ANSWER | {"content": " \n"}]}, "turn 2, of assistant, is empty"),
        ({"messages": [ASK | {"content": ""}, ANSWER]}, "turn 1, of user, is empty"),
        ({"messages": [ASK, ASK, ANSWER]}, "turn 2, of user, follows one of user: roles out of order"),
        ({"messages": [ASK, ANSWER, ANSWER]}, "turn 3, of assistant, follows one of assistant"),
        ({"messages": [ANSWER]}, "turn 1, of assistant, begins the chat: roles out of order"),
        ({"messages": [ASK, SYSTEM, ANSWER]}, "turn 2, of system, follows one of user"),
        ({"messages": [ASK, TOOL, ANSWER]}, "turn 2, of tool, follows one of user"),
        ({"messages": [ASK, ANSWER | {"role": "narrator"}]}, "turn 2 is of 'narrator', a role that is not"),
        ({"messages": [ASK, {"says": "because"}]}, "turn 2 has neither role and content nor from and value"),
        ({"messages": [ASK, "because"]}, "turn 2 is str, not a table of role and content"),
        ({"messages": 3}, "column 'messages' is int, not turns"),
        ({"messages": "why? because"}, "column 'messages' is not JSON"),
        ({"messages": [ASK | {"content": [{"type": "image"}]}, ANSWER]}, "turn 1 holds more than text"),
        (
            {"messages": [ASK, CALLS | {"tool_calls": [{"name": 3}]}, TOOL, ANSWER]},
            "turn 2 calls a tool, but",
        ),
        ({"messages": [ASK, ANSWER], "tools": 3}, "column 'tools' is int, not an array of tools"),
        ({"messages": [ASK, ANSWER], "system": 3}, "column 'system' is not text"),
        ({"prompt": "why?", "completion": ""}, "column 'completion' is empty"),
        ({"instruction": "why?", "input": 3, "output": "so"}, "column 'input' is int, not text"),
        (
            {"instruct": "?", "output": "so"},
            "no columns of a chat by the usual names; there is: instruct, output",
        ),
    ],
)
def test_what_is_no_chat_is_a_bad_row_that_says_why(row, reason, tmp_path):
    item = refusal(row, "chats", tmp_path)
    assert item.reason.startswith(reason)
    assert "turn 2" not in item.kind  # so that equal faults are counted together


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "why?", "chosen": "because", "rejected": "because"}, "both sides of the pair are equal"),
        ({"chosen": [ASK, ANSWER], "rejected": [ASK, ANSWER]}, "both sides of the pair are equal"),
        (
            {"prompt": "why?", "chosen": "because", "rejected": " "},
            "the rejected side has no answer of its own",
        ),
        ({"prompt": "why?", "chosen": "", "rejected": ""}, "the chosen side has no answer of its own"),
        ({"chosen": [ASK, ANSWER], "rejected": [ASK]}, "the rejected side has no answer of its own"),
        (
            {"chosen": [ASK, ANSWER], "rejected": [ASK | {"content": "how?"}, ANSWER]},
            "the sides of the pair answer different prompts",
        ),
        ({"chosen": "because", "rejected": "no"}, "turn 1, of assistant, begins the chat"),
        ({"prompt": "why?", "chosen": "because"}, "no columns of a pair of answers by the usual names"),
    ],
)
def test_what_is_no_pair_is_a_bad_row_that_says_why(row, reason, tmp_path):
    assert refusal(row, "pairs", tmp_path).reason.startswith(reason)


def test_a_column_that_is_not_there_is_named_with_those_that_are_and_a_near_one():
    source = Source(jsonl="x", columns=Columns(messages="mesages"))
    with pytest.raises(
        Exception, match=r"no column 'mesages'; there is: id, messages; did you mean 'messages'\?"
    ):
        Chats("chats", source.columns, "s").columns(["id", "messages"])


def test_parquet_and_the_hubs_library_give_the_same_chats_as_json_lines(tmp_path):
    rows = [{"messages": [ASK, ANSWER]}, {"messages": [SYSTEM, ASK, CALLS, TOOL, ANSWER]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [
        [item.text for item in SourceReader("s", source, form="chats")]
        for source in (Source(jsonl=str(tmp_path / "a.jsonl")), Source(parquet=str(tmp_path / "a.parquet")))
    ]
    assert texts[0] == texts[1]
    (tmp_path / "a.parquet").unlink()
    source = Source(dataset=str(tmp_path), revision="main")
    found = list(hub.stream("s", source, Chats("chats", None, "s"), skip=0))
    assert [item.text for item in found] == texts[0]


def test_texts_in_tables_of_arrow_that_are_not_utf_8_are_bad_rows(tmp_path):
    content = pa.array([b"why?", b"be\xff", b"why?", b"because"], pa.binary()).cast(pa.string(), safe=False)
    turns = pa.StructArray.from_arrays([pa.array(["user", "assistant"] * 2), content], ["role", "content"])
    pq.write_table(pa.table({"messages": pa.ListArray.from_arrays([0, 2, 4], turns)}), tmp_path / "a.parquet")
    bad, good = SourceReader("s", Source(parquet=str(tmp_path / "a.parquet")), form="chats")
    assert (bad.reason, bad.origin.row) == ("not UTF-8", 1)
    assert isinstance(good, Document)


def test_a_parquet_file_without_the_columns_is_refused_with_those_that_are_there(tmp_path):
    pq.write_table(pa.table({"question": ["why?"], "answer": ["because"]}), tmp_path / "a.parquet")
    with pytest.raises(
        UserError, match=r"a.parquet: no columns of a chat .* there is: question, answer; name"
    ):
        list(SourceReader("s", Source(parquet=str(tmp_path / "a.parquet")), form="chats"))


def test_a_file_of_bad_rows_alone_is_refused_with_the_first_reason(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": [ASK]}) + "\n" + json.dumps({"messages": 3}))
    with pytest.raises(UserError, match=r"no row of it can be used; .* row 1: no turn of the assistant"):
        list(SourceReader("s", Source(jsonl=str(tmp_path / "a.jsonl")), form="chats"))


def test_a_text_of_broken_unicode_spoils_its_row_only_where_it_is_asked_for(tmp_path):
    rows = [
        '{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "so"}]}',
        '{"id": "\\ud800", "prompt": "why?", "completion": "because"}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    bad, good = SourceReader("s", Source(jsonl=str(tmp_path / "a.jsonl")), form="chats")
    assert isinstance(bad, BadRow)
    assert Row.of(good.text).answers == [[ASK, ANSWER]]


@pytest.mark.parametrize(("form", "name", "count"), [("chats", "chats", 480), ("pairs", "preferences", 240)])
def test_the_rows_that_ship_are_whole(form, name, count):
    items = list(SourceReader("s", Source(jsonl=f"package:{name}"), form=form))
    assert len(items) == count
    rows = [Row.of(item.text) for item in items]
    assert all(row.prompt == [] for row in rows) == (form == "chats")
    turns = [turn["role"] for row in rows for answer in row.answers for turn in answer]
    assert set(turns) == ({"system", "user", "assistant", "tool"} if form == "chats" else {"assistant"})


SHAREGPT = [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "because"}]
TULU = {"id": "1", "prompt": "why?", "messages": [ASK, ANSWER]}


@pytest.mark.parametrize(
    ("source", "row"),
    [
        ("evolkit", {"conversations": SHAREGPT}),
        ("the-tomb", {"conversations": SHAREGPT}),
        ("perfectblend", {"conversations": SHAREGPT, "source": "x"}),
        ("agentinstruct", {"messages": [ASK, ANSWER], "split": "x"}),
        ("autoif", {"messages": [ASK, ANSWER], "eval_funcs": []}),
        (
            "toolace",
            {
                "system": "be brief",
                "conversations": [
                    each | {"from": role} for each, role in zip(SHAREGPT, ("user", "assistant"), strict=True)
                ],
            },
        ),
        ("synthia-coder", {"system": "be brief", "instruction": "why?", "response": "because"}),
        ("m2lingual", {"conversation": [ASK, ANSWER], "language": "English"}),
        ("numina-tir", {"problem": "why?", "solution": "because", "messages": [ASK, ANSWER]}),
        *((f"tulu-{name}", TULU) for name in ("code", "math", "grade", "algebra")),
    ],
)
def test_the_column_maps_of_intellect_1_read_rows_of_its_data_sets(source, row):
    wanted = recipes.load("intellect-1-sft").sources[source]
    found = Row.of(Chats("chats", wanted.columns, source).text(row))
    assert found.answers == [[SYSTEM, ASK, ANSWER] if "system" in row else [ASK, ANSWER]]
