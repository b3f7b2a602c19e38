"""What an engine of the `tokenizers` library must be like for its tokens to be trained on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from atoll.data.chat import END_OF_TURN
from atoll.data.tokenizer_config import CONFIG_NAME
from atoll.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn what the library raises into a UserError that begins with `what`."""
    try:
        yield
    except Exception as error:  # its own are plain Exceptions
        raise UserError(f"{what}: {error}") from error
    except BaseException as error:  # a panic of the library, unless Python itself is to end
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise UserError(f"{what}: {error}") from error


def check_ids(engine: "Engine", origin: str) -> None:
    """Raises UserError where there is no token, or two have one id."""
    by_id: dict[int, str] = {}
    for token, number in sorted(engine.get_vocab().items()):
        if by_id.setdefault(number, token) != token:
            raise UserError(
                f"{origin}: {by_id[number]!r} and {token!r} have the same id, {number}; correct it"
            )
    if not by_id:
        raise UserError(f"{origin}: has no token")


def never_in_text(engine: "Engine", bos_id: int) -> np.ndarray:
    """[vocab_size] bool: the special tokens that no text may turn into, so all but that for the unknown."""
    unknown = getattr(engine.model, "unk_token", None)
    if type(engine.model).__name__ == "Unigram":  # which tells its own only in its file
        number = json.loads(engine.to_str())["model"]["unk_id"]
        unknown = None if number is None else engine.id_to_token(number)
    added = engine.get_added_tokens_decoder().items()
    special = {number for number, token in added if token.special and token.content != unknown}
    table = np.zeros(max(engine.get_vocab().values()) + 1, bool)
    table[[bos_id, *special]] = True
    return table


def eos_ids(engine: "Engine", eos_token: str | None, origin: str) -> list[int]:
    """The ids of the end of text and the end of turn, where there are such tokens.

    Raises UserError where `eos_token` is none of the engine's tokens.
    """
    if eos_token is not None and engine.token_to_id(eos_token) is None:
        raise UserError(
            f"{origin}: eos_token in its {CONFIG_NAME} is {eos_token!r}, which is not one of "
            "its tokens; correct it"
        )
    ids = [engine.token_to_id(token) for token in (eos_token, END_OF_TURN) if token is not None]
    return list(dict.fromkeys(each for each in ids if each is not None))


def bos_id(engine: "Engine", origin: str) -> int:
    """The id of the one token that `engine` puts before a text.

    Raises UserError when it puts none or several, or also puts tokens after the text.
    """
    with refusing(f"{origin}: cannot encode a text"):
        bare = engine.encode("text", add_special_tokens=False).ids
        ids = engine.encode("text").ids
    at = next((i for i in range(len(ids) - len(bare) + 1) if ids[i : i + len(bare)] == bare), 0)
    head, tail = ids[:at], ids[at + len(bare) :]
    if len(head) != 1:
        raise UserError(
            f"{origin}: puts {len(head) or 'no'} beginning-of-text tokens before a text, but every document "
            "needs exactly one at its head; give its post-processor a template with one"
        )
    if tail:
        raise UserError(
            f"{origin}: adds {len(tail)} tokens after a text; give its post-processor a template without them"
        )
    if engine.id_to_token(head[0]) is None:
        raise UserError(
            f"{origin}: puts the id {head[0]} before a text, which none of its tokens has; correct it"
        )
    return head[0]
