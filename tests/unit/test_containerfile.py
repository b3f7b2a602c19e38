"""The Containerfile: built where a builder answers (slow), and else held to what a builder would refuse."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = ("FROM", "ARG", "RUN", "COPY", "USER", "WORKDIR", "VOLUME", "STOPSIGNAL", "ENTRYPOINT", "CMD")


def instructions() -> list[tuple[str, str]]:
    """(instruction, its words) of each, continued lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Containerfile").read_text("utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def test_a_container_is_described_by_instructions_that_there_are() -> None:
    assert {name for name, _ in instructions()} <= set(INSTRUCTIONS)
    assert instructions()[0][0] == "FROM"


def test_what_a_container_copies_is_there_and_not_ignored() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name, words in instructions():
        if name == "COPY":
            *sources, _ = words.split()
            assert all((ROOT / source).exists() for source in sources)
            assert set(sources) <= set(kept)


def test_a_container_installs_an_extra_that_there_is_and_runs_as_nobody_in_particular() -> None:
    found = instructions()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = re.findall(r"/src\[(\w+)\]", " ".join(words for name, words in found if name == "RUN"))
    assert installed
    assert set(installed) <= extras.keys()
    assert [words for name, words in found if name == "USER"] == ["atoll"]
    assert [words for name, words in found if name == "ENTRYPOINT"] == ['["atoll"]']
    bases = [words for name, words in found if name == "FROM"]
    assert all(re.fullmatch(r"docker\.io/library/python:3\.\d+-slim", base) for base in bases)


@pytest.mark.slow
def test_a_container_is_built_and_says_its_version() -> None:
    for builder in ("podman", "docker"):
        if shutil.which(builder) and subprocess.run([builder, "info"], capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("no container builder answers here (podman, docker): the Containerfile was only linted")
    build = [builder, "build", "-q", "-f", "Containerfile", "-t", "atoll-test", "."]
    subprocess.run(build, cwd=ROOT, check=True, timeout=1800)
    said = subprocess.run(
        [builder, "run", "--rm", "atoll-test", "--version"], capture_output=True, text=True, timeout=120
    )
    assert said.stdout.startswith("atoll ")
