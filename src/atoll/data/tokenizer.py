"""Text <-> token ids. The one file that imports `tokenizers`.

Every document gets exactly one BOS, at its head: a tokenizer that would add none or two is refused.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3

from atoll.data import tiktoken
from atoll.data.chat import (
    BEGIN_OF_TEXT,
    CHAT_TEMPLATE,
    END_OF_ROLE,
    END_OF_TEXT,
    END_OF_TURN,
    PAD,
    SPECIAL_TOKENS,
    check_template,
)
from atoll.errors import UserError
from atoll.files import write_atomic

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

# How Llama 3 cuts text before merging bytes: words with their leading space, up to three digits, punctuation,
# space.
LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)
LONG = 1 << 20  # characters
SEAM = re.compile(r"(?<=[^\W\d_])(?= [^\W\d_])|(?<=\S\n)(?=[^\W\d_])")  # before a word: no split joins across
KNOWN_EOS = (END_OF_TEXT, "</s>", "<eos>", "<|endoftext|>")


class Tokenizer:
    """A `tokenizer.json`, and the two files beside it that `transformers` reads."""

    def __init__(
        self, engine: "Engine", origin: str, config: dict[str, Any], chat_template: str | None
    ) -> None:
        """`origin` names the tokenizer in errors.

        Raises UserError unless `engine` puts one BOS before a text, and the template (in the configuration,
        for an old one) before a chat.
        """
        engine.no_truncation()
        engine.no_padding()
        self.bos_id = _bos_id(engine, origin)
        engine.encode_special_tokens = True  # a text that spells "<|begin_of_text|>" stays text
        template = chat_template or config.get("chat_template")
        if isinstance(template, str):
            check_template(template, str(engine.id_to_token(self.bos_id)), origin)
        self._engine, self._config, self._chat_template = engine, config, chat_template

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """A byte-level BPE tokenizer of exactly `vocab_size` tokens, special ones included; equal for equal
        texts.

        Raises UserError when `vocab_size` is too small, or larger than the texts can fill.
        """
        from tokenizers import models, pre_tokenizers, trainers

        if vocab_size < SMALLEST_VOCABULARY:
            raise UserError(
                f"tokenizer.train = {vocab_size}: at least {SMALLEST_VOCABULARY} are needed, "
                f"for 256 bytes and {len(SPECIAL_TOKENS)} special tokens"
            )
        engine = _llama_3_engine(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        engine.train_from_iterator(texts, trainer)
        if (size := engine.get_vocab_size()) < vocab_size:
            raise UserError(
                f"tokenizer.train = {vocab_size}: the text yields only {size} tokens; ask for at most that"
            )
        return cls._like_llama_3(engine, "the trained tokenizer")

    @classmethod
    def _like_llama_3(cls, engine: "Engine", origin: str) -> "Tokenizer":
        from tokenizers import processors

        bos = (BEGIN_OF_TEXT, engine.token_to_id(BEGIN_OF_TEXT))
        engine.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN_OF_TEXT} $A", pair=f"{BEGIN_OF_TEXT} $A {BEGIN_OF_TEXT} $B", special_tokens=[bos]
        )
        config = {"bos_token": BEGIN_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": PAD}
        return cls(engine, origin, config, CHAT_TEMPLATE)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """The tokenizer of any `tokenizer.json` (or of the folder that holds one), with what lies beside it.

        Also of Llama 3's `tokenizer.model`. Raises UserError when it cannot be read, or gives a text no BOS
        or several.
        """
        from tokenizers import Tokenizer as Engine
        from tokenizers import models

        if path.suffix == ".model":
            vocabulary, merges, special = tiktoken.read(path)
            engine = _llama_3_engine(models.BPE(vocabulary, merges, ignore_merges=True))
            engine.add_special_tokens(special)
            return cls._like_llama_3(engine, str(path))
        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            engine = Engine.from_str(path.read_text("utf-8"))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        except (
            Exception
        ) as error:  # the library raises bare Exception, and ValueError for text that is not UTF-8
            raise UserError(f"{path}: not a tokenizer.json: {error}") from error
        config = _config_beside(path)
        template_path = path.with_name("chat_template.jinja")
        tokens = engine.get_vocab()
        if template_path.exists():
            template = template_path.read_text("utf-8")
        else:  # ours, for a tokenizer that has the words for it and no template of its own
            fits = (
                all(token in tokens for token in (END_OF_ROLE, END_OF_TURN)) and "chat_template" not in config
            )
            template = CHAT_TEMPLATE if fits else None
        if "eos_token" not in config and (
            eos := next((token for token in KNOWN_EOS if token in tokens), None)
        ):
            config["eos_token"] = eos
        return cls(engine, str(path), config, template)

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        return max(self._engine.get_vocab().values()) + 1

    @property
    def eos_ids(self) -> list[int]:
        """The tokens at which a model of this tokenizer stops: the end of a text, and the end of a turn."""
        vocabulary = self._engine.get_vocab()
        return [
            vocabulary[token] for token in (self._config.get("eos_token"), END_OF_TURN) if token in vocabulary
        ]

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, [num_tokens] uint32, BOS first. Special tokens spelled out in a text are
        text.

        The engine needs 150 bytes for each of a text, so long ones are cut between words and encoded part by
        part. For tokenizers that split as Llama 3 or GPT-2 do the tokens are those of the whole text; for
        others, they decode to it.
        """
        if all(len(text) <= LONG for text in texts):
            return [
                np.array(encoding.ids, np.uint32) for encoding in self._engine.encode_batch_fast(list(texts))
            ]
        return [
            np.concatenate([self._ids(part)[number > 0 :] for number, part in enumerate(_parts(text))])
            for text in texts
        ]

    def _ids(self, text: str) -> np.ndarray:
        return np.array(self._engine.encode_batch_fast([text])[0].ids, np.uint32)

    def decode(self, tokens: Sequence[int] | np.ndarray, *, skip_special_tokens: bool = True) -> str:
        """The text of token ids."""
        return self._engine.decode([int(token) for token in tokens], skip_special_tokens=skip_special_tokens)

    def digest(self) -> str:
        """BLAKE3 of `tokenizer.json` as `save` writes it, hex."""
        return blake3(self._json()).hexdigest()

    def save(self, directory: Path) -> list[Path]:
        """Write what `transformers.AutoTokenizer.from_pretrained` reads, and return the files' paths."""
        special: dict[str, Any] = {"bos_token": self._engine.id_to_token(self.bos_id)}
        usual = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        config = usual | self._config | special
        files = {
            "tokenizer.json": self._json(),
            "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True).encode()
            + b"\n",
        }
        if self._chat_template is not None:
            files["chat_template.jinja"] = self._chat_template.encode()
        for name, content in files.items():
            write_atomic(directory / name, content)
        return [directory / name for name in files]

    def _json(self) -> bytes:
        return self._engine.to_str(pretty=True).encode()


