"""A model card is written from the facts of its run, all of them, and strangers' words in it are text."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from markdown_it import MarkdownIt
from small_runs import SmallRun
from unit.scores import result

from atoll.evaluate import results
from atoll.evaluate.checkpoint import Files
from atoll.publish import export as publish
from atoll.publish import facts as f
from atoll.publish.card import card, write_card
from atoll.publish.gather import FACTS_FILE, facts_of
from atoll.publish.states import committed_state
from atoll.publish.tables import contributors
from atoll.publish.verify import verify

ODD = "<b>Ada</b> [x](http://evil.example) | *y* @you `z` _u_ www.evil.example #1 \\ &amp; ~~s~~"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> SmallRun:
    """Six steps; after five of them one of three islands went away."""
    made = SmallRun(tmp_path_factory.mktemp("run")).commit(5)
    made.leave("c" * 16)
    return made.commit(1)


@pytest.fixture(scope="module")
def whole(run: SmallRun, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "model"
    publish.export(run.dir, out)
    return out


@pytest.fixture(scope="module")
def facts(whole: Path) -> f.Facts:
    return msgspec.json.decode((whole / FACTS_FILE).read_bytes(), type=f.Facts)


def rendered(markdown: str) -> str:
    """As the hub renders it: HTML within Markdown is allowed, tables and bare links are known."""
    return MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(markdown.split("---\n", 2)[2])


# --------------------------------------------------------------------------------- facts of the run's files
def test_the_ledger_names_people_and_not_islands(facts: f.Facts) -> None:
    assert [(each.name, each.num_islands, each.tokens) for each in facts.contributors] == [
        ("Ada", 2, 12 * 64),
        ("Emmy", 1, 3 * 64),
    ]
    assert facts.tokens == 15 * 64
    assert "a" * 16 not in card(facts)


def test_pages_of_contributors_are_named_as_text_where_there_are_any(facts: f.Facts) -> None:
    assert "page" not in contributors(facts)
    ada, emmy = facts.contributors
    ada = msgspec.structs.replace(ada, links=("https://example.org/ada", "https://example.org/[x](y)"))
    markdown = contributors(msgspec.structs.replace(facts, contributors=(ada, emmy)))
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(markdown)
    assert "https://example.org/ada" in html
    assert "https://example.org/[x](y)" in html
    assert "<th>page</th>" in html
    assert "<a " not in html


def test_the_ledger_is_what_the_records_prove(whole: Path, facts: f.Facts) -> None:
    proven = verify(whole)
    assert sum(proven.tokens.values()) == facts.tokens
    assert proven.root.hex() == facts.root
    assert proven.fingerprint.hex() == facts.fingerprint
    assert f"`{facts.root}`" in card(facts)
    assert f"`{facts.fingerprint}`" in card(facts)


def test_data_is_told_as_it_was_consumed_stage_by_stage(facts: f.Facts) -> None:
    """Five islands' shares of two inner steps lie in each of the first stage's two outer steps."""
    assert [stage.until_inner_step for stage in facts.stages] == [4, 12]
    first, second = (stage.tokens for stage in facts.stages)
    assert first == {"letters": 240, "notes": 80}
    assert second == {"notes": 640}


def test_the_events_tell_losses_utilisation_and_faults(facts: f.Facts) -> None:
    told = facts.told
    assert told is not None
    assert [loss.tokens for loss in told.losses] == [128, 320, 448, 640, 768, 960]
    assert [loss.loss for loss in told.losses] == [6.0, 5.75, 5.5, 5.25, 5.0, 4.75]
    assert told.faults == {"members that went away": 1}
    # Two islands computed 48 s each and exchanged for 10 s, the third one half as much in its three steps.
    assert told.utilisation.participation == pytest.approx((2 / 3 + 1 + 2 / 3 + 1 + 2 / 3 + 1) / 6)
    assert told.utilisation.as_original == pytest.approx(0.828, abs=0.001)
    assert told.utilisation.end_to_end == pytest.approx(0.8)


def test_traffic_is_counted_from_the_codec(facts: f.Facts) -> None:
    assert facts.traffic.codec == "int8"
    assert facts.traffic.factor == pytest.approx(2 * 4 / facts.traffic.bytes_per_parameter)
    assert 1 < facts.traffic.bytes_per_parameter < 1.01


def test_without_events_the_card_says_whose_they_are(run: SmallRun, whole: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(run.dir.path, tmp_path / "run"))
    (there / "events.jsonl").unlink()
    shutil.rmtree(there / "coordinator")
    found = facts_of(type(run.dir)(there), committed_state(run.dir), whole, True)
    assert found.told is None
    text = card(found)
    assert "are told by the events file of the run's host" in text
    assert "loss.png" not in text
    assert f"island `{'a' * 16}`" in text, "nobody here knows whose it is"
    assert "map.png" not in text


def test_scores_of_this_state_are_in_the_card_and_no_others(run: SmallRun, whole: Path) -> None:
    state = committed_state(run.dir)
    mine = result(0.5, name="/home/ada/run", root=state.root.hex(), digest="a" * 64)
    by_files = result(0.75, digest=Files(whole).digest(), task="hellaswag", num_fewshot=10)
    of_another = result(0.125, root="00", digest="b" * 64, task="winogrande")
    folder = run.dir.path / results.DIRECTORY
    for each in (mine, by_files, of_another):
        results.write(results.path_of(folder, each.checkpoint.digest, each.settings), each)
    found = facts_of(run.dir, state, whole, True)
    shutil.rmtree(folder)
    assert found.scores == (mine, by_files)
    text = card(found)
    assert "| small, state 6 | 50.00 ± 1.00 | 75.00 ± 1.00 |" in text
    assert "| chance | 25.00 | 25.00 |" in text
    assert "MPT-7B" in text
    assert "with lm-eval 0.4.13; weights in float32" in text
    assert "/home/ada" not in text
    assert "## Evaluation" not in card(facts_of(run.dir, state, whole, True))


def test_a_model_of_conversations_says_so_whichever_run_it_was(facts: f.Facts) -> None:
    from huggingface_hub import ModelCard

    chats = msgspec.structs.replace(facts, objective="sft", is_of_chats=True)
    later = msgspec.structs.replace(facts, objective="pretrain", base=chats, base_model="first")
    for found in (chats, later):
        assert "conversational" in ModelCard(card(found)).data.tags
        assert "With the chat template, which it was trained on" in card(found)
    assert "conversational" not in ModelCard(card(facts)).data.tags
    assert "| small | sft | 960 |" in card(later)


# -------------------------------------------------------------------------------- the card says all of them
def changed(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case tuple() if value and isinstance(value[0], str):
            return (*value, "xx")
        case tuple():
            return value[1:]
        case dict():
            return {**value, "x": next(iter(value.values()))}
        case f.Shape():
            return msgspec.structs.replace(value, num_layers=17)
        case f.Traffic():
            return msgspec.structs.replace(value, factor=777.0)
    raise AssertionError(f"no other value of {value!r} is known")


# "version" is of the file; "sources" matter as far as they were read, and "told" has a test of its own.
OTHERWISE = {"version", "sources", "told"}


@pytest.mark.parametrize(
    "name", [field.name for field in msgspec.structs.fields(f.Facts) if field.name not in OTHERWISE]
)
def test_a_fact_that_differs_makes_another_card(facts: f.Facts, name: str) -> None:
    full = msgspec.structs.replace(facts, base_model="ada/first", base=facts, scores=(result(),))
    others = {"base": None, "objective": "sft"}
    other = others[name] if name in others else changed(getattr(full, name))
    assert card(msgspec.structs.replace(full, **{name: other})) != card(full)


def test_the_chapters_of_the_events_differ_with_them(facts: f.Facts) -> None:
    told = facts.told
    assert told is not None
    others = (
        msgspec.structs.replace(told, num_steps=5),
        msgspec.structs.replace(told, began=told.began + 86400),
        msgspec.structs.replace(told, ended=told.ended + 86400),
        msgspec.structs.replace(told, losses=told.losses[:-1]),
        msgspec.structs.replace(told, heldout_loss=4.25),
        msgspec.structs.replace(told, faults={}),
        msgspec.structs.replace(
            told, utilisation=f.Utilisation(as_original=0.5, participation=None, end_to_end=None)
        ),
    )
    texts = [card(msgspec.structs.replace(facts, told=other)) for other in (told, *others)]
    assert len(set(texts)) == len(texts)


def test_cards_of_two_runs_differ_where_the_runs_did(run: SmallRun, facts: f.Facts, tmp_path: Path) -> None:
    """The other run has the same recipe, data and updates, but other people."""
    people = {"a" * 16: ("Ada", "London"), "b" * 16: ("Bo", "Kyoto, Japan"), "c" * 16: ("Emmy", "")}
    sources = {name: {"text": str(source.text)} for name, source in run.recipe.sources.items()}
    other = SmallRun(tmp_path, people, sources=sources).commit(5)
    other.leave("c" * 16)
    publish.export(other.commit(1).dir, tmp_path / "out")
    before, after = card(facts).splitlines(), (tmp_path / "out" / "README.md").read_text().splitlines()
    people_or_keys = "| Ada |", "| Bo |", "author =", "@misc{", "| run |", "| fingerprint", "| record key"
    different = {line for line in {*before} ^ {*after} if line.strip().startswith(people_or_keys)}
    assert {*before} ^ {*after} == different
    assert any("| Bo | 1 |" in line for line in different)


def test_equal_facts_give_equal_files(facts: f.Facts, whole: Path, tmp_path: Path) -> None:
    write_card(tmp_path, facts)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (whole / path.name).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", FACTS_FILE, "map.png", "loss.png"}


# ------------------------------------------------------------------------------------- words of strangers
def with_words(facts: f.Facts, words: str) -> f.Facts:
    """The facts with these words wherever somebody outside has a say."""
    first = msgspec.structs.replace(facts.contributors[0], name=words)
    stage = msgspec.structs.replace(facts.stages[0], tokens={words: 320})
    return msgspec.structs.replace(
        facts,
        contributors=(first, *facts.contributors[1:]),
        places=(f.Place(words, None),),
        stages=(stage, *facts.stages[1:]),
        sources={**facts.sources, words: f.Source(kind="", dataset=words, revision=words)},
        base_model=words,
        bos_token=words,
        license=words,
    )


def test_words_of_strangers_are_text(facts: f.Facts) -> None:
    plain = rendered(card(with_words(facts, "words")))
    html = rendered(card(with_words(facts, ODD)))
    shown = ODD.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # BibTeX stands in a fenced block, where nothing is markup; there its own signs are left out.
    marks = html.replace(shown, "words").replace(
        shown.replace("\\ ", " ").replace("`", "").replace("~", ""), "words"
    )
    assert marks == plain


def test_control_characters_never_reach_the_card(facts: f.Facts) -> None:
    text = card(with_words(facts, "a\x1b[31m\nb\u202e\x00c"))
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("words", ["# a", "- a", "1. a", "```", "}, note = {", "---", "| a | b |", "![a](b)"])
def test_no_word_makes_structure(facts: f.Facts, words: str) -> None:
    shape = [
        token.type
        for token in MarkdownIt("gfm-like", {"linkify": False}).parse(card(with_words(facts, "words")))
    ]
    assert [
        token.type
        for token in MarkdownIt("gfm-like", {"linkify": False}).parse(card(with_words(facts, words)))
    ] == shape


# ------------------------------------------------------------------------------------- what others read
def test_the_hubs_own_library_reads_the_metadata(facts: f.Facts, whole: Path) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard.load(whole / "README.md").data.to_dict()
    assert data == {
        "language": ["en"],
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["atoll", "diloco"],
    }
    more = msgspec.structs.replace(
        facts,
        base_model="ada/first",
        is_base_on_hub=True,
        sources={
            **facts.sources,
            "web": f.Source(kind="dataset", dataset="ada/web", revision="main"),
            "mine": f.Source(kind="dataset", dataset="/home/ada/private"),
        },
    )
    data = ModelCard(card(more)).data
    assert data.base_model == "ada/first"
    assert data.datasets == ["ada/web"], "a folder of somebody's own has no name on the hub"
    assert ModelCard(card(msgspec.structs.replace(more, is_base_on_hub=False))).data.base_model is None


def snippets(text: str) -> Iterator[str]:
    for part in text.split("```python\n")[1:]:
        yield part.partition("```")[0]


def test_the_snippets_of_the_card_run_as_they_stand(whole: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(whole)
    codes = list(snippets((whole / "README.md").read_text()))
    assert len(codes) == 2
    for code in codes:
        exec(compile(code, "snippet", "exec"), {})
    said = capsys.readouterr().out
    assert said.startswith("Once upon a time")
    assert "'role': 'assistant'" in said
