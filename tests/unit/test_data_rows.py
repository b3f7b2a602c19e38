"""Preparing chats and pairs: what is written, what is reported, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers")

from atoll import cli
from atoll.data import blocks, encode, packing, sections
from atoll.data.chat import CHAT_TEMPLATE
from atoll.data.columns import TRAINED, add_columns, missing, shards, write_column
from atoll.data.loader import NO_LABEL, Loader
from atoll.data.manifest import Column, Manifest
from atoll.data.partial import PartialData
from atoll.data.partition import partitions, recipe_of
from atoll.data.prepare import prepare
from atoll.data.tokenizer import Tokenizer
from atoll.data.unigram import heldout_unigram_loss
from atoll.data.verify import verify
from atoll.errors import UserError
from atoll.recipe import parse
from atoll.samples import first_sample

LINE = "the old sea dog sat by the fire and told of islands storms and gold nobody dared to ask"
WORDS = LINE.split()


def words(number: int, count: int) -> str:
    return " ".join(WORDS[(number * 7 + step * step) % len(WORDS)] for step in range(count)) + f" {number}"


def chat(number: int) -> dict:
    turns = []
    for exchange in range(1 + number % 2):
        turns.append({"role": "user", "content": f"Q{words(number + exchange, 3)}?"})
        turns.append({"role": "assistant", "content": f"A{words(number * 3 + exchange, 2 + number % 9)}."})
    return {"messages": turns}


def pair(number: int) -> dict:
    answers = {"chosen": f"C{words(number, 3)}", "rejected": f"R{words(number + 1, 1 + number % 4)}"}
    return {"prompt": f"Q{words(number, 3)}?"} | answers


def recipe_over(rows: list[dict], tmp_path: Path, objective: str = "sft", **changes):
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = {
        "name": "test",
        "model": {"preset": "demo"},
        "objective": {"type": objective},
        "tokenizer": {"train": 300},
        "sources": {"s": {"jsonl": str(tmp_path / "raw.jsonl")} | changes.pop("source", {})},
        "stage": [{"until": 10, "mixture": {"s": 1}}],
        "inner": {"context_length": 128, "tokens_per_step": 256},
        "outer": {"inner_steps": 2},
        "heldout_fraction": 0.2,
    }
    return parse(tree | changes, "test")


CHATS, PAIRS = [chat(number) for number in range(60)], [pair(number) for number in range(60)]


def documents(recipe, data_dir: Path, split: str = "train") -> list[tuple[str, str, int]]:
    """(text, what is trained on, window) of each document that is not padding, read through the loader."""
    loader = Loader(data_dir, recipe)
    tokenizer = Tokenizer.load(data_dir / "tokenizer")
    if split == "train":
        num_windows = loader.manifest.sources["s"].num_tokens("train") // recipe.inner.context_length
        (batches,) = loader.batches(range(num_windows), [0], num_windows, num_windows)
    else:
        batches = [batch for _, batch in loader.heldout(micro_batch=2)]
    found = []
    windows = [row for batch in batches for row in zip(*batch[:3], strict=True)]
    for window, (tokens, labels, numbers) in enumerate(windows):
        for number in range(numbers.max() + 1):
            own, wanted = tokens[numbers == number], labels[numbers == number]
            if (wanted != NO_LABEL).any():
                trained = tokenizer.decode(wanted[wanted != NO_LABEL], skip_special_tokens=False)
                found.append((tokenizer.decode(own, skip_special_tokens=False), trained, window))
    return found


def test_every_chat_is_in_one_split_whole_and_its_answers_are_the_labels(tmp_path):
    recipe = recipe_over(CHATS, tmp_path)
    source = prepare(recipe, tmp_path / "data").sources["s"]
    verify(tmp_path / "data")
    template = Tokenizer.load(tmp_path / "data/tokenizer").template
    found = {split: documents(recipe, tmp_path / "data", split) for split in ("train", "heldout")}
    for split, known in found.items():
        assert len(known) == source.num_rows(split)
        assert source.num_tokens(split) % recipe.inner.context_length == 0
    assert 3 < len(found["heldout"]) < 30
    known = sorted((text, trained) for split in found.values() for text, trained, _ in split)
    expected = [
        (
            template.render(row["messages"]),
            "".join(
                turn["content"] + "<|eot_id|>" for turn in row["messages"] if turn["role"] == "assistant"
            ),
        )
        for row in CHATS
    ]
    assert known == sorted(expected)


def test_both_sides_of_a_pair_lie_one_after_the_other_in_one_window(tmp_path):
    recipe = recipe_over(PAIRS, tmp_path, "simpo")
    prepare(recipe, tmp_path / "data")
    found = documents(recipe, tmp_path / "data") + documents(recipe, tmp_path / "data", "heldout")
    sides = [(found[at], found[at + 1]) for at in range(0, len(found), 2)]
    assert len(sides) == 60
    for (chosen, good, first), (rejected, bad, second) in sides:
        assert (good[0], bad[0], first) == ("C", "R", second)
        assert chosen.split("assistant")[0] == rejected.split("assistant")[0]


def test_tokens_in_are_tokens_out_and_tokens_reported(tmp_path):
    whole = prepare(recipe_over(CHATS, tmp_path), tmp_path / "whole").sources["s"]
    assert whole.too_long.num_tokens == 0
    tokens_in = sum(whole.num_tokens(split) - whole.num_padding(split) for split in ("train", "heldout"))
    narrow = {"context_length": 64, "tokens_per_step": 64}
    tokenizer = {"file": str(tmp_path / "whole/tokenizer")}
    for rule, num_cut in (("skip", 0), ("cut", 10)):
        recipe = recipe_over(CHATS, tmp_path, inner=narrow, chat={"too_long": rule}, tokenizer=tokenizer)
        manifest = prepare(recipe, tmp_path / rule)
        verify(tmp_path / rule)
        source = manifest.sources["s"]
        tokens_out = sum(
            source.num_tokens(split) - source.num_padding(split) for split in ("train", "heldout")
        )
        assert source.too_long.num_cut >= num_cut
        assert tokens_in == tokens_out + source.too_long.num_tokens
        assert sum(map(source.num_rows, ("train", "heldout"))) == 60 - source.too_long.num_skipped
        told = " ".join(manifest.notes())
        assert f"longer than the 64 tokens of a window: {source.too_long.num_tokens:,} tokens" in told
        assert "of its tokens are trained on; its windows are" in told
        assert ("cut at the end" in told) == (rule == "cut")


def test_a_cut_row_begins_at_its_beginning_and_one_whose_prompt_fills_the_window_is_left_out(tmp_path):
    long = {"prompt": words(1, 90), "completion": "never seen"}
    rows = [*[{"prompt": "why?", "completion": words(number, 120)} for number in range(9)], long]
    recipe = recipe_over(rows, tmp_path, chat={"too_long": "cut"}, heldout_fraction=0.01)
    source = prepare(recipe, tmp_path / "data").sources["s"]
    assert (source.too_long.num_cut, source.too_long.num_skipped) == (9, 1)
    for text, trained, _ in documents(recipe, tmp_path / "data"):
        assert text.startswith("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nwhy?<|eot_id|>")
        assert trained.strip() in text


def test_a_pair_whose_prompt_fills_the_window_is_left_out_whole_and_counted(tmp_path):
    long = {"prompt": words(1, 90), "chosen": "never seen", "rejected": "nor this"}
    recipe = recipe_over([*PAIRS, long], tmp_path, "simpo")
    source = prepare(recipe, tmp_path / "data").sources["s"]
    assert (source.too_long.num_skipped, source.too_long.num_cut) == (1, 0)
    assert sum(map(source.num_rows, ("train", "heldout"))) == 60
    found = documents(recipe, tmp_path / "data") + documents(recipe, tmp_path / "data", "heldout")
    assert len(found) == 2 * 60 and not any("never seen" in text for text, _, _ in found)


def test_neither_processes_nor_interruptions_change_the_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "BATCH_CHARACTERS", 1000)
    monkeypatch.setattr(packing, "SECTION_TOKENS", 1200)
    recipe = recipe_over(CHATS, tmp_path)
    assert len(prepare(recipe, tmp_path / "undisturbed").sources["s"].train) > 2
    monkeypatch.setattr(encode, "FEW_BATCHES", 0)
    begun_at = []

    def prepare_until_stopped() -> bool:
        seen = []

        def stop(progress):
            if progress.phase == "tokens":
                seen.append(progress.num_documents)
                if len(seen) == 6:
                    raise KeyboardInterrupt

        try:
            prepare(recipe, tmp_path / "data", stop, num_processes=2)
        except KeyboardInterrupt:
            return True
        finally:
            begun_at.append(seen[0])
        return False

    while prepare_until_stopped():
        pass
    assert begun_at == sorted(set(begun_at)) and len(begun_at) > 2
    assert files_in(tmp_path / "data") == files_in(tmp_path / "undisturbed")


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_of_few_rows_the_last_ones_are_held_out_whole(tmp_path):
    recipe = recipe_over(CHATS[:3], tmp_path, heldout_fraction=0.001, tokenizer={"train": 290})
    manifest = prepare(recipe, tmp_path / "data")
    assert manifest.sources["s"].is_end_heldout
    ((text, _, _),) = documents(recipe, tmp_path / "data", "heldout")
    assert CHATS[2]["messages"][-1]["content"] in text
    assert len(documents(recipe, tmp_path / "data")) == 2


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([{"messages": [{"role": "user", "content": "?"}]}], {}, "row 1: no turn of the assistant"),
        (
            [*CHATS, {"messages": 3}],
            {},
            r"raw.jsonl, row 61: column 'messages' is int, not turns; correct it, or",
        ),
        (
            [{"question": "?", "answer": "!"}],
            {},
            "there is: question, answer; name them in sources.s.columns",
        ),
        (
            [{"instruction": "?", "response": "!"}],
            {"source": {"columns": {"prompt": "instruction", "completion": "respones"}}},
            "no column 'respones'; there is: instruction, response; did you mean 'response'",
        ),
        (
            CHATS,
            {"chat": {"template": "chatml"}},
            r"<\|im_start\|> is no special token of the trained tokenizer",
        ),
        (CHATS, {"chat": {"template": "nowhere.jinja"}}, "nowhere.jinja: cannot be read"),
        (
            CHATS,
            {"inner": {"context_length": 8, "tokens_per_step": 8}},
            "no row is left to train on: 60 longer than inner.context_length, 8",
        ),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused(rows, changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        prepare(recipe_over(rows, tmp_path, **changes), tmp_path / "data")
    assert not (tmp_path / "data/manifest.json").exists()


def test_bad_rows_are_skipped_and_counted_by_what_is_wrong(tmp_path):
    call = {"type": "function", "function": {"name": "add", "arguments": {}}}
    refused = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "so", "tool_calls": [call]}]
    bad = [{"messages": []}, {"messages": CHATS[0]["messages"][:1]}, {"messages": refused}, {"text": "?"}]
    recipe = recipe_over([*CHATS, *bad], tmp_path, source={"skip_bad_rows": True})
    manifest = prepare(recipe, tmp_path / "data")
    assert manifest.sources["s"].skipped == {
        "no columns of a chat": 1,
        "no turn of the assistant": 2,
        "not taken by the template: a turn is either a text or one call of a tool": 1,
    }


def test_pairs_whose_sides_become_equal_are_bad_rows(tmp_path):
    same = {"prompt": "why?", "chosen": "because", "rejected": " because\n"}  # the template trims them
    recipe = recipe_over([*PAIRS, same], tmp_path, "simpo", source={"skip_bad_rows": True})
    assert prepare(recipe, tmp_path / "data").sources["s"].skipped == {"pairs of equal sides": 1}


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"chat": {"train_on": "last"}}, "chat.train_on"),
        ({"inner": {"context_length": 64, "tokens_per_step": 64}}, "inner.context_length"),
        ({"objective": "distill"}, ""),
        ({"chat": {"first_loss_margin": 5.0}}, ""),
        ({"inner": {"context_length": 128, "tokens_per_step": 1024}}, ""),
    ],
)
def test_prepared_rows_belong_to_what_they_were_made_from(changes, keys, tmp_path):
    manifest = prepare(recipe_over(CHATS, tmp_path), tmp_path / "data")
    other = recipe_over(CHATS, tmp_path, **changes)
    if not keys:
        assert prepare(other, tmp_path / "data") == manifest
        return
    with pytest.raises(UserError, match=f"another recipe; these keys differ: {keys}$"):
        prepare(other, tmp_path / "data")


def test_windows_of_another_length_or_kind_than_the_recipes_are_refused(tmp_path):
    prepare(recipe_over(CHATS, tmp_path), tmp_path / "data")
    narrow = recipe_over(CHATS, tmp_path, inner={"context_length": 64, "tokens_per_step": 64})
    with pytest.raises(UserError, match=r"has windows of rows of 128 tokens, but the recipe's has .* of 64"):
        Loader(tmp_path / "data", narrow)
    with pytest.raises(UserError, match="but the recipe's is a stream of documents; prepare it again"):
        Loader(tmp_path / "data", recipe_over(CHATS, tmp_path, "pretrain"))


def test_the_unigram_loss_counts_what_is_trained_on(tmp_path):
    rows = [{"prompt": f"{number} why?", "completion": "b b b a"} for number in range(40)]
    recipe = recipe_over(rows, tmp_path, tokenizer={"train": 270})
    manifest = prepare(recipe, tmp_path / "data")
    ids = np.unique(labels_of(recipe, tmp_path / "data"))
    assert len(ids) < manifest.sources["s"].num_labels("train") / manifest.sources["s"].num_rows("train")
    counts = np.array([np.count_nonzero(labels_of(recipe, tmp_path / "data") == each) for each in ids])
    probability = (counts + 1) / (counts.sum() + manifest.vocab_size)
    expected = -(counts / counts.sum() * np.log(probability)).sum()
    assert heldout_unigram_loss(tmp_path / "data", {"s": 1}) == pytest.approx(expected)


def labels_of(recipe, data_dir: Path) -> np.ndarray:
    loader = Loader(data_dir, recipe)
    num_windows = loader.manifest.sources["s"].num_tokens("train") // recipe.inner.context_length
    ((batch,),) = loader.batches(range(num_windows), [0], num_windows, num_windows)
    return batch.labels[batch.labels != NO_LABEL]


def test_a_partition_of_rows_is_made_with_the_runs_template_and_read_window_by_window(tmp_path):
    (tmp_path / "own.jinja").write_text(CHAT_TEMPLATE)
    recipe = recipe_over(CHATS, tmp_path, chat={"template": str(tmp_path / "own.jinja")})
    tree = recipe.shared()
    tree["sources"]["mail"] = {"partitioned": True}
    tree["stage"][0]["mixture"] = {"s": 1, "mail": 1}
    recipe = parse(tree, "test")
    prepare(recipe, tmp_path / "data")
    (tmp_path / "own.jinja").unlink()  # as on the machine of another island
    wanted = f"mail/ada=jsonl:{tmp_path / 'raw.jsonl'}"
    name, of_part = recipe_of(recipe, wanted, tmp_path / "data")
    made = prepare(of_part, tmp_path / "private" / name)
    assert (made.sources["mail"].num_rows("train"), made.sources["mail"].heldout) == (60, [])
    (partition,) = partitions(tmp_path / "private", recipe)
    loader = Loader(tmp_path / "data", recipe, [partition])
    first = first_sample(partition.number)
    num_windows = partition.num_windows(recipe.inner.context_length)
    ((batch,),) = loader.batches(range(first, first + num_windows), [0], num_windows, num_windows)
    assert (batch.labels != NO_LABEL).sum() == made.sources["mail"].num_labels("train")


TEACHER = Column(name="teacher", per="token", dtype="<f4", width=3)
REFERENCE = Column(name="reference", per="document", dtype="<f8")


def write_columns(data_dir: Path, manifest: Manifest) -> Manifest:
    """A teacher's three numbers for each token, computed from its id, and a number for each document."""
    for shard in shards(manifest):
        ids = np.fromfile(data_dir / shard.tokens, manifest.token_type)
        with write_column(data_dir, shard, TEACHER) as append:
            for part in np.array_split(ids, 3):
                append(np.stack([part, part + 0.5, -part.astype(float)], 1))
        with write_column(data_dir, shard, REFERENCE) as append:
            starts = np.fromfile(data_dir / shard.offsets, "<u8")[:-1].astype(int)
            is_row = np.diff([*starts, len(ids)]) > 1
            append(
                np.where(
                    is_row & (ids[np.minimum(starts + 1, len(ids) - 1)] != manifest.bos_id), starts, np.nan
                )
            )
    return add_columns(data_dir, manifest, [TEACHER, REFERENCE])


