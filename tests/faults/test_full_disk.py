"""A disk that is full: one sentence, nothing half-written, and the run goes on when there is room."""

import os
import subprocess
import sys

import pytest

RECIPE = """
name = "small"
tokenizer.train = 290
model.preset = "demo"
model.hidden_size = 32
model.intermediate_size = 64
model.num_attention_heads = 2
model.vocab_size = 512
sources.s = { text = "package:books", separator = "\\f" }
stage = [{ until = 6, mixture = { s = 1 } }]
inner = { context_length = 32, tokens_per_step = 64 }
outer.inner_steps = 2
island.threads = 1
"""


@pytest.fixture
def small_disk(tmp_path):
    """Makes a directory a file system of so many kilobytes, or changes its size."""
    if os.geteuid():
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def resize(kilobytes: int):
        nonlocal mounted
        how = ["-o", f"{'remount,' if mounted else ''}size={kilobytes}k"]
        subprocess.run(["mount", "-t", "tmpfs", *how, "tmpfs", place], check=True)
        mounted = True
        return place

    yield resize
    subprocess.run(["umount", "-l", place], check=False)


def train(tmp_path, place) -> subprocess.CompletedProcess[str]:
    (tmp_path / "small.toml").write_text(RECIPE)
    arguments = ["train", str(tmp_path / "small.toml"), "--dir", str(place / "run")]
    return subprocess.run(
        [sys.executable, "-m", "atoll", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


ONE, OTHERS = 4600, (3000, 3800, 5000, 6000)  # kilobytes


@pytest.mark.parametrize(
    "sizes", [(ONE,), pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["one", "others"]
)
def test_a_run_stops_with_a_sentence_and_goes_on_when_there_is_room(tmp_path, small_disk, sizes) -> None:
    """Each size is met by another writer: of state 0, the outer state, an update, inner checkpoints."""
    for kilobytes in sizes:
        place = small_disk(kilobytes)
        done = train(tmp_path, place)
        assert done.returncode == 2, (kilobytes, done)
        assert "Traceback" not in done.stderr + done.stdout
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("atoll: "), (kilobytes, last)
        assert "no space left on the disk" in last or "disk is full" in last, (kilobytes, last)
        assert not list(place.rglob(".*.tmp")), "nothing half-written is left"
    done = train(tmp_path, small_disk(20_000))
    assert done.returncode == 0 and "finished at outer step 3" in done.stdout, done
