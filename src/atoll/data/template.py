"""Chat templates, rendered as `transformers` renders them. Only this file imports jinja2."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NoReturn

from atoll.errors import UserError

Turn = dict[str, Any]  # role, content, and what else a template may read, as tool_calls
# A template that asks for today's date gets this one, which is what Llama 3.1's own falls back on: rows must
# be the same on every machine and every day.
TODAY = datetime(2024, 7, 26)
PROBE: list[Turn] = [
    {"role": "user", "content": "question"},
    {"role": "assistant", "content": "answer"},
    {"role": "user", "content": "further question"},
    {"role": "assistant", "content": "further answer"},
]


MAX_TURNS = 1_000_000  # of all loops over ranges of one rendering: longer ones would not end


class TemplateError(Exception):
    """A template cannot render a chat; the message says why."""


class Template:
    """A compiled chat template of a tokenizer."""

    def __init__(self, source: str, bos: str, eos: str, origin: str) -> None:
        """`origin` names the template in errors. Raises UserError where it is no template of a chat.

        A question and an answer must be rendered with exactly one `bos`, at the head.
        """
        self._bos, self._eos = bos, eos
        refused = f"{origin}: its chat template cannot render a question and an answer"
        environment, self._ranges = _environment(), Ranges()
        environment.globals["range"] = self._ranges.range
        try:
            self._compiled = environment.from_string(source)
        except Exception as error:  # a template is a program: whatever it runs into
            raise UserError(f"{refused}: {error}") from error
        try:
            text = self.render(PROBE[:2], add_generation_prompt=True)
        except TemplateError as error:
            raise UserError(f"{refused}: {error}") from error
        if (count := text.count(bos)) != 1 or not text.startswith(bos):
            fault = f"puts {count} {bos} into a chat"
            if count == 1:
                fault = f"does not put {bos} at the head of a chat"
            raise UserError(
                f"{origin}: its chat template {fault}; it must put exactly one there, at the head"
            )

    def end_of_turn(self, special: Iterable[str]) -> str:
        """The first of the special tokens that follow an answer, or "" where none does."""
        try:
            behind = self.render(PROBE[:2]).rpartition("answer")[2]
        except TemplateError:
            return ""
        found = [(behind.find(token), -len(token), token) for token in special if token in behind]
        return min(found)[2] if found else ""

    def render(
        self, turns: list[Turn], tools: list[Any] | None = None, *, add_generation_prompt: bool = False
    ) -> str:
        """The text of a chat. Raises TemplateError where the template does not take it."""
        self._ranges.num_left = MAX_TURNS
        try:
            return self._compiled.render(
                messages=turns,
                tools=tools,
                bos_token=self._bos,
                eos_token=self._eos,
                add_generation_prompt=add_generation_prompt,
            )
        except Exception as error:  # as above
            raise TemplateError(str(error) or type(error).__name__) from error


class Ranges:
    """What `range` is in a template: short, as jinja's own, and so are all of a rendering together."""

    def __init__(self) -> None:
        self.num_left = MAX_TURNS

    def range(self, *bounds: int) -> range:
        """Raises OverflowError where a rendering asks for too much."""
        from jinja2.sandbox import safe_range

        found = safe_range(*bounds)
        self.num_left -= len(found)
        if self.num_left < 0:
            raise OverflowError(f"its loops go over more than {MAX_TURNS:,} numbers")
        return found


def _environment() -> Any:
    """jinja2's environment with what `transformers` adds to it."""
    import jinja2
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    class Generation(Extension):
        """`{% generation %}`, with which `transformers` marks what the assistant says."""

        tags = {"generation"}  # noqa: RUF012 (the name is jinja's)

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.globals |= {"raise_exception": refuse, "strftime_now": TODAY.strftime}
    environment.filters["tojson"] = to_json
    return environment
