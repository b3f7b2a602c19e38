"""A checkpoint directory of `transformers` as it is before it is loaded: its digest, and whether it chats."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from atoll.errors import UserError
from atoll.evaluate.results import Checkpoint
from atoll.files import digest_file
from atoll.given import named, read_text, refuse_pointer

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "*.tiktoken")
CONFIGS = ("config.json", "generation_config.json", "*.index.json")
TOKENIZER_CONFIGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.*",
)
ADAPTER = "adapter_config.json"
FACTS = "facts.json"  # of an export: about its run
CHAT_NAME = re.compile(r"(?:^|[-_.])(?:instruct|chat|it|sft|dpo)(?:$|[-_.])", re.IGNORECASE)
CHAT_TAGS = {"conversational", "chat", "instruct"}
OUR_TAG = "atoll"


class _Facts(msgspec.Struct):
    """What an export says of its run, as far as it is needed here."""

    run_id: str
    step: int
    root: str
    tokens: int


class Files:
    """The files of a checkpoint directory."""

    def __init__(self, directory: Path, name: str = "", run_chats: bool | None = None) -> None:
        """`name`: what people call it, if it is not the directory's path.

        `run_chats`: whether the run that it is a state of trains on conversations; None: it is no such state.

        Raises UserError where the directory is no checkpoint, has no tokenizer, or holds pointers of Git LFS.
        """
        self.directory, self.name = directory.absolute(), name or named(directory)
        self._run_chats = run_chats
        if not directory.is_dir():
            raise UserError(
                f"{named(directory)}: no such directory; name a checkpoint that transformers loads"
            )
        if (directory / ADAPTER).is_file():
            raise UserError(
                f"{named(directory)}: only the adapter of a checkpoint (LoRA); merge it into its model first"
            )
        if not (directory / "config.json").is_file():
            raise UserError(
                f"{named(directory)}: no checkpoint here: there is no config.json; name a directory that "
                "transformers loads, as `atoll export` writes it"
            )
        weights = _matching(directory, WEIGHTS)
        if not weights:
            raise UserError(f"{named(directory)}: no weights here ({' or '.join(WEIGHTS)})")
        if not _matching(directory, TOKENIZERS):
            raise UserError(
                f"{named(directory)}: no tokenizer here (tokenizer.json or tokenizer.model); copy it from "
                "where the checkpoint comes from"
            )
        for path in weights:
            refuse_pointer(path)
        self._all = _matching(directory, WEIGHTS + TOKENIZERS + CONFIGS + TOKENIZER_CONFIGS)

    def digest(self) -> str:
        """BLAKE3, in hex, over names and bytes of all files that decide what the model answers."""
        lines = (f"{path.name} {digest_file(path)}\n" for path in self._all)
        return blake3("".join(lines).encode()).hexdigest()

    def described(self) -> Checkpoint:
        """What it is; an export of a run says of which state."""
        facts = _facts(self.directory / FACTS)
        return Checkpoint(
            name=self.name,
            digest=self.digest(),
            step=facts.step if facts else None,
            root=facts.root if facts else "",
            tokens=facts.tokens if facts else None,
            run_id=facts.run_id if facts else "",
        )

    def has_chat_template(self) -> bool:
        """Whether its tokenizer can put a conversation into words."""
        if list(self.directory.glob("chat_template*")):
            return True
        return bool(_json(self.directory / "tokenizer_config.json").get("chat_template"))

    def chats(self) -> tuple[bool, str]:
        """(whether the model was trained to answer in a conversation, the sign of it, for people).

        A template alone is no sign, since tokenizers of base models come with one too. Our own cards say
        what a model is; other models show it by the tags of their card, by `base_model` in it, or by name.
        """
        if not self.has_chat_template():
            return False, "its tokenizer has no chat template"
        if self._run_chats is not None:
            return (
                self._run_chats,
                f"its run {'trains' if self._run_chats else 'does not train'} on conversations",
            )
        tags, has_base = _card(self.directory / "README.md")
        if found := sorted(tags & CHAT_TAGS):
            return True, f"its card has the tag {found[0]}"
        if OUR_TAG in tags:
            return False, "its card does not have the tag conversational"
        if has_base:
            return True, "its card names a base_model"
        if CHAT_NAME.search(self.name.rstrip("/").rsplit("/", 1)[-1]):
            return True, "its name says so"
        return False, "neither its card nor its name says that it was trained to chat"


def _matching(directory: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The files of these names, sorted."""
    found = {path for pattern in patterns for path in directory.glob(pattern) if path.is_file()}
    return sorted(found)


def _facts(path: Path) -> _Facts | None:
    """None where there are none, or those of somebody else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Facts)
    except (OSError, msgspec.DecodeError):
        return None


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none. Raises UserError for a file that is damaged."""
    if not path.is_file():
        return {}
    try:
        tree = json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{named(path)}: not JSON ({error}); copy the checkpoint again") from error
    return tree if isinstance(tree, dict) else {}


def _card(path: Path) -> tuple[set[str], bool]:
    """(tags, whether a `base_model` is named) in the metadata at the head of a model card.

    The few lines that matter are read without a YAML library: `tags: [a, b]`, or one item a line.
    """
    if not path.is_file():
        return set(), False
    text = path.read_text("utf-8", errors="replace")
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    if head is None:
        return set(), False
    metadata = head[1]
    block = re.search(r"^tags:[ ]*(\[.*?\]|(?:\n[ ]*-[^\n]*)*)", metadata, re.MULTILINE | re.DOTALL)
    tags = set(re.findall(r"[\w-]*\w[\w-]*", block[1])) if block else set()
    return tags, re.search(r"^base_model:", metadata, re.MULTILINE) is not None
