"""The verbs about a trained model: `atoll export`, `generate`."""

import argparse
from pathlib import Path

from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import Verbs
from atoll.words import command


def add_to(verbs: Verbs) -> None:
    """Add this group's verbs."""
    added = verbs.add_with_run(export, "a checkpoint for transformers, with its card")
    added.add_argument("out", type=Path, help="a directory that is empty or does not exist")
    added = verbs.add(generate, "text from an exported model")
    added.add_argument("model", type=Path, help="a directory that `atoll export` made")
    added.add_argument("prompt")
    added.add_argument("--tokens", type=int, default=100)
    added.add_argument("--temperature", type=float, default=0.8)
    added.add_argument("--seed", type=int, default=0)


def export(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.publish.export import export as write
        from atoll.run.directory import RunDir

    out, saved = write(RunDir(options.run), options.out)
    print(f"state {saved.step}, root {saved.root.hex()[:12]}, is in {out}")
    print(f"next: {command('generate', out, 'Once upon a time')}")


def generate(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.publish.sample import sample

    print(sample(options.model, options.prompt, options.tokens, options.temperature, options.seed))
