"""Llama 3's own vocabulary file, `tokenizer.model`, converted to the parts of a `tokenizer.json`.

The file is Meta's, so users bring their own copy. Each line holds a token's bytes in base64, and its rank. A
token's id is its rank; the special tokens follow.
"""

import base64
import binascii
from pathlib import Path

from atoll.errors import UserError
from atoll.given import refuse_pointer

NUM_SPECIAL = 256
NAMED = {  # by position after the ranks, as in Llama 3.1; all other special tokens are reserved
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    4: "<|finetune_right_pad_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
}


def read(path: Path) -> tuple[dict[str, int], list[tuple[str, str]], list[str]]:
    """(vocabulary, merges, special tokens) of the file at `path`.

    Raises UserError, naming the line, for a file of another format.
    """
    ranks: dict[bytes, int] = {}
    number = 0
    try:
        refuse_pointer(path)
        for line in path.read_bytes().splitlines():
            number += 1
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (ValueError, binascii.Error) as error:
        raise UserError(
            f"{path}, line {number}: not a token and its rank; is this Llama 3's tokenizer.model?"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if sorted(ranks.values()) != list(range(len(ranks))) or not all(
        bytes([byte]) in ranks for byte in range(256)
    ):
        raise UserError(f"{path}: truncated or damaged: ranks have gaps, or bytes are missing")
    letters = _byte_letters()
    written = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges: list[tuple[str, str]] = []
    for token in sorted(ranks, key=ranks.__getitem__):  # pairs merge in the order of their union's rank
        halves = [(token[:at], token[at:]) for at in range(1, len(token))]
        both = [(left, right) for left, right in halves if left in ranks and right in ranks]
        both.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(written[left], written[right]) for left, right in both]
    reserved = iter(range(NUM_SPECIAL))
    special = [
        NAMED.get(place) or f"<|reserved_special_token_{next(reserved)}|>" for place in range(NUM_SPECIAL)
    ]
    return {written[token]: rank for token, rank in ranks.items()}, merges, special


def _byte_letters() -> list[str]:
    """The character that `tokenizers` writes for each byte: its own if printable, else one from U+0100 on."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    others = iter(range(256))
    return [chr(byte if byte in printable else 256 + next(others)) for byte in range(256)]
