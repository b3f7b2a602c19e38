"""OpenAI's own client, for any server that speaks its protocol. Only this file imports it."""

from typing import Any

from atoll.errors import UserError


def library(what: str) -> Any:
    """The package `openai`. `what`: who needs it, for people. Raises UserError where it is not installed."""
    try:
        import openai
    except ModuleNotFoundError as error:
        raise UserError(f"{what} needs openai; install it with: pip install 'atoll[post]'") from error
    return openai
