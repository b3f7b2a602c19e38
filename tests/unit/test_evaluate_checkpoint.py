"""A checkpoint before it is loaded: what is refused, what its digest covers, and whether it chats."""

import json
from pathlib import Path

import pytest

from atoll.errors import UserError
from atoll.evaluate.checkpoint import Files


def checkpoint(directory: Path, **files: str) -> Path:
    """A directory that looks like a checkpoint; `files` by name, with `__` for a dot."""
    directory.mkdir()
    texts = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "{}"}
    texts |= {name.replace("__", "."): text for name, text in files.items()}
    for name, text in texts.items():
        (directory / name).write_text(text)
    return directory


def test_a_directory_without_a_config_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint here: there is no config\.json"):
        Files(tmp_path)


def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path):
    model = checkpoint(tmp_path / "model")
    (model / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer here"):
        Files(model)


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    model = checkpoint(tmp_path / "model")
    (model / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights here"):
        Files(model)


def test_an_adapter_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match="merge it into its model"):
        Files(checkpoint(tmp_path / "model", adapter_config__json="{}"))


def test_a_pointer_in_the_place_of_weights_is_refused(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1"
    with pytest.raises(UserError, match="Git LFS"):
        Files(checkpoint(tmp_path / "model", model__safetensors=pointer))


def test_the_digest_changes_with_weights_and_tokenizer_and_not_with_the_card(tmp_path):
    model = checkpoint(tmp_path / "model")
    before = Files(model).digest()
    (model / "README.md").write_text("# A model")
    assert Files(model).digest() == before
    for name in ("model.safetensors", "tokenizer.json", "generation_config.json"):
        (model / name).write_text("changed")
        assert Files(model).digest() != before
        before = Files(model).digest()


def test_an_export_says_of_which_state_of_its_run_it_is(tmp_path):
    facts = {"run_id": "reef-1", "step": 4, "root": "ab", "tokens": 9000, "more": [1]}
    found = Files(checkpoint(tmp_path / "model", facts__json=json.dumps(facts)), "reef").described()
    assert (found.name, found.run_id, found.step, found.root, found.tokens) == (
        "reef",
        "reef-1",
        4,
        "ab",
        9000,
    )
    assert found.digest == Files(checkpoint(tmp_path / "other")).digest()


@pytest.mark.parametrize("facts", ["{}", "[]", "no JSON"])
def test_facts_of_somebody_else_say_nothing(tmp_path, facts):
    found = Files(checkpoint(tmp_path / "model", facts__json=facts)).described()
    assert (found.step, found.root, found.tokens, found.run_id) == (None, "", None, "")


TEMPLATE = {"chat_template__jinja": "{{ messages }}"}


@pytest.mark.parametrize("run_chats", [True, False])
def test_a_state_of_a_run_chats_if_the_run_trains_on_conversations(tmp_path, run_chats):
    found = Files(checkpoint(tmp_path / "base", **TEMPLATE), "reef", run_chats).chats()
    assert found == (run_chats, f"its run {'trains' if run_chats else 'does not train'} on conversations")


@pytest.mark.parametrize(
    ("name", "files", "chats", "reason"),
    [
        ("instruct", {}, False, "no chat template"),
        ("base", TEMPLATE, False, "neither its card nor its name"),
        ("some-7b-instruct", TEMPLATE, True, "its name"),
        ("instructive", TEMPLATE, False, "neither"),
        ("base", {**TEMPLATE, "README__md": "---\ntags: [conversational, nlp]\n---\n"}, True, "the tag"),
        (
            "base",
            {**TEMPLATE, "README__md": "---\ntags:\n- a\n- chat\nlicense: mit\n---\n"},
            True,
            "tag chat",
        ),
        ("base", {**TEMPLATE, "README__md": "---\nbase_model: x/y\n---\n"}, True, "base_model"),
        ("my-chat", {**TEMPLATE, "README__md": "---\ntags: [atoll]\n---\n"}, False, "conversational"),
        ("base", {**TEMPLATE, "README__md": "# tags: [chat]\n"}, False, "neither"),
        ("some-chat", {"tokenizer_config__json": json.dumps({"chat_template": "x"})}, True, "its name"),
    ],
)
def test_a_checkpoint_says_whether_it_chats_and_by_which_sign(tmp_path, name, files, chats, reason):
    told = Files(checkpoint(tmp_path / name, **files)).chats()
    assert told[0] is chats
    assert reason in told[1]
