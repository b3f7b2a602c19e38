"""What `transformers` reads beside a `tokenizer.json`: its configuration, and the template of chats."""

from pathlib import Path
from typing import Any

import msgspec

from atoll.errors import UserError
from atoll.given import named, read_text

CONFIG_NAME = "tokenizer_config.json"
TEMPLATE_NAME = "chat_template.jinja"


def read_config(tokenizer_path: Path) -> dict[str, Any]:
    """The configuration beside a `tokenizer.json`, or {} without one. Raises UserError for a bad one."""
    path = tokenizer_path.with_name(CONFIG_NAME)
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(read_text(path), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise UserError(f"{named(path)}: not a JSON object: {error}") from error


def read_template(tokenizer_path: Path) -> str | None:
    """The chat template beside a `tokenizer.json`, if there is one. Raises UserError for a bad one."""
    path = tokenizer_path.with_name(TEMPLATE_NAME)
    return read_text(path) if path.exists() else None


def token_of(config: dict[str, Any], key: str, origin: str) -> str | None:
    """The special token that a configuration gives under `key`: as a string, or as an object around one.

    Raises UserError for anything else.
    """
    value = config.get(key)
    content = value.get("content") if isinstance(value, dict) else value
    if value is not None and not isinstance(content, str):
        raise UserError(
            f"{origin}: {key} in its {CONFIG_NAME} is neither a string nor an object with `content`"
        )
    return content


def template_in(config: dict[str, Any], origin: str) -> str | None:
    """The chat template in a configuration: one, or the one called default of several.

    Raises UserError for anything else.
    """
    value = config.get("chat_template")
    if isinstance(value, list):
        try:
            value = {each["name"]: each["template"] for each in value}
        except (TypeError, KeyError):
            value = 0  # refused below
    if isinstance(value, dict):
        value = value.get("default")
    if value is not None and not isinstance(value, str):
        raise UserError(f"{origin}: chat_template in its {CONFIG_NAME} is neither text nor named texts")
    return value
