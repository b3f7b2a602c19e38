"""The verbs about a trained model: `atoll export`, `verify`, `generate`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import Verbs, within
from atoll.errors import UserError
from atoll.words import command, visible

if TYPE_CHECKING:
    from atoll.model.generate import Sampling
    from atoll.publish.verify import Verified
    from atoll.publish.writer import Writer

GIGABYTE = 1_000_000_000
MAX_TOKENS, MAX_BATCH, MAX_TEMPERATURE = 1_000_000, 1024, 100.0
MAX_SEED = (1 << 63) - 1  # torch takes no more
MIN_SHARD_GIGABYTES, MAX_SHARD_GIGABYTES = 0.001, 50.0  # the hub takes no larger file


def add_to(verbs: Verbs) -> None:
    """Add this group's verbs."""
    added = verbs.add_with_run(export, "a checkpoint for transformers, with its card and its proof")
    added.add_argument("out", type=Path, help="a directory that is empty or does not exist")
    added.add_argument("--step", type=int, help="of which state (default: the newest at hand)")
    added.add_argument(
        "--dtype", choices=("fp32", "bf16"), default="fp32", help="of the weights (default fp32)"
    )
    added.add_argument(
        "--shard-gigabytes", type=float, default=5.0, help="of one file of weights, at most (default 5)"
    )
    added.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="then upload it to the Hugging Face hub; an export of this run that is in OUT already is taken",
    )
    added.add_argument("--dry-run", action="store_true", help="with --push: only list what would be uploaded")
    text = "of a run that trains adapters: these alone, as peft loads them (default: merged into the model)"
    added.add_argument("--adapter", action="store_true", help=text)

    added = verbs.add(verify, "hold an export against its run's signed records")
    added.add_argument("model", type=Path, help="a directory that `atoll export` made")
    added.add_argument(
        "--certificate",
        type=Path,
        help="the run's certificate, coordinator/authority.pem of its host (default: the one in the export)",
    )

    added = verbs.add(generate, "text from an exported model")
    added.add_argument("model", type=Path, help="a directory that `atoll export` made")
    added.add_argument("prompt", nargs="?", help="what the text begins with")
    added.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="several, one a line (.jsonl: the `prompt` of each); answers are lines of JSON",
    )
    added.add_argument("--batch", type=int, default=8, help="how many of them at once (default 8)")
    added.add_argument("--chat", action="store_true", help="talk with it, by its chat template")
    added.add_argument("--tokens", type=int, default=100, help="of a text, at most (default 100)")
    added.add_argument("--temperature", type=float, default=0.8, help="0: the likeliest (default 0.8)")
    added.add_argument(
        "--top-p", type=float, default=0.95, help="only of the likeliest tokens, up to this (default 0.95)"
    )
    added.add_argument("--seed", type=int, default=0, help="equal seeds give equal texts (default 0)")


def export(options: argparse.Namespace) -> None:
    within("--shard-gigabytes", options.shard_gigabytes, MIN_SHARD_GIGABYTES, MAX_SHARD_GIGABYTES)
    if options.dry_run and not options.push:
        raise UserError("--dry-run: only with --push, which it keeps from uploading")
    if options.adapter:
        _export_adapter(options)
        return
    with nothing_to_clean_up():
        from atoll.publish.export import export as write
        from atoll.publish.hub import check_name, files_to_push, is_export_of, push
        from atoll.run.directory import RunDir
        from atoll.terminal.figures import human

    out: Path = options.out
    if options.push:
        check_name(options.push)
    if options.push and is_export_of(RunDir(options.run), out):
        print(f"{out} is an export of this run, and verified")
    else:
        done = write(
            RunDir(options.run),
            out,
            step=options.step,
            dtype=options.dtype,
            shard_bytes=int(options.shard_gigabytes * GIGABYTE),
            say=print,
        )
        state = done.state
        print(f"state {state.step}, root {state.root.hex()[:12]}, is in {out}")
        print(f"transformers computes our logits with it, to {done.logits_difference:.1g}")
        print(f"next: {command('generate', out, 'Once upon a time')}")
        print(f"anybody can hold it against the run's records: {command('verify', out)}")
    if options.push:
        files = files_to_push(out)
        for name, size in files if options.dry_run else ():
            print(f"{human(size)}B  {name}")
        total = f"{len(files)} files, {human(sum(size for _, size in files))}B"
        if options.dry_run:
            print(f"{total} would be uploaded to {options.push}; nothing was")
        else:
            print(f"{total} are uploaded to {push(out, options.push)}")


