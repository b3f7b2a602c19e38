"""Text to token ids and back. Only this file imports `tokenizers`.

Every document gets exactly one BOS, at its head: a tokenizer that adds none, or two, is refused.
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
    wanted_template,
)
from atoll.data.template import Template
from atoll.data.tokenizer_checks import bos_id, check_ids, eos_ids, never_in_text, refusing
from atoll.data.tokenizer_config import (
    CONFIG_NAME,
    TEMPLATE_NAME,
    read_config,
    read_template,
    template_in,
    token_of,
)
from atoll.errors import UserError
from atoll.files import write_atomic
from atoll.given import named, read_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

# How Llama 3 cuts text before it merges bytes: words with their leading space, up to three digits,
# punctuation, white space.
LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
PART_CHARACTERS = 1 << 20  # longer texts are cut into parts of about this many characters
# Where a text may be cut: before a word, where the splits of Llama 3 and GPT-2 begin a new piece anyway.
SEAM = re.compile(r"(?<=[^\W\d_])(?= [^\W\d_])|(?<=\S\n)(?=[^\W\d_])")
KNOWN_EOS = (END_OF_TEXT, "</s>", "<eos>", "<|endoftext|>")


class Tokenizer:
    """A `tokenizer.json`, with the configuration and chat template that `transformers` reads beside it."""

    def __init__(
        self, engine: "Engine", origin: str, config: dict[str, Any], chat_template: str | None
    ) -> None:
        """`origin` names the tokenizer in errors. `config` may hold the chat template, as old ones do.

        Raises UserError unless `engine` puts exactly one BOS before a text, and the template before a chat.
        """
        engine.no_truncation()
        engine.no_padding()
        check_ids(engine, origin)
        self._origin, self.bos_id = origin, bos_id(engine, origin)
        engine.encode_special_tokens = True  # a text that spells "<|begin_of_text|>" stays text
        self._engine, self._config, self._chat_template = engine, config, chat_template
        self._is_special = never_in_text(engine, self.bos_id)
        # The special tokens, by how they are spelled.
        self.special = {
            token.content: number
            for number, token in engine.get_added_tokens_decoder().items()
            if token.special
        }
        eos = token_of(config, "eos_token", origin)
        # The ids of the tokens at which a model stops: end of text and end of turn, where it has them.
        self.eos_ids = eos_ids(engine, eos, origin)
        self.template: Template | None = None  # of chats
        if (text := self.template_text) is not None:
            self.template = Template(text, str(engine.id_to_token(self.bos_id)), eos or "", origin)
            end_of_turn = self.special.get(self.template.end_of_turn(self.special))
            if end_of_turn is not None and end_of_turn not in self.eos_ids:
                self.eos_ids.append(end_of_turn)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """A byte-level BPE tokenizer of exactly `vocab_size` tokens, special ones included.

        Equal texts give equal tokenizers. Raises UserError when `vocab_size` is too small, or larger than the
        texts can fill.
        """
        from tokenizers import models, pre_tokenizers, trainers

        if vocab_size < MIN_VOCAB_SIZE:
            raise UserError(
                f"tokenizer.train = {vocab_size}: at least {MIN_VOCAB_SIZE} tokens are needed, for 256 bytes "
                f"and {len(SPECIAL_TOKENS)} special tokens"
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
        """`engine` with Llama 3's BOS, EOS, padding token and chat template."""
        from tokenizers import processors

        bos = (BEGIN_OF_TEXT, engine.token_to_id(BEGIN_OF_TEXT))
        engine.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN_OF_TEXT} $A", pair=f"{BEGIN_OF_TEXT} $A {BEGIN_OF_TEXT} $B", special_tokens=[bos]
        )
        config = {"bos_token": BEGIN_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": PAD}
        return cls(engine, origin, config, CHAT_TEMPLATE)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """The tokenizer in a `tokenizer.json`, the folder that holds one, or Llama 3's `tokenizer.model`.

        Configuration and chat template are read from beside a `tokenizer.json`. Raises UserError when the
        file cannot be read, or when a text or a chat would not get exactly one BOS.
        """
        from tokenizers import Tokenizer as Engine
        from tokenizers import models

        if path.suffix == ".model":
            vocabulary, merges, special = tiktoken.read(path)
            engine = _llama_3_engine(models.BPE(vocabulary, merges, ignore_merges=True))
            engine.add_special_tokens(special)
            return cls._like_llama_3(engine, str(path))
        path = path / "tokenizer.json" if path.is_dir() else path
        text = read_text(path)
        with refusing(f"{named(path)}: not a tokenizer.json"):
            engine = Engine.from_str(text)
        config, template = read_config(path), read_template(path)
        tokens = engine.get_vocab()
        if (
            template is None
            and END_OF_ROLE in tokens
            and END_OF_TURN in tokens
            and "chat_template" not in config
        ):
            template = CHAT_TEMPLATE  # it has the tokens for our template, and no template of its own
        known_eos = [token for token in KNOWN_EOS if token in tokens]
        if "eos_token" not in config and known_eos:
            config["eos_token"] = known_eos[0]
        return cls(engine, named(path), config, template)

    def with_template(self, wanted: str) -> "Tokenizer":
        """The same tokens with another chat template: the one that a recipe's `chat.template` names.

        Raises UserError where there is no such template, or it does not fit the tokens.
        """
        source = wanted_template(wanted, self.template_text, set(self.special), self._origin)
        bos, eos = (
            str(self._engine.id_to_token(self.bos_id)),
            token_of(self._config, "eos_token", self._origin),
        )
        Template(source, bos, eos or "", f"chat.template = {wanted!r}")  # so that an error names the recipe's
        config = {key: value for key, value in self._config.items() if key != "chat_template"}
        return Tokenizer(self._engine, self._origin, config, source)

    @property
    def template_text(self) -> str | None:
        """The chat template as Jinja text, where there is one."""
        return self._chat_template or template_in(self._config, self._origin)

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        return max(self._engine.get_vocab().values()) + 1

    def tokens(self) -> list[str | None]:
        """Each id's token, as the vocabulary spells it; None for an id that has none."""
        return [self._engine.id_to_token(number) for number in range(self.vocab_size)]

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The token ids of each text: [num_tokens] uint32, BOS first.

        A special token that is spelled out in a text is encoded as text. The engine needs 150 bytes of memory
        per byte of text, so long texts are cut between words and encoded part by part. For tokenizers that
        split text as Llama 3 or GPT-2 do, this gives the tokens of the whole text; for others, tokens that
        decode to it. What `special_within` names has turned into special tokens all the same. Raises
        UserError for a text that it cannot encode, as happens for want of a token for what is unknown.
        """
        with refusing(f"{self._origin}: cannot encode a text"):
            return self._encoded(texts)

    def _encoded(self, texts: Sequence[str]) -> list[np.ndarray]:
        if all(len(text) <= PART_CHARACTERS for text in texts):
            encodings = self._engine.encode_batch_fast(list(texts))
            return [np.array(encoding.ids, np.uint32) for encoding in encodings]
        return [
            # Of the parts after the first, the BOS is left out.
            np.concatenate([self._ids(part)[number > 0 :] for number, part in enumerate(_parts(text))])
            for text in texts
        ]

    def encode_parts(self, texts: Sequence[str], *, is_markup: bool) -> list[list[int]]:
        """The token ids of parts of documents, so without a BOS.

        `is_markup`: whether a special token that a text spells is that token. Raises UserError for a text
        that it cannot encode.
        """
        self._engine.encode_special_tokens = not is_markup
        try:
            with refusing(f"{self._origin}: cannot encode a text"):
                encodings = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        finally:
            self._engine.encode_special_tokens = True
        return [encoding.ids for encoding in encodings]

    def special_within(self, tokens: np.ndarray) -> str:
        """A special token that stands in a document behind its BOS, or "".

        Text that spells one is text, but a model may know it as a piece of its own, as SentencePiece's do.
        """
        return self.first_special(tokens[1:])

    def first_special(self, tokens: np.ndarray) -> str:
        """The first token that no text should turn into, or ""."""
        found = tokens[self._is_special[tokens]]
        return str(self._engine.id_to_token(int(found[0]))) if len(found) else ""

    def is_special(self, tokens: np.ndarray) -> np.ndarray:
        """[num_tokens] bool: which tokens are such that no text should turn into them."""
        return self._is_special[tokens]

    def _ids(self, text: str) -> np.ndarray:
        return np.array(self._engine.encode_batch_fast([text])[0].ids, np.uint32)

    def decode(self, tokens: Sequence[int] | np.ndarray, *, skip_special_tokens: bool = True) -> str:
        """The text of token ids."""
        return self._engine.decode([int(token) for token in tokens], skip_special_tokens=skip_special_tokens)

    def digest(self) -> str:
        """BLAKE3 of `tokenizer.json` as `save` writes it, hex."""
        return blake3(self._json()).hexdigest()

    def save(self, directory: Path) -> list[Path]:
        """Write the files that `transformers.AutoTokenizer.from_pretrained` reads, and return their paths."""
        special: dict[str, Any] = {"bos_token": self._engine.id_to_token(self.bos_id)}
        defaults = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        config = json.dumps(defaults | self._config | special, indent=2, ensure_ascii=False, sort_keys=True)
        files = {"tokenizer.json": self._json(), CONFIG_NAME: config.encode() + b"\n"}
        if self._chat_template is not None:
            files[TEMPLATE_NAME] = self._chat_template.encode()
        for name, content in files.items():
            write_atomic(directory / name, content)
        return [directory / name for name in files]

    def _json(self) -> bytes:
        return self._engine.to_str(pretty=True).encode()


def _llama_3_engine(model: Any) -> "Engine":
    """A byte-level tokenizer that cuts text as Llama 3 does, for a model of the `tokenizers` library."""
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
    """Yield a text in parts of PART_CHARACTERS to twice as many characters, cut at seams.

    A part that would be longer, for want of a seam, is cut at twice that length.
    """
    start = 0
    while len(text) - start > 2 * PART_CHARACTERS:
        seam = SEAM.search(text, start + PART_CHARACTERS, start + 2 * PART_CHARACTERS)
        stop = seam.start() if seam else start + 2 * PART_CHARACTERS
        yield text[start:stop]
        start = stop
    yield text[start:]