def test_columns_come_with_the_windows_beside_the_labels_that_they_are_about(tmp_path):
    recipe = recipe_over(CHATS, tmp_path)
    before = prepare(recipe, tmp_path / "data")
    after = write_columns(tmp_path / "data", before)
    assert verify(tmp_path / "data") == after
    assert after.columns == [TRAINED, TEACHER, REFERENCE]
    assert after.digest() != before.digest()
    for _, batch in Loader(tmp_path / "data", recipe).heldout(micro_batch=2):
        is_label = batch.labels != NO_LABEL
        teacher, reference = batch.by_token["teacher"], batch.by_document["reference"]
        assert teacher.shape == (*batch.tokens.shape, 3)
        assert (teacher[..., 0][is_label] == batch.labels[is_label]).all()
        assert (teacher[..., 1][is_label] == batch.labels[is_label] + 0.5).all()
        assert reference.shape == (len(batch.tokens), batch.documents.max() + 1)
        for row, numbers in enumerate(batch.documents):
            starts = [int((numbers == number).argmax()) for number in range(numbers.max() + 1)]
            is_row = [bool(is_label[row][numbers == number].any()) for number in range(numbers.max() + 1)]
            known = [not np.isnan(each) for each in reference[row]]
            assert known == is_row + [False] * (reference.shape[1] - len(is_row))
            first = reference[row][0]
            assert [
                int(each - first) for each, is_known in zip(reference[row], known, strict=True) if is_known
            ] == [start for start, is_one in zip(starts, is_row, strict=True) if is_one]


