"""Every command that the README and docs/ tell people to type: the parser reads it, and a test runs it.

A command of atoll must be one that the parser takes, and its verb be run by the test that is named for it.
Whatever else is typed must exist, or stand here with the reason why no test can run it. Pages that tell of
the past, docs/LOG.md and the decisions, are left out.
"""

import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from atoll import cli
from atoll.cli.verbs import parse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page.name != "LOG.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(
    r"`((?:atoll|torchrun|pip install|make|python (?:bench|docs|examples)/)[^`]*)`", re.DOTALL
)
CUT = ("…", "...")  # of a command of which only a part is told

# By verb: the test that runs it as a user does, by the command line.
RUN_BY = {
    "demo": "faults/test_demo.py",
    "host": "faults/processes.py",
    "join": "faults/processes.py",
    "leave": "faults/test_left_alone.py",
    "doctor": "faults/test_left_alone.py",
    "metrics": "unit/test_sinks.py",
    "train": "unit/test_cli.py",
    "status": "networks/swarm.py",
    "invite": "unit/test_commands.py",
    "evict": "unit/test_commands.py",
    "dashboard": "unit/test_commands.py",
    "prepare": "unit/test_cli.py",
    "export": "unit/test_commands.py",
    "verify": "unit/test_commands.py",
    "generate": "unit/test_commands.py",
    "evaluate": "unit/test_commands.py",
    "simulate": "unit/test_outlook.py",
    "capture": "unit/test_commands.py",
    "merge": "unit/test_commands.py",
    "evolve": "unit/test_commands.py",
    "pipeline": "unit/test_commands.py",
}
# What is no command of ours, and why no test runs it.
REASONS = {
    "source": "changes the shell that reads it",
    "uvx": "downloads atoll from a registry",
    "podman": "needs a builder; test_containerfile.py lints the file, and builds it where one answers",
    "docker": "needs a builder; test_containerfile.py lints the file, and builds it where one answers",
    "ufw": "changes the firewall of the machine",
    "firewall-cmd": "changes the firewall of the machine",
    "sysctl": "changes the kernel of the machine; tests/networks runs atoll with what it chooses",
    "rsync": "copies to another machine",
    "tmux": "needs a person at the terminal",
    "systemctl": "changes the services of the machine; systemd-analyze reads our units (test_background.py)",
    "loginctl": "changes the machine's users",
    "journalctl": "reads the journal of a machine with systemd",
    "sqlite3": "is no part of atoll; backups are restored by tests/worlds/test_rewind.py",
    "torchrun": "is run with two ranks by tests/unit/test_island_ranks.py, as a process each",
    "curl": "asks a server of the reader's",
    "vllm": "serves on a GPU",
    "llama-server": "is no part of atoll",
    "huggingface-cli": "needs the hub",
    "hf": "needs the hub",
    "nice": "is the system's",
}
# Of Python: what is no program of this repository.
OTHERS = {
    'python -c "from transformers': "one line of two; tests/faults/test_demo.py loads exports so",
    "python llama.cpp/": "another project's program",
}


