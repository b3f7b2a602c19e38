"""`atoll generate`: text from an exported model, or from any checkpoint that `atoll` can read."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.given import read_text
from atoll.model import hf
from atoll.model.foreign import chat_tokens
from atoll.model.generate import Sampling, generate

Told = Callable[[str], None]
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a character is decoded to whose bytes have not all come
BEFORE = (
    4  # tokens of a prompt that a continuation is decoded after: some tokenizers drop a text's first space
)
Message = dict[str, str]  # role and content


class Writer:
    """A model and its tokenizer."""

    def __init__(self, directory: Path) -> None:
        """Raises UserError for a directory without a model, or without a tokenizer."""
        if not (directory / "config.json").is_file():
            raise UserError(
                f"{directory}: no exported model here; make one with `atoll export RUN {directory}`"
            )
        if not (directory / "tokenizer.json").is_file():
            raise UserError(
                f"{directory}: no tokenizer.json here; copy the tokenizer from where the model comes from"
            )
        self._directory = directory
        self._tokenizer = Tokenizer.load(directory / "tokenizer.json")
        self._model = hf.open_model(directory)
        self._ends = end_tokens(directory) or frozenset(self._tokenizer.eos_ids)

    def continued(
        self, prompts: Sequence[str], sampling: Sampling, tell: Told = lambda text: None
    ) -> list[str]:
        """The text that continues each prompt. `tell` is given that of the first one, as it comes.

        Raises UserError for a prompt that is longer than the model can read.
        """
        tokens = [[int(each) for each in ids] for ids in self._tokenizer.encode_documents(list(prompts))]
        return self._written(tokens, sampling, tell)

    def answer(self, messages: list[Message], sampling: Sampling, tell: Told) -> str:
        """What the model says next in a conversation; `tell` is given it as it comes.

        Raises UserError as `continued` does, and where the model has no chat template.
        """
        return self._written([chat_tokens(self._directory, messages)], sampling, tell)[0]

    def _written(self, prompts: list[list[int]], sampling: Sampling, tell: Told) -> list[str]:
        stream = _Stream(self._tokenizer, prompts[0], tell)
        found = generate(
            self._model,
            prompts,
            sampling,
            self._ends,
            lambda row, token: stream.add(token) if row == 0 else None,
        )
        stream.end()
        return [
            _text_after(self._tokenizer, prompt, tokens)
            for prompt, tokens in zip(prompts, found, strict=True)
        ]


def _text_after(tokenizer: Tokenizer, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    before = prompt[-BEFORE:]
    return tokenizer.decode([*before, *tokens])[len(tokenizer.decode(before)) :]


class _Stream:
    """Tells text token by token, and never a part of a character."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], tell: Told) -> None:
        self._tokenizer, self._prompt, self._tell = tokenizer, prompt, tell
        self._tokens: list[int] = []
        self._told = ""

    def add(self, token: int) -> None:
        self._tokens.append(token)
        text = self._text()
        if not text.endswith(UNFINISHED):
            self._show(text)

    def end(self) -> None:
        self._show(self._text())

    def _text(self) -> str:
        return _text_after(self._tokenizer, self._prompt, self._tokens)

    def _show(self, text: str) -> None:
        if len(text) > len(self._told):
            self._tell(text[len(self._told) :])
            self._told = text


def end_tokens(directory: Path) -> frozenset[int]:
    """The tokens at which a checkpoint's own generation stops; empty where its files name none.

    Raises UserError for files that cannot be read.
    """
    for name in ("generation_config.json", "config.json"):
        path = directory / name
        if not path.exists():
            continue
        try:
            given = json.loads(read_text(path)).get("eos_token_id")
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path}: not a JSON object; copy the checkpoint again") from error
        if given is not None:
            return frozenset([given] if isinstance(given, int) else given)
    return frozenset()


def prompts_in(path: Path) -> list[str]:
    """The prompts in a file: one a line, or, if its name ends in .jsonl, the `prompt` of each line.

    Raises UserError where there is none, or a line is no such object.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{path}: no prompt in it; write one on each line")
    if path.suffix != ".jsonl":
        return lines
    prompts: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            prompts.append(json.loads(line)["prompt"] + "")
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path}: prompt {number} is no JSON object with a text called prompt; correct that line"
            ) from error
    return prompts
