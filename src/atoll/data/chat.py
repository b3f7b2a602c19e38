"""The chat template of models trained here: Llama 3's form, with exactly one BOS, at the head. Others are
checked.
"""

from typing import Final, NoReturn

from atoll.errors import UserError

BEGIN_OF_TEXT: Final = "<|begin_of_text|>"
END_OF_TEXT: Final = "<|end_of_text|>"
START_OF_ROLE: Final = "<|start_header_id|>"
END_OF_ROLE: Final = "<|end_header_id|>"
END_OF_TURN: Final = "<|eot_id|>"
PAD: Final = "<|finetune_right_pad_id|>"
SPECIAL_TOKENS: Final = [BEGIN_OF_TEXT, END_OF_TEXT, START_OF_ROLE, END_OF_ROLE, END_OF_TURN, PAD]

# apply_chat_template renders this and tokenizes the result without special tokens of its own: the BOS must be
# here. trim: as in Llama 3, so that white space around a message does not depend on who typed it.
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
    """Raises UserError unless a chat that `transformers` renders with this template has one BOS, at its
    head.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: form}
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    try:
        text = environment.from_string(template).render(
            messages=chat, bos_token=bos, eos_token="", add_generation_prompt=True
        )
    except (TemplateError, TypeError) as error:
        raise UserError(
            f"{origin}: its chat template cannot render a question and an answer: {error}"
        ) from error
    if (count := text.count(bos)) != 1 or not text.startswith(bos):
        how = f"puts {count} {bos} into a chat" if count != 1 else f"does not put {bos} at the head of a chat"
        raise UserError(f"{origin}: its chat template {how}, and exactly one must be there, at the head")