def _llama_3_engine(model: Any) -> "Engine":
    """A byte-level tokenizer that cuts text as Llama 3 does, around a model of the `tokenizers` library."""
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers

    engine = Tokenizer(model)
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    engine.decoder = decoders.ByteLevel()
    return engine


def _parts(text: str) -> Iterator[str]:
    """A text in parts of about `LONG` characters, cut at seams; where there is none for as long again,
    anywhere.
    """
    start = 0
    while len(text) - start > 2 * LONG:
        seam = SEAM.search(text, start + LONG, start + 2 * LONG)
        stop = seam.start() if seam else start + 2 * LONG
        yield text[start:stop]
        start = stop
    yield text[start:]


def _config_beside(path: Path) -> dict[str, Any]:
    config_path = path.with_name("tokenizer_config.json")
    try:
        return json.loads(config_path.read_text("utf-8")) if config_path.exists() else {}
    except ValueError as error:
        raise UserError(f"{config_path}: not JSON: {error}") from error


def _bos_id(engine: "Engine", origin: str) -> int:
    """The one token that is put before a text; raises UserError when it is none, several, or not alone."""
    bare = engine.encode("text", add_special_tokens=False).ids
    ids = engine.encode("text").ids
    at = next((i for i in range(len(ids) - len(bare) + 1) if ids[i : i + len(bare)] == bare), 0)
    head, tail = ids[:at], ids[at + len(bare) :]
    if len(head) != 1:
        raise UserError(
            f"{origin}: puts {len(head) or 'no'} beginning-of-text tokens before a text, and every "
            "document needs "
            "exactly one at its head; give its post-processor a template with one"
        )
    if tail:
        raise UserError(
            f"{origin}: adds {len(tail)} tokens after a text, where its post-processor may add none"
        )
    return head[0]
