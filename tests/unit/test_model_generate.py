import torch

from atoll.model.attention import Mask
from atoll.model.generate import generate
from atoll.model.llama import Llama
from atoll.model.presets import PRESETS


def some_model() -> Llama:
    model = Llama(PRESETS["demo"])
    model.init_weights(seed=0)
    return model


def test_the_same_seed_gives_the_same_tokens():
    model = some_model()
    first = generate(model, [1, 2, 3], max_tokens=12, top_p=0.9, seed=5)
    assert len(first) == 12
    assert first == generate(model, [1, 2, 3], max_tokens=12, top_p=0.9, seed=5)
    assert first != generate(model, [1, 2, 3], max_tokens=12, top_p=0.9, seed=6)


def test_temperature_zero_and_a_tiny_top_p_take_the_likeliest():
    model = some_model()
    greedy = generate(model, [4], max_tokens=5, temperature=0)
    assert greedy == generate(model, [4], max_tokens=5, top_p=1e-9, seed=1)
    with torch.no_grad():
        logits = model(torch.tensor([[4]]), Mask.causal(1, 1))[0, -1] @ model.head_weight.T
    assert greedy[0] == int(logits.argmax())


def test_a_stop_token_ends_the_sequence_and_is_left_out():
    model = some_model()
    tokens = generate(model, [4], max_tokens=5, temperature=0)
    stop = tokens[-1]
    stopped = generate(model, [4], max_tokens=5, temperature=0, stop_tokens=frozenset({stop}))
    assert stopped == tokens[: tokens.index(stop)]
