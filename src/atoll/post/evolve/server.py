"""A server that speaks OpenAI's chat completions, asked through OpenAI's own client."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from atoll.errors import UserError

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
        try:
            import openai
        except ModuleNotFoundError as error:
            raise UserError("evolving needs openai; install it with: pip install 'atoll[post]'") from error
        self._url, self._library = url, openai
        # It waits longer after each failure, and as long as a busy server asks for.
        self._client = openai.AsyncOpenAI(
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
        library = self._library
        try:
            given: Any = await self._client.chat.completions.create(
                model=model,
                messages=messages,  # pyright: ignore[reportArgumentType] (its types are of literal roles)
                temperature=temperature,
                max_tokens=max_tokens,
            )
            choice, usage = given.choices[0], given.usage
            text = choice.message.content or ""
            # A server that does not count is counted for, roughly: a budget must not be endless.
            tokens_in = usage.prompt_tokens if usage else sum(len(m["content"]) for m in messages) // 4
            tokens_out = usage.completion_tokens if usage else len(text) // 4
            return Reply(text, choice.finish_reason in ("stop", None), tokens_in, tokens_out)
        except (library.AuthenticationError, library.PermissionDeniedError) as error:
            raise UserError(
                f"{self._url}: refuses the key ({error.message}); put the right one into OPENAI_API_KEY"
            ) from error
        except library.NotFoundError as error:
            raise UserError(
                f"{self._url}: has no model {model} there ({error.message}); look at {self._url}/models"
            ) from error
        except library.BadRequestError as error:
            raise Unanswered(f"the server refuses it: {error.message}") from error
        except library.APIError as error:  # timeouts, lost connections, 429, 5xx
            raise Unanswered(str(error) or type(error).__name__) from error
        except (IndexError, AttributeError, TypeError, ValueError) as error:  # JSON, but no reply; or no JSON
            raise Unanswered(f"what it sends is no reply: {error}") from error
