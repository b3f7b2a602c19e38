"""The demo from end to end, made short by its recipe, and its export in the hands of `transformers`."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from atoll import recipe as recipes
from atoll.data.loader import NO_LABEL, Loader
from atoll.events import Committed
from atoll.events.log import EventReader
from atoll.island.heldout import heldout_loss
from atoll.island.step import Island
from atoll.objective import build
from atoll.publish.export import load_model
from atoll.publish.states import committed_state
from atoll.run.directory import RunDir

SHORT = [
    "stage.0.until=96",
    "outer.inner_steps=4",
    "inner.tokens_per_step=1024",
    "inner.schedule.decay_steps=20",
]
FACTS = {
    "heldout_loss_before",
    "heldout_loss_after",
    "heldout_unigram_loss",
    "outer_steps",
    "tokens",
    "islands",
    "killed",
    "rejoined",
    "roots_equal",
    "bytes_sent",
    "reduction_factor",
    "export_dir",
    "seconds",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, "-m", "atoll", "demo", "--dir", str(directory), *SHORT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return directory


def test_the_summary_says_what_happened(demo: Path) -> None:
    facts = json.loads((demo / "summary.json").read_text())
    assert facts.keys() >= FACTS
    assert facts["outer_steps"] == 24
    assert facts["roots_equal"] is True
    assert facts["heldout_loss_after"] < facts["heldout_loss_before"] - 0.3
    assert facts["killed"]["island"] == facts["rejoined"]["island"] == "island-2"
    assert facts["killed"]["outer_step"] < facts["rejoined"]["outer_step"]
    assert facts["tokens"] == sum(facts["islands"].values())
    assert facts["reduction_factor"] > 1


def test_what_the_islands_measured_is_in_the_events_file(demo: Path) -> None:
    reader = EventReader(demo / "events.jsonl")
    commits = [event for event in reader.read() if isinstance(event, Committed)]
    assert not reader.complaint
    assert len(commits) == 24
    measured = [gave.metrics for commit in commits for gave in commit.participants.values()]
    for metrics in measured:
        assert metrics.loss and metrics.gradient_norm and metrics.learning_rate
        assert metrics.tokens_per_second > 0
        assert metrics.compute_seconds > 0
    curve = dict(json.loads((demo / "summary.json").read_text())["heldout_curve"])
    looks = [metrics.heldout_loss for metrics in measured if metrics.heldout_loss is not None]
    assert looks, "island-1 looks at every step"
    assert set(looks) <= set(curve.values())


def test_transformers_measures_the_same_heldout_loss(demo: Path) -> None:
    from transformers import AutoModelForCausalLM

    saved = committed_state(RunDir(demo))
    recipe = saved.recipe
    data = Loader(demo / "data", recipe)
    batches = list(islice(data.heldout(1, num_windows=6), 12))
    weights = {"books": 0.5, "python": 0.5}
    ours = heldout_loss(
        Island(
            load_model(recipe, data.manifest.vocab_size, saved),
            build(recipe, data.manifest.vocab_size),
            recipe,
        ),
        batches,
        weights,
    )

    model = AutoModelForCausalLM.from_pretrained(demo / "export").eval()
    sums = {name: [0.0, 0] for name in weights}  # loss and number of tokens
    for source, batch in batches:
        tokens, labels, documents = batch.tokens[0], batch.labels[0], batch.documents[0]
        for document in np.unique(documents):
            inside = documents == document
            with torch.no_grad():
                logits = model(torch.tensor(tokens[inside])[None], use_cache=False).logits[0]
            targets = torch.tensor(labels[inside])
            loss = torch.nn.functional.cross_entropy(logits, targets, ignore_index=NO_LABEL, reduction="sum")
            sums[source][0] += float(loss)
            sums[source][1] += int((targets != NO_LABEL).sum())
    theirs = sum(weights[name] * total / count for name, (total, count) in sums.items())
    assert abs(ours - theirs) < 1e-4


def test_the_export_has_a_chat_template_and_generates_text(demo: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo / "export")
    messages = [{"role": "user", "content": "Hello"}]
    chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert chat.count(tokenizer.bos_token_id) == 1
    atoll = [sys.executable, "-m", "atoll"]
    command = [*atoll, "generate", str(demo / "export"), "The captain", "--tokens", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("The captain")


def test_no_temporary_file_is_left_and_the_export_is_not_overwritten(demo: Path) -> None:
    assert not list(demo.rglob("*.tmp"))
    command = [sys.executable, "-m", "atoll", "export", str(demo), str(demo / "export")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "not empty" in done.stderr


def test_a_directory_of_another_recipe_is_refused_with_the_keys_that_differ(demo: Path) -> None:
    other = recipes.load("demo", ["seed=5", *SHORT[1:]])
    with pytest.raises(Exception, match=r"differ: seed, stage\.0\.until"):
        RunDir(demo).claim(other)
