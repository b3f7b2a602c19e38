"""OpenAI's own client, for any server that speaks its protocol. Only this file imports it."""

from typing import Any
from urllib.parse import urlsplit

from atoll.errors import UserError


def library(what: str) -> Any:
    """The package `openai`. `what`: who needs it, for people. Raises UserError where it is not installed."""
    try:
        import openai
    except ModuleNotFoundError as error:
        raise UserError(f"{what} needs openai; install it with: pip install 'atoll[post]'") from error
    return openai


def check_url(url: str) -> None:
    """Raises UserError for what is no server's URL: the client would fail in words of its own."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, half of an IPv6 address
        is_one = False
    if not is_one:
        raise UserError(f"{url}: not a server's URL; write it like http://localhost:8000/v1")
