"""The tokens that requests begin with, and those that end what a model says."""

from collections.abc import Sequence
from typing import Any

from atoll.errors import UserError

ONE_BOS, ADDED_BOS, NO_BOS = "one BOS", "one BOS, added", "no BOS"


def lacks_bos(tokenizer: Any, ids: Sequence[int]) -> bool:
    """Whether a request should begin with a BOS and has none; `ids` are its tokens.

    A tokenizer whose BOS is its end of text, as GPT-NeoX's, has no BOS of its own.
    """
    bos = tokenizer.bos_token_id
    return bos is not None and bos != tokenizer.eos_token_id and bos not in ids


def beginning(tokenizer: Any, ids: Sequence[int], task: str, is_added: bool) -> str:
    """How a request begins, for people; `is_added`: its BOS was put there by us.

    Raises UserError where there is more than one BOS, or it is not the first token.
    """
    bos = tokenizer.bos_token_id
    if bos is None or (bos not in ids and not lacks_bos(tokenizer, ids)):
        return NO_BOS
    num_bos = list(ids).count(bos)
    if ids[0] != bos or num_bos != 1:
        raise UserError(
            f"{task}: the first request has {num_bos} BOS, and begins with "
            f"{tokenizer.convert_ids_to_tokens(list(ids[:3]))}; it must begin with one and have no other: "
            "look at the checkpoint's tokenizer and chat template"
        )
    return ADDED_BOS if is_added else ONE_BOS


def end_ids(tokenizer: Any, generation_config: Any) -> list[int]:
    """The tokens that end what a model generates by itself."""
    ends = generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    return [] if ends is None else [int(end) for end in (ends if isinstance(ends, list) else [ends])]


def end_of_turn(tokenizer: Any) -> int | None:
    """The special token with which the chat template ends an assistant's turn; None if it has none."""
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition("answer")[2]
    added = tokenizer.added_tokens_decoder
    ids = tokenizer.encode(after, add_special_tokens=False)
    return next((token for token in ids if token in added and added[token].special), None)