def _export_adapter(options: argparse.Namespace) -> None:
    if options.push or options.dtype != "fp32":
        raise UserError(
            "--adapter: adapters are written in fp32 and to a directory; leave --push and --dtype out"
        )
    with nothing_to_clean_up():
        from atoll.publish.adapter import export_adapter
        from atoll.run.directory import RunDir

    state = export_adapter(RunDir(options.run), options.out, options.step)
    print(f"the adapters of state {state.step}, root {state.root.hex()[:12]}, are in {options.out}")


def verify(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.publish.verify import verify as check

    certificate = None
    if options.certificate is not None:
        try:
            certificate = options.certificate.read_bytes()
        except OSError as error:
            raise UserError(f"{options.certificate}: cannot be read: {error.strerror}") from error
    print("\n".join(_told(check(options.model, certificate), certificate is not None)))


def _told(found: Verified, is_given: bool) -> list[str]:
    """What was proven of an export, in sentences."""
    how = ", each rounded to bf16" if found.is_rounded else ""
    lines = [
        f"run       {found.run_id}, state {found.step} of {found.num_outer_steps}",
        f"root      {found.root.hex()}",
        f"records   {found.step}, a chain, signed by {found.record_key.hex()[:16]}…",
        f"weights   {found.num_tensors} tensors: that state, to the last bit{how}",
        f"by        {len(found.tokens)} islands, {sum(found.tokens.values()):,} tokens",
    ]
    for island, tokens in sorted(found.tokens.items(), key=lambda each: (-each[1], each[0])):
        lines.append(f"          {island}  {tokens:,} tokens in {found.num_steps[island]} outer steps")
    lines += [f"unproven  {sentence}" for sentence in found.unproven]
    if not is_given:
        lines.append(
            f"This holds if the fingerprint of the run's certificate is {found.fingerprint.hex()}: ask the "
            "run's host, or give the certificate with --certificate."
        )
    return lines


def generate(options: argparse.Namespace) -> None:
    given = [options.prompt is not None, options.prompts is not None, options.chat]
    if sum(given) != 1:
        raise UserError("give one of the three: a prompt, --prompts FILE or --chat")
    within("--tokens", options.tokens, 1, MAX_TOKENS)
    within("--batch", options.batch, 1, MAX_BATCH)
    within("--temperature", options.temperature, 0, MAX_TEMPERATURE)
    within("--top-p", options.top_p, 0, 1)
    if not 0 <= options.seed <= MAX_SEED:
        raise UserError(f"--seed: must be from 0 to {MAX_SEED:,}")
    with nothing_to_clean_up():
        from atoll.model.generate import Sampling
        from atoll.publish.writer import Writer, prompts_in

    sampling = Sampling(
        max_tokens=options.tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
    )
    prompts = prompts_in(options.prompts) if options.prompts else []
    writer = Writer(options.model)
    if options.chat:
        _chat(writer, sampling)
    elif options.prompts:
        for start in range(0, len(prompts), options.batch):
            some = prompts[start : start + options.batch]
            for prompt, text in zip(some, writer.continued(some, sampling), strict=True):
                print(json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False), flush=True)
    else:
        _print(options.prompt)
        writer.continued([options.prompt], sampling, _print)
        print()


def _chat(writer: Writer, sampling: Sampling) -> None:
    """Ask and answer in the terminal until its input ends."""
    is_terminal = sys.stdin.isatty()
    messages: list[dict[str, str]] = []
    if is_terminal:
        print("Ctrl-D ends the conversation.")
    while True:
        if is_terminal:
            _print("> ")
        if not (line := sys.stdin.readline()):
            return
        if not line.strip():
            continue
        messages.append({"role": "user", "content": line.strip()})
        messages.append({"role": "assistant", "content": writer.answer(messages, sampling, _print)})
        print()


def _print(text: str) -> None:
    """Write a part of a text, at once. What a terminal would obey is shown as text."""
    print("\n".join(visible(line) for line in text.split("\n")), end="", flush=True)