class Command(NamedTuple):
    """One command, and where it stands."""

    page: str
    text: str
    whole: bool  # it stands in a block, to be copied; else a sentence mentions it, or a part of it

    @property
    def words(self) -> list[str]:
        """As a shell splits it, without assignments before it and without what follows a pipe."""
        lexer = shlex.shlex(self.text, posix=True, punctuation_chars="|;&<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words = list(lexer)
        end = next(
            (at for at, word in enumerate(words) if word in ("|", ";", "&&", ">", "<", "&")), len(words)
        )
        words = words[:end]
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        return words


def commands() -> list[Command]:
    found: list[Command] = []
    for page in PAGES:
        text, name = page.read_text("utf-8"), page.relative_to(ROOT).as_posix()
        known = {"atoll", "pip", "make", "python", *REASONS}
        for language, block in FENCE.findall(text):
            if language in ("", "bash", "sh", "console"):
                lines = re.sub(r"\\\n\s*", "", block).splitlines()
                starts = (line.strip() for line in lines if line.split(" ")[0] in known)
                found += [Command(name, line, True) for line in starts]
        for inline in INLINE.findall(FENCE.sub("", text)):
            found.append(Command(name, " ".join(inline.split()), False))
    return list(dict.fromkeys(found))


COMMANDS = commands()
VERBS = next(action for action in cli.parser()._actions if action.choices).choices
OPTIONS = {verb: frozenset(added._option_string_actions) for verb, added in VERBS.items()}


def of_program(*names: str) -> list[Command]:
    return [command for command in COMMANDS if command.text.split()[0] in names]


def named(command: Command) -> str:
    return f"{command.page}: {command.text}"


def test_there_are_commands_on_many_pages() -> None:
    assert len(COMMANDS) > 100
    assert len({command.page for command in COMMANDS}) > 12


def atoll_words(command: Command) -> list[str]:
    """The words of a command of atoll after its name, as far as all of them are told."""
    words = [word for word in command.words if not any(cut in word for cut in CUT)]
    return [word.strip("[]") for word in words[1:]]


@pytest.mark.parametrize("command", of_program("atoll"), ids=named)
def test_a_command_of_atoll_is_one_that_the_parser_takes(command, capsys) -> None:
    words = atoll_words(command)
    if not words or words[0].isupper() or words[0].startswith("--"):  # `atoll`, `atoll VERB --help`
        return
    assert words[0] in RUN_BY, "no test is named for this verb"
    if not command.whole or any(cut in command.text for cut in CUT):
        known = OPTIONS.get(words[0], frozenset())
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known
        return
    try:
        parse(cli.parser(), words)
    except SystemExit as end:
        assert end.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("verb", RUN_BY)
def test_the_test_that_is_named_for_a_verb_runs_it(verb) -> None:
    there = (ROOT / "tests" / RUN_BY[verb]).read_text("utf-8")
    assert re.search(rf"[\"']{verb}[\"']", there)


@pytest.mark.parametrize("command", of_program("python", "make", "pip"), ids=named)
def test_what_else_is_typed_exists(command) -> None:
    if command.text.startswith(tuple(OTHERS)):
        return
    program, *words = command.words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert set(words) <= set(targets)
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        for word in words:
            if match := re.fullmatch(r"(?:atoll|\.|/src)\[([\w,]+)\]", word):
                assert set(match[1].split(",")) <= project["optional-dependencies"].keys()
    elif words[0] not in ("-c", "-m"):
        assert (ROOT / words[0]).is_file()
        source = (ROOT / words[0]).read_text("utf-8")
        shared = "".join(path.read_text("utf-8") for path in (ROOT / "bench" / "harness").glob("*.py"))
        options = [word.split("=")[0] for word in words if word.startswith("--") and word != "--help"]
        assert not [option for option in options if f'"{option}"' not in source + shared]


@pytest.mark.parametrize("command", of_program(*REASONS), ids=named)
def test_what_no_test_runs_has_its_reason(command) -> None:
    assert REASONS[command.text.split()[0]]
    if command.words[0] == "torchrun":
        words = command.words[command.words.index("atoll") + 1 :]
        parse(cli.parser(), words)


@pytest.mark.parametrize("verb", [v for v, path in RUN_BY.items() if path == "unit/test_commands.py"])
def test_a_verb_says_what_is_wrong_where_there_is_nothing(verb, capsys, tmp_path, monkeypatch) -> None:
    """Verbs that only long tests can run to their end begin here, and say in a sentence what is missing."""
    if verb not in VERBS:
        pytest.skip(f"this atoll has no verb {verb} yet")
    monkeypatch.chdir(tmp_path)
    given = {
        "generate": ["no-model", "prompt"],
        "evict": ["no-run", "island"],
        "export": ["no-run", "out"],
        "merge": ["linear", "no-model", "no-other", "--out", "out"],
        "evolve": ["no-seeds", "model=m", "server=http://localhost:1/v1", "--out", "out"],
    }
    status = cli.main([verb, *given.get(verb, ["nothing-here"])])
    said = capsys.readouterr().err
    assert status == 2
    assert said.startswith("atoll: ")
