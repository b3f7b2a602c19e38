"""The chat templates that atoll brings, and the special tokens of Llama 3, which models trained here have."""

from typing import Final

from atoll.errors import UserError
from atoll.given import expanded, read_text

BEGIN_OF_TEXT: Final = "<|begin_of_text|>"
END_OF_TEXT: Final = "<|end_of_text|>"
START_OF_ROLE: Final = "<|start_header_id|>"
END_OF_ROLE: Final = "<|end_header_id|>"
END_OF_TURN: Final = "<|eot_id|>"
PAD: Final = "<|finetune_right_pad_id|>"
SPECIAL_TOKENS: Final = [BEGIN_OF_TEXT, END_OF_TEXT, START_OF_ROLE, END_OF_ROLE, END_OF_TURN, PAD]

# The turns of Llama 3.1, without the dates that its own template puts into every system turn, since these
# would not be true of another model. The BOS is in the template because apply_chat_template tokenizes the
# rendered text without adding special tokens. Texts are trimmed, as in Llama 3, so that white space around
# them does not matter. As in Llama 3.1 a tool's answer is a turn of `ipython`, and an assistant calls one
# tool at a time.
CHAT_TEMPLATE: Final = (
    "{{- bos_token }}"
    "{%- set turns = messages %}"
    "{%- if tools %}"
    f"{{{{- '{START_OF_ROLE}system{END_OF_ROLE}\\n\\n' }}}}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set turns = messages[1:] %}"
    "{{- messages[0]['content'] | trim + '\\n\\n' }}"
    "{%- endif %}"
    "{{- 'These functions can be called. To call one, answer with nothing but JSON of the form '"
    ' + \'{"name": the function\\\'s name, "parameters": {argument: value}}.\' }}'
    "{%- for tool in tools %}{{- '\\n\\n' + tool | tojson }}{%- endfor %}"
    f"{{{{- '{END_OF_TURN}' }}}}"
    "{%- endif %}"
    "{%- for message in turns %}"
    "{%- set role = 'ipython' if message['role'] == 'tool' else message['role'] %}"
    f"{{{{- '{START_OF_ROLE}' + role + '{END_OF_ROLE}\\n\\n' }}}}"
    "{%- if message['tool_calls'] %}"
    "{%- if message['tool_calls'] | length != 1 or message['content'] %}"
    "{{- raise_exception('a turn is either a text or one call of a tool') }}"
    "{%- endif %}"
    "{%- set call = message['tool_calls'][0]['function'] %}"
    "{{- '{\"name\": ' + call['name'] | tojson }}"
    "{{- ', \"parameters\": ' + call['arguments'] | tojson + '}' }}"
    "{%- else %}{{- message['content'] | trim }}{%- endif %}"
    f"{{{{- '{END_OF_TURN}' }}}}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    f"{{{{- '{START_OF_ROLE}assistant{END_OF_ROLE}\\n\\n' }}}}"
    "{%- endif %}"
)
CHATML: Final = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if tools or message['tool_calls'] %}"
    "{{- raise_exception('chatml has no form for tools; give the template of the model') }}"
    "{%- endif %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
NAMED: Final = {  # template and the markers that must be special tokens, by name
    "llama-3.1": (CHAT_TEMPLATE, (START_OF_ROLE, END_OF_ROLE, END_OF_TURN)),
    "chatml": (CHATML, ("<|im_start|>", "<|im_end|>")),
}


def wanted_template(wanted: str, own: str | None, special: set[str], origin: str) -> str:
    """The Jinja text of the template that a recipe's `chat.template` names.

    `own`: that of the tokenizer, which has the tokens `special` and is named `origin` in errors. Raises
    UserError where there is none, or it has markers that are no special tokens.
    """
    if wanted == "tokenizer":
        if own is None:
            raise UserError(f"chat.template = {wanted!r}: {origin} has no chat template; name another")
        return own
    if wanted not in NAMED:
        return read_text(expanded(wanted))
    template, markers = NAMED[wanted]
    if missing := [marker for marker in markers if marker not in special]:
        advice = "set chat.template = 'tokenizer', which is that model's" if own else "name another"
        raise UserError(
            f"chat.template = {wanted!r}: {missing[0]} is no special token of {origin}, so it would fall "
            f"into pieces; {advice}"
        )
    return template
