"""A server that speaks OpenAI's chat completions, asked through OpenAI's own client."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from atoll.errors import UserError
from atoll.post.client import check_url, library

# Asked by path: `chat.completions.create` walks through messages by their types, a fifth of a request's time.
CHAT = "/chat/completions"
LONGEST_PAUSE_SECONDS = 60.0  # the client waits no longer between two tries, whatever a server asks for
MOST_TOKENS = 1 << 32  # of one text

Message = dict[str, str]  # role, content


class Reply(NamedTuple):
    """What a model said."""

    text: str
    is_whole: bool  # not cut off by max_tokens, nor by a filter
    tokens_in: int
    tokens_out: int


class Unanswered(Exception):
    """A request that failed again and again; it may be asked for in a later run."""


class Server:
    """An asynchronous context manager around the client's connections."""

    def __init__(self, url: str, key: str, timeout_seconds: float, retries: int) -> None:
        check_url(url)
        self._url, self._library = url, library("evolving")
        # The client's deadline is for each read, which a server that trickles meets for ever.
        self._seconds = (retries + 1) * timeout_seconds + retries * LONGEST_PAUSE_SECONDS
        self._kind = self._library.types.chat.ChatCompletion
        # It waits longer after each failure, and as long as a busy server asks for.
        self._client = self._library.AsyncOpenAI(
            base_url=url, api_key=key or "none", timeout=timeout_seconds, max_retries=retries
        )

    async def __aenter__(self) -> "Server":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(
        self, model: str, messages: Sequence[Message], temperature: float, max_tokens: int
    ) -> Reply:
        """The model's reply to a conversation.

        Raises Unanswered where the server fails every time, or sends what is no reply; UserError where no
        repetition would help: a wrong key, no such model, nobody there.
        """
        openai = self._library
        body = {
            "model": model,
            "messages": list(messages),
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        try:
            async with asyncio.timeout(self._seconds):
                given: Any = await self._client.post(CHAT, cast_to=self._kind, body=body)
            choice, usage = given.choices[0], given.usage
            text = choice.message.content or ""
            text.encode()  # what is no text, or cannot be written to a file, is refused here
            asked = sum(len(message["content"]) for message in messages)
            tokens_in = _counted(getattr(usage, "prompt_tokens", None), asked)
            tokens_out = _counted(getattr(usage, "completion_tokens", None), len(text))
            return Reply(text, choice.finish_reason in ("stop", None), tokens_in, tokens_out)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise UserError(
                f"{self._url}: refuses the key ({error.message}); put the right one into OPENAI_API_KEY"
            ) from error
        except openai.NotFoundError as error:
            raise UserError(
                f"{self._url}: has no model {model} there ({error.message}); look at {self._url}/models"
            ) from error
        except openai.BadRequestError as error:
            raise Unanswered(f"the server refuses it: {error.message}") from error
        except TimeoutError as error:
            raise Unanswered(f"no whole reply came within {self._seconds:.0f} s") from error
        except openai.APIError as error:  # timeouts, lost connections, 429, 5xx
            raise Unanswered(str(error) or type(error).__name__) from error
        except (IndexError, AttributeError, TypeError, ValueError) as error:  # JSON, but no reply; or no JSON
            raise Unanswered(f"what it sends is no reply: {error}") from error


def _counted(tokens: Any, characters: int) -> int:
    """What a server says that a text has of tokens. Where it says no such thing, a rough guess: a budget must
    not be endless.
    """
    return tokens if type(tokens) is int and 0 <= tokens <= MOST_TOKENS else characters // 4
