"""What people give on a command line: recipes as editors save them, names that are not UTF-8, and homes."""

import errno
import os
import subprocess

import pytest

from atoll import cli, recipe
from atoll.errors import UserError
from atoll.given import expanded, named, refusal
from atoll.words import command

RECIPE = """
name = "test"
model.preset = "demo"
tokenizer.train = 270
sources.s = { text = "a.txt" }
stage = [{ until = 4, mixture = { s = 1 } }]
inner = { context_length = 16, tokens_per_step = 32 }
outer.inner_steps = 2
"""
ODD = os.fsdecode(b"caf\xe9")


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "r.toml").write_text("\ufeff" + RECIPE, "utf-8")
    loaded = recipe.load(tmp_path / "r.toml")
    (tmp_path / "plain.toml").write_text(RECIPE, "utf-8")
    assert loaded.digest() == recipe.load(tmp_path / "plain.toml").digest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (RECIPE.encode("utf-16"), "r.toml: UTF-16, as its byte-order mark says; save it as UTF-8"),
        (RECIPE.encode("utf-32"), "r.toml: UTF-32, as its byte-order mark says; save it as UTF-8"),
        (b"name = 'caf\xe9'", "r.toml: not UTF-8 at byte 11; save it as UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\n", "r.toml: a Git LFS pointer"),
    ],
)
def test_a_recipe_that_is_no_utf_8_says_what_it_is(tmp_path, content, message):
    (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(UserError, match=message):
        recipe.load(tmp_path / "r.toml")


def test_an_override_that_is_no_utf_8_is_refused(tmp_path, capsys):
    assert cli.main(["prepare", "demo", f"sources.s.text={ODD}", "--dir", str(tmp_path / "run")]) == 2
    assert r"sources.s.text=caf\xe9: not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["plain", "two words", "it's", "$HOME", "größe", "a\nb", ODD, "\\'\x1b"])
def test_a_command_is_what_a_shell_takes(word):
    text = command(word)
    assert text.isprintable()
    script = f'atoll() {{ printf %s "$1"; }}; {text}'
    assert subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE).stdout == os.fsencode(word)


def test_a_home_is_found_or_refused(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert str(expanded("~/x")) == "/home/ada/x"
    with pytest.raises(UserError, match="no such home directory"):
        expanded("~nobody-of-that-name/x")


def test_a_name_that_is_no_utf_8_can_be_shown():
    assert named(ODD) == r"caf\xe9"
    assert named("größe") == "größe"


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EACCES, "caf\\xe9: this user may not use it"),
        (errno.ENAMETOOLONG, "caf\\xe9: this name is too long"),
        (errno.ELOOP, "caf\\xe9: a part of this path is a link that leads to itself"),
    ],
)
def test_what_the_system_refuses_for_its_path_is_said_of_the_path(number, told):
    assert str(refusal(OSError(number, "", ODD))).startswith(told)


def test_what_is_not_for_a_path_is_no_refusal():
    assert refusal(OSError(errno.EIO, "", "x")) is None
    assert refusal(OSError(errno.EACCES, "")) is None


@pytest.mark.parametrize("verb", ["prepare", "host", "status", "train"])
def test_a_name_that_is_too_long_is_said_to_be_and_no_other_directory_is_advised(verb, capsys):
    assert cli.main([verb, "x" * 5000]) == 2
    assert "this name is too long for the file system; give another\n" in capsys.readouterr().err
