"""Continuations: of equal draws for equal seeds, alike in any company, equal to those of transformers."""

import msgspec
import pytest
import torch
import transformers

from atoll.errors import UserError
from atoll.model import foreign, hf
from atoll.model.attention import Mask
from atoll.model.generate import Sampling, generate
from atoll.model.llama import Llama
from atoll.model.presets import PRESETS

CONFIG = msgspec.structs.replace(
    PRESETS["demo"],
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=48,
)
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [12, 13, 14]]
GREEDY = Sampling(max_tokens=12, temperature=0)


@pytest.fixture(scope="module")
def model() -> Llama:
    made = Llama(CONFIG)
    made.init_weights(seed=0)
    for parameter in made.parameters():  # sharper than a fresh model, so that no two tokens are alike likely
        parameter.data *= 3
    return made


def one(model: hf.Model, prompt: list[int], sampling: Sampling, **given: object) -> list[int]:
    return generate(model, [prompt], sampling, **given)[0]


def test_the_same_seed_gives_the_same_tokens(model: Llama) -> None:
    sampling = Sampling(max_tokens=12, top_p=0.9, seed=5)
    first = one(model, [1, 2, 3], sampling)
    assert len(first) == 12
    assert first == one(model, [1, 2, 3], sampling)
    assert first != one(model, [1, 2, 3], msgspec.structs.replace(sampling, seed=6))


def test_temperature_zero_and_a_tiny_top_p_take_the_likeliest(model: Llama) -> None:
    greedy = one(model, [4], GREEDY)
    assert greedy == one(model, [4], Sampling(max_tokens=12, top_p=1e-9, seed=1))
    tokens = [4]
    with torch.no_grad():  # without a cache: all is read anew for each token
        for _ in range(12):
            logits = model(torch.tensor([tokens]), Mask.causal(1, len(tokens)))[0, -1] @ model.head_weight.T
            tokens.append(int(logits.argmax()))
    assert greedy == tokens[1:]


def test_a_stop_token_ends_the_sequence_and_is_left_out(model: Llama) -> None:
    tokens = one(model, [4], GREEDY)
    stop = tokens[-1]
    assert one(model, [4], GREEDY, stop_tokens=frozenset({stop})) == tokens[: tokens.index(stop)]


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(max_tokens=12, top_p=0.9, seed=3)])
def test_a_prompt_is_continued_alike_in_any_company(model: Llama, sampling: Sampling) -> None:
    alone = [one(model, prompt, sampling) for prompt in PROMPTS]
    assert generate(model, PROMPTS, sampling) == alone
    stops = frozenset({alone[0][3], alone[2][1]})  # rows that end early leave the others as they are
    together = generate(model, PROMPTS, sampling, stops)
    assert together == [one(model, prompt, sampling, stop_tokens=stops) for prompt in PROMPTS]


def test_tokens_are_heard_as_they_come(model: Llama) -> None:
    heard: list[tuple[int, int]] = []
    found = generate(model, PROMPTS, GREEDY, hear=lambda row, token: heard.append((row, token)))
    assert [token for row, token in heard if row == 2] == found[2]
    assert [row for row, _ in heard[:4]] == [0, 1, 2, 3]


def test_generation_ends_where_the_model_can_read_no_further(model: Llama) -> None:
    long, sampling = list(range(40)), Sampling(max_tokens=30, temperature=0)
    assert [len(tokens) for tokens in generate(model, [long, [1]], sampling)] == [8, 30]
    assert generate(model, [long, [1]], sampling)[1] == one(model, [1], sampling)
    assert len(one(model, list(range(47)), sampling)) == 1


def test_a_prompt_longer_than_the_context_is_refused(model: Llama) -> None:
    with pytest.raises(UserError, match="the prompt has 48 tokens, and this model reads at most 48"):
        one(model, list(range(48)), GREEDY)


def test_transformers_continues_alike(model: Llama, tmp_path) -> None:
    hf.save(tmp_path, CONFIG, model.state_dict())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    for prompt in PROMPTS:
        ids = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=12,
            do_sample=False,
        )
        assert one(model, prompt, GREEDY) == ids[0, len(prompt) :].tolist()


def test_a_foreign_model_is_read_with_its_own_cache(tmp_path) -> None:
    config = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=32, vocab_size=96, n_positions=48, bos_token_id=0, eos_token_id=1
    )
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for parameter in theirs.parameters():
        parameter.data *= 4
    theirs.save_pretrained(tmp_path)
    ours = foreign.load(tmp_path)
    for prompt, found in zip(PROMPTS, generate(ours, PROMPTS, GREEDY), strict=True):
        ids = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert found == ids[0, len(prompt) :].tolist()