def test_a_column_that_is_half_done_stays_out_of_the_manifest(tmp_path):
    manifest = prepare(recipe_over(CHATS, tmp_path), tmp_path / "data")
    first, *others = missing(tmp_path / "data", manifest, REFERENCE)
    with write_column(tmp_path / "data", first, REFERENCE) as append:
        append(np.zeros(first.num_documents))
    assert missing(tmp_path / "data", manifest, REFERENCE) == others
    with pytest.raises(UserError, match=f"{others[0].column('reference')}: missing, .* is not complete"):
        add_columns(tmp_path / "data", manifest, [REFERENCE])
    assert Manifest.load(tmp_path / "data") == manifest
    for values, message in ((np.zeros(3), "24 bytes were given, not"), (np.zeros((3, 2)), r"shape \(2,\)")):
        with (
            pytest.raises(ValueError, match=message),
            write_column(tmp_path / "data", others[0], REFERENCE) as append,
        ):
            append(values)
    assert missing(tmp_path / "data", manifest, REFERENCE) == others
    assert not list((tmp_path / "data").rglob(".*.tmp"))


def test_the_blocks_named_for_a_lease_of_rows_are_enough_to_read_it_with_its_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    recipe = recipe_over(CHATS, tmp_path)
    manifest = write_columns(tmp_path / "data", prepare(recipe, tmp_path / "data"))
    manifest.save(tmp_path / "ours")
    theirs, ours = (PartialData(manifest.digest(), [tmp_path / name]) for name in ("data", "ours"))
    loader = Loader(tmp_path / "ours", recipe)
    needed = loader.blocks(range(3), [0])
    assert sum(map(len, needed.values())) < sum(file.num_blocks for file in manifest.files.values()) / 2
    for file, block in ours.missing(needed):
        ours.put(file, block, theirs.block(file, block))
    (ours_read,) = loader.batches(range(3), [0], 3, 2)
    (theirs_read,) = Loader(tmp_path / "data", recipe).batches(range(3), [0], 3, 2)
    for one, two in zip(ours_read, theirs_read, strict=True):
        np.testing.assert_equal(one._asdict(), two._asdict())


def test_show_prints_a_row_with_what_is_trained_on_marked(tmp_path, capsys):
    recipe = recipe_over(CHATS, tmp_path)
    prepare(recipe, tmp_path / "run/data")
    (tmp_path / "test.json").write_text(json.dumps(recipe.shared()))
    where = [str(tmp_path / "test.json"), "--dir", str(tmp_path / "run")]
    assert cli.main(["prepare", *where, "--show", "2"]) == 0
    told = capsys.readouterr().out
    heads = [line for line in told.splitlines() if line.startswith("────")]
    assert any("of them trained on, between ⟦ and ⟧ ────" in head for head in heads)
    assert sum(int(head.split(" tokens")[0].split()[-1]) for head in heads) == 128
    assert "<|start_header_id|>assistant<|end_header_id|>\n\n⟦A" in told
    assert "<|eot_id|>⟧" in told and "⟦Q" not in told
    assert cli.main(["prepare", *where, "--check"]) == 0
    sizes = [line.split() for line in capsys.readouterr().out.splitlines() if "trained on" in line]
    assert [line[:2] for line in sizes[:2]] == [["s", "train"], ["s", "heldout"]]
    assert sum(int(line[line.index("rows") - 1]) for line in sizes[:2]) == 60
