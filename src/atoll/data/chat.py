"""The chat template of models trained here, which is Llama 3's, and the check that any other must pass."""

import json
from typing import Any, Final, NoReturn

from atoll.errors import UserError

BEGIN_OF_TEXT: Final = "<|begin_of_text|>"
END_OF_TEXT: Final = "<|end_of_text|>"
START_OF_ROLE: Final = "<|start_header_id|>"
END_OF_ROLE: Final = "<|end_header_id|>"
END_OF_TURN: Final = "<|eot_id|>"
PAD: Final = "<|finetune_right_pad_id|>"
SPECIAL_TOKENS: Final = [BEGIN_OF_TEXT, END_OF_TEXT, START_OF_ROLE, END_OF_ROLE, END_OF_TURN, PAD]

# The BOS is in the template because apply_chat_template tokenizes the rendered text without adding special
# tokens. Messages are trimmed, as in Llama 3, so that white space around them does not matter.
CHAT_TEMPLATE: Final = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    f"{{{{- '{START_OF_ROLE}' + message['role'] + '{END_OF_ROLE}\\n\\n' }}}}"
    f"{{{{- message['content'] | trim + '{END_OF_TURN}' }}}}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    f"{{{{- '{START_OF_ROLE}assistant{END_OF_ROLE}\\n\\n' }}}}"
    "{%- endif %}"
)


def check_template(template: str, bos: str, origin: str) -> None:
    """Raises UserError unless a chat rendered with `template` has exactly one BOS, at its head.

    The rendering is that of `transformers`. `origin` names the tokenizer in the error.
    """
    from jinja2 import TemplateError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    class Generation(Extension):
        """`{% generation %}`, with which `transformers` marks what the assistant says."""

        tags = {"generation"}  # noqa: RUF012 (the name is jinja's)

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: form}
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, **options)
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    try:
        text = environment.from_string(template).render(
            messages=chat, bos_token=bos, eos_token="", add_generation_prompt=True
        )
    except Exception as error:  # a template is a program: whatever it runs into
        raise UserError(
            f"{origin}: its chat template cannot render a question and an answer: {error}"
        ) from error
    if (count := text.count(bos)) != 1 or not text.startswith(bos):
        fault = (
            f"puts {count} {bos} into a chat" if count != 1 else f"does not put {bos} at the head of a chat"
        )
        raise UserError(f"{origin}: its chat template {fault}; it must put exactly one there, at the head")
