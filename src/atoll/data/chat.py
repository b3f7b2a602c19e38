"""The chat template of models trained here: Llama 3's form, with exactly one BOS, at the head."""

from typing import Final

BEGIN_OF_TEXT: Final = "<|begin_of_text|>"
END_OF_TEXT: Final = "<|end_of_text|>"
START_OF_ROLE: Final = "<|start_header_id|>"
END_OF_ROLE: Final = "<|end_header_id|>"
END_OF_TURN: Final = "<|eot_id|>"
PAD: Final = "<|finetune_right_pad_id|>"
SPECIAL_TOKENS: Final = [BEGIN_OF_TEXT, END_OF_TEXT, START_OF_ROLE, END_OF_ROLE, END_OF_TURN, PAD]

# apply_chat_template renders this and tokenizes the result without special tokens of its own: the BOS must be here.
# trim: as in Llama 3, so that white space around a message does not depend on who typed it.
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
