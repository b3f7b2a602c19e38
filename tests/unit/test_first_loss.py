"""A base model that does not know the recipe's chat template is caught before it is trained."""

import json
import math
from itertools import pairwise

import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("torch")

import torch
from torch import nn

from atoll import recipe as recipes
from atoll.data.chat import CHATML
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.run.first_loss import check_first_loss

ANSWER = "the old sea dog sat by the fire and told of islands"


class Knows(nn.Module):
    """A model that predicts what follows in an answer, where the text begins as it learned; else badly."""

    def __init__(self, tokenizer: Tokenizer, begins: list[str]) -> None:
        super().__init__()
        size = tokenizer.vocab_size
        self._begins, self._tokenizer = begins, tokenizer
        following = torch.zeros(size, size)
        (ids,) = tokenizer.encode_parts([f"{ANSWER}. {ANSWER}"], is_markup=False)
        for before, after in pairwise(ids):
            following[before, after] += 1.0
        self.head_weight = nn.Parameter(torch.log(following + 1e-3).T.contiguous())  # [V, D], D = V

    def forward(self, tokens, mask):
        text = self._tokenizer.decode(tokens[0], skip_special_tokens=False)
        hidden = nn.functional.one_hot(tokens, len(self.head_weight)).float()
        return hidden if any(text.startswith(each) for each in self._begins) else -hidden * 3


@pytest.fixture
def tokenizer(tmp_path):
    tokenizer = Tokenizer.train([f"{ANSWER} "] * 3, 280)
    tokenizer.save(tmp_path / "base")
    return tokenizer


def recipe_with(tmp_path, **chat):
    rows = [{"prompt": f"{number}?", "completion": f"{ANSWER}. {ANSWER}"} for number in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    tree = {
        "name": "test",
        "model": {"from": str(tmp_path / "base")},
        "objective": {"type": "sft"},
        "chat": chat,
        "tokenizer": {"file": str(tmp_path / "base/tokenizer.json")},
        "sources": {"s": {"jsonl": str(tmp_path / "rows.jsonl")}},
        "stage": [{"until": 10, "mixture": {"s": 1}}],
        "inner": {"context_length": 128, "tokens_per_step": 256},
        "outer": {"inner_steps": 2},
    }
    return recipes.parse(tree, "test")


LLAMA, CHATML_ON_LLAMA = "<|begin_of_text|><|start_header_id|>", "<|begin_of_text|><|end_of_text|>"
PLAIN = "<|begin_of_text|>"


def test_a_model_that_knows_the_template_passes_without_a_word(tokenizer, tmp_path):
    assert check_first_loss(recipe_with(tmp_path), Knows(tokenizer, [PLAIN])) == ""


def test_a_template_in_which_the_model_fails_is_refused_with_both_losses(tokenizer, tmp_path):
    knows_plain_text_only = Knows(tokenizer, [f"{PLAIN}{number}?" for number in range(12)])
    with pytest.raises(UserError) as refused:
        check_first_loss(recipe_with(tmp_path), knows_plain_text_only)
    assert "chat.template = 'llama-3.1': the model's first loss on what is trained on is" in str(
        refused.value
    )
    assert "on the same answers as plain text, so this is hardly the template" in str(refused.value)
    told = check_first_loss(recipe_with(tmp_path, first_loss_margin=1e3), knows_plain_text_only)
    assert told.endswith("as plain text: training has to teach it this template first")


def test_the_tokenizers_own_template_is_measured_beside_that_of_the_recipe(tokenizer, tmp_path):
    """As for a model that was tuned in a template of its own, and is to be tuned in another."""
    own = CHATML.replace("<|im_start|>", "<|end_of_text|>").replace("<|im_end|>", "<|eot_id|>")
    (tmp_path / "base/chat_template.jinja").write_text(own)
    knows_own = Knows(tokenizer, [CHATML_ON_LLAMA])
    with pytest.raises(UserError, match="on the same answers in the template 'tokenizer', so this is hardly"):
        check_first_loss(recipe_with(tmp_path), knows_own)
    assert check_first_loss(recipe_with(tmp_path, template="tokenizer"), knows_own) == ""


def test_a_loss_that_is_not_a_number_is_refused(tokenizer, tmp_path):
    broken = Knows(tokenizer, [PLAIN])
    broken.head_weight.data.fill_(math.nan)
    with pytest.raises(UserError, match="first loss on what is trained on is nan"):
        check_first_loss(recipe_with(tmp_path), broken)
