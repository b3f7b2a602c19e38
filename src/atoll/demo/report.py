"""The end of a demo: the model measured and exported, and the facts of the run, for people and for
programs.
"""

import math
import time
from pathlib import Path
from typing import Any

import msgspec
import torch

from atoll.agent import checkpoint
from atoll.data.loader import Loader
from atoll.data.tokenizer import Tokenizer
from atoll.data.unigram import heldout_bytes_per_token, heldout_unigram_loss, heldout_weights
from atoll.demo.story import Story
from atoll.island.heldout import heldout_loss
from atoll.island.step import Island
from atoll.publish.export import export, load_model, newest_state
from atoll.recipe import Recipe
from atoll.run.directory import RunDir
from atoll.terminal import Terminal, duration, human
from atoll.train import HELDOUT_FILE

PROMPT = "The captain looked at the"
SAMPLE_TOKENS = 60
LOGIT_TOLERANCE = 1e-4
BARS = "▁▂▃▄▅▆▇█"


def summarise(
    run_dir: RunDir,
    recipe: Recipe,
    story: Story,
    names: dict[str, str],
    totals: dict[str, Any],
    started: float,
) -> dict[str, Any]:
    """Evaluate, export, compare with `transformers`, and collect the facts."""
    data = Loader(run_dir.data, recipe)
    mixture = recipe.mixture(-1)
    weights = heldout_weights(data.manifest, mixture)
    out, saved = export(run_dir, run_dir.path / "export")

    def measure(state: checkpoint.OuterCheckpoint) -> float:
        island = Island(load_model(recipe, data.manifest.vocab_size, state), recipe)
        return heldout_loss(island, data.heldout(recipe.island.micro_batch), weights)

    after = measure(saved)
    by_island = {names.get(island, island): count for island, count in newest_state(run_dir)[2].items()}
    parameters = sum(tensor.num_elements for tensor in saved.layout.tensors)
    ring = sum(2 * (len(c.facts["participants"]) - 1) * 4 * parameters for c in story.commits)
    sent = totals.pop("sent_bytes")
    logits, sample = compare(out, run_dir)
    return {
        "heldout_loss_before": measure(run_dir.state_0()),
        "heldout_loss_after": after,
        "heldout_unigram_loss": heldout_unigram_loss(run_dir.data, mixture),
        "heldout_bits_per_byte": after / math.log(2) / heldout_bytes_per_token(data.manifest, mixture),
        "heldout_curve": curve(run_dir.islands / "island-1" / HELDOUT_FILE),
        "outer_steps": len(story.commits),
        "tokens": sum(commit.facts["tokens"] for commit in story.commits),
        "islands": by_island,
        "killed": _moment(story, names, story.noticed, story.killed_at),
        "rejoined": _moment(story, names, story.rejoined, story.restarted_at),
        "recovered_seconds": story.recovered.time - story.restarted_at if story.recovered else None,
        "survived_seconds": story.survived.time - story.killed_at if story.survived else None,
        "roots_equal": story.roots_equal,
        "parameters": parameters,
        "bytes_sent": sent,
        "reduction_factor": ring * recipe.outer.inner_steps / sent if sent else None,
        **totals,
        "logits_difference": logits,
        "sample": sample,
        "export_dir": str(out),
        "seconds": time.time() - started,
    }


def compare(out: Path, run_dir: RunDir) -> tuple[float, str]:
    """(largest difference between our logits and those of `transformers`, a sample from its pipeline).

    Raises RuntimeError when they differ by more than LOGIT_TOLERANCE.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
    from transformers.utils import logging

    from atoll.model import hf
    from atoll.model.attention import Mask

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    ours = hf.open_model(out)
    theirs = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = Tokenizer.load(run_dir.data / "tokenizer")
    tokens = torch.from_numpy(tokenizer.encode_documents([PROMPT])[0].astype("int64"))[None]
    with torch.no_grad():
        mine = ours(tokens, Mask.causal(*tokens.shape)) @ ours.head_weight.T
        difference = float((mine - theirs(tokens).logits).abs().max())
    if difference > LOGIT_TOLERANCE:
        raise RuntimeError(
            f"our logits and those of transformers differ by {difference}: the export is wrong"
        )
    torch.manual_seed(0)
    generator = pipeline("text-generation", model=theirs, tokenizer=AutoTokenizer.from_pretrained(out))
    text = generator(PROMPT, max_new_tokens=SAMPLE_TOKENS, do_sample=True, temperature=0.8)[0][
        "generated_text"
    ]
    return difference, text


def curve(path: Path) -> list[list[float]]:
    """[outer step, held-out loss] as one island saw it on its way."""
    if not path.exists():
        return []
    rows = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    return [[row["step"], row["loss"]] for row in rows]


def show(summary: dict[str, Any], terminal: Terminal) -> None:
    """The summary, for people."""
    say = terminal.tell
    before, after, unigram = (summary[f"heldout_{k}"] for k in ("loss_before", "loss_after", "unigram_loss"))
    say("")
    say(
        f"held-out loss   {before:.3f} -> {after:.3f} nats per token "
        f"({summary['heldout_bits_per_byte']:.2f} bits per "
        f"byte); guessing by frequency: {unigram:.3f}"
    )
    if losses := [loss for _, loss in summary["heldout_curve"]]:
        say(f"  on its way    {spark(losses)}  {losses[0]:.2f} .. {losses[-1]:.2f}")
    say(
        f"outer steps     {summary['outer_steps']}, {human(summary['tokens'])} tokens: "
        + ", ".join(f"{name} {human(count)}" for name, count in sorted(summary["islands"].items()))
    )
    if summary["killed"] and summary["rejoined"]:
        killed, back = summary["killed"], summary["rejoined"]
        say(
            f"death           {killed['island']} at outer step {killed['outer_step']}, noticed after "
            f"{duration(killed['seconds'])}; the others committed without it "
            f"{duration(summary['survived_seconds'])} "
            "after its death"
        )
        say(
            f"return          at the head again {duration(summary['recovered_seconds'])} after its "
            "start, in the commit of "
            f"outer step {back['outer_step']} after {duration(back['seconds'])}"
        )
    say(f"equal bits      {'yes, at every step, agents and trainers' if summary['roots_equal'] else 'NO'}")
    say(
        f"sent            {human(summary['bytes_sent'])}B in all, {summary['reduction_factor']:.0f} "
        "times less than "
        "data-parallel training would"
    )
    parts = [summary[f"{k}_seconds"] for k in ("compute", "communicate", "wait")]
    total = sum(parts) or 1.0
    say(
        "islands' time   "
        + ", ".join(
            f"{100 * p / total:.0f} % {name}"
            for p, name in zip(parts, ("computing", "communicating", "waiting"), strict=True)
        )
    )
    say(f"sample          {summary['sample']!r}")
    say(f"took            {duration(summary['seconds'])}")
    say(f"\nnext: atoll generate {summary['export_dir']} 'Once upon a time'    (then README, by hand)")


def spark(values: list[float]) -> str:
    """A curve in one line."""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)


def _moment(story: Story, names: dict[str, str], event: Any, since: float) -> dict[str, Any] | None:
    if event is None:
        return None
    return {
        "island": names.get(story.watched, story.watched),
        "outer_step": event.step,
        "seconds": event.time - since,
    }
