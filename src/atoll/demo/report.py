"""The end of a demo: the model is measured, exported and compared, and the run's facts are collected."""

import math
import time
from pathlib import Path

import msgspec
import torch

from atoll.agent import checkpoint
from atoll.data.loader import Loader
from atoll.data.unigram import heldout_bytes_per_token, heldout_unigram_loss, heldout_weights
from atoll.demo.story import Story
from atoll.demo.summary import Moment, Spent, Summary
from atoll.events import Event
from atoll.island.heldout import heldout_loss
from atoll.island.step import Island
from atoll.objective import build
from atoll.publish.export import export, load_model
from atoll.publish.states import CommittedState
from atoll.recipe import Recipe
from atoll.run.directory import RunDir
from atoll.terminal import Terminal, duration, human, spark
from atoll.train import HELDOUT_FILE
from atoll.words import command

PROMPT = "The captain looked at the"
SAMPLE_TOKENS = 60


def summarise(
    run_dir: RunDir,
    recipe: Recipe,
    story: Story,
    names: dict[str, str],
    spent: Spent,
    ledger: dict[str, dict[str, int]],
    started: float,
) -> Summary:
    """Evaluate, export, compare with `transformers`, and collect the facts.

    `names`: of islands, by id; `started`: when the demo began, in seconds since the epoch.
    """
    data = Loader(run_dir.data, recipe)
    mixture = recipe.mixture(-1)
    weights = heldout_weights(data.manifest, mixture)
    exported = export(run_dir, run_dir.path / "export")
    state = exported.state

    def measure(state: CommittedState | checkpoint.OuterCheckpoint) -> float:
        vocab_size = data.manifest.vocab_size
        island = Island(load_model(recipe, vocab_size, state), build(recipe, vocab_size), recipe)
        return heldout_loss(island, data.heldout(recipe.island.micro_batch), weights)

    after = measure(state)
    by_island = {names.get(island, island): count for island, count in state.tokens.items()}
    parameters = sum(tensor.num_elements for tensor in state.layout.tensors)
    # Data-parallel training would all-reduce fp32 gradients, in a ring, at every inner step.
    ring_bytes = sum(2 * (len(c.participants) - 1) * 4 * parameters for c in story.commits)
    in_parallel_bytes = ring_bytes * recipe.outer.inner_steps
    return Summary(
        heldout_loss_before=measure(run_dir.state_0()),
        heldout_loss_after=after,
        heldout_unigram_loss=heldout_unigram_loss(run_dir.data, mixture),
        heldout_bits_per_byte=after / math.log(2) / heldout_bytes_per_token(data.manifest, mixture),
        heldout_curve=curve(run_dir.islands / "island-1" / HELDOUT_FILE),
        outer_steps=len(story.commits),
        tokens=sum(commit.tokens for commit in story.commits),
        islands=by_island,
        killed=_moment(story, names, story.noticed, story.killed_at),
        rejoined=_moment(story, names, story.rejoined, story.restarted_at),
        survived_seconds=story.survived.time - story.killed_at if story.survived else None,
        recovered_seconds=story.recovered.time - story.restarted_at if story.recovered else None,
        roots_equal=story.roots_equal,
        parameters=parameters,
        bytes_sent=spent.sent_bytes,
        reduction_factor=in_parallel_bytes / spent.sent_bytes if spent.sent_bytes else None,
        compute_seconds=spent.compute_seconds,
        communicate_seconds=spent.communicate_seconds,
        wait_seconds=spent.wait_seconds,
        ledger=ledger,
        logits_difference=exported.logits_difference,
        sample=sample(exported.directory),
        export_dir=str(exported.directory),
        seconds=time.time() - started,
    )


def sample(out: Path) -> str:
    """Text from the pipeline of `transformers` with the export."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(out)
    torch.manual_seed(0)
    generator = pipeline("text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained(out))
    told = generator(PROMPT, max_new_tokens=SAMPLE_TOKENS, do_sample=True, temperature=0.8)
    return told[0]["generated_text"]


def curve(path: Path) -> tuple[tuple[int, float], ...]:
    """(outer step, held-out loss) as one island saw it on its way; empty if it never looked."""
    if not path.exists():
        return ()
    rows = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    return tuple((row["step"], row["loss"]) for row in rows)


def show(summary: Summary, terminal: Terminal) -> None:
    """The summary, for people."""
    say, s = terminal.tell, summary
    say("")
    say(
        f"held-out loss   {s.heldout_loss_before:.3f} -> {s.heldout_loss_after:.3f} nats per token "
        f"({s.heldout_bits_per_byte:.2f} bits per byte); guessing by frequency: {s.heldout_unigram_loss:.3f}"
    )
    if losses := [loss for _, loss in s.heldout_curve]:
        say(f"  on its way    {spark(losses)}  {losses[0]:.2f} .. {losses[-1]:.2f}")
    say(
        f"outer steps     {s.outer_steps}, {human(s.tokens)} tokens: "
        + ", ".join(f"{name} {human(count)}" for name, count in sorted(s.islands.items()))
    )
    if s.killed and s.rejoined and s.survived_seconds is not None and s.recovered_seconds is not None:
        say(
            f"death           {s.killed.island} at outer step {s.killed.outer_step}, noticed after "
            f"{duration(s.killed.seconds)}; the others committed without it "
            f"{duration(s.survived_seconds)} after its death"
        )
        say(
            f"return          at the head again {duration(s.recovered_seconds)} after its start, in the "
            f"commit of outer step {s.rejoined.outer_step} after {duration(s.rejoined.seconds)}"
        )
    say(f"equal bits      {'yes, at every step, agents and trainers' if s.roots_equal else 'NO'}")
    less = (
        f", {s.reduction_factor:.0f} times less than data-parallel training would"
        if s.reduction_factor
        else ""
    )
    say(f"sent            {human(s.bytes_sent)}B in all{less}")
    parts = {
        "computing": s.compute_seconds,
        "communicating": s.communicate_seconds,
        "waiting": s.wait_seconds,
    }
    total = sum(parts.values()) or 1.0
    shares = (f"{100 * seconds / total:.0f} % {name}" for name, seconds in parts.items())
    say(f"islands' time   {', '.join(shares)}")
    say(f"sample          {s.sample!r}")
    say(f"took            {duration(s.seconds)}")
    say(f"\nnext: {command('generate', s.export_dir, 'Once upon a time')}")
    say("and then, from the README: the same by hand")


def _moment(story: Story, names: dict[str, str], event: Event | None, since: float) -> Moment | None:
    if event is None:
        return None
    island = names.get(story.watched, story.watched)
    return Moment(island=island, outer_step=event.step, seconds=event.time - since)
