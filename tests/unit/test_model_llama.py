import msgspec
import pytest
import torch
import transformers

from atoll.model.attention import Mask
from atoll.model.llama import MLP, Llama
from atoll.model.presets import PRESETS, LlamaConfig, RopeScaling


def two_layers(config: LlamaConfig) -> LlamaConfig:
    """A preset's shape in proportion, small enough to compare on one core."""
    shrink = max(1, config.head_dim // 32)
    return msgspec.structs.replace(
        config,
        num_hidden_layers=2,
        vocab_size=512,
        hidden_size=config.num_attention_heads * 32,
        intermediate_size=config.intermediate_size // (4 * shrink),
        head_dim=config.head_dim // shrink,
    )


def theirs(config: LlamaConfig) -> transformers.LlamaForCausalLM:
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling:
        rope |= {"rope_type": "llama3", **msgspec.structs.asdict(config.rope_scaling)}
    dimensions = {k: v for k, v in msgspec.structs.asdict(config).items() if not k.startswith("rope")}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**dimensions, rope_parameters=rope)).eval()


@pytest.mark.parametrize("name", PRESETS)
def test_logits_are_bit_equal_to_transformers(name: str):
    config = two_layers(PRESETS[name])
    if config.rope_scaling:  # so that all three bands of frequencies occur
        config = msgspec.structs.replace(
            config, rope_scaling=RopeScaling(original_max_position_embeddings=256)
        )
    reference = theirs(config)
    ours = Llama(config)
    ours.init_weights(seed=1)
    assert not reference.load_state_dict(ours.state_dict(), strict=False).unexpected_keys
    tokens = torch.randint(0, 512, (2, 70), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = ours(tokens, Mask.causal(*tokens.shape)) @ ours.head_weight.T
        assert torch.equal(logits, reference(tokens).logits)


def test_the_gradient_of_swiglu_is_that_of_its_formula():
    mlp = MLP(msgspec.structs.replace(PRESETS["demo"], hidden_size=4, intermediate_size=6)).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    plain = mlp.down_proj(torch.nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
    weight = torch.randn(plain.shape, dtype=torch.float64, generator=generator)
    inputs = (x, *mlp.parameters())
    expected = torch.autograd.grad((plain * weight).sum(), inputs)
    torch.testing.assert_close(torch.autograd.grad((mlp(x) * weight).sum(), inputs), expected)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name not in ("demo", "150m") else []) for name in PRESETS],
)
def test_two_layers_at_full_width_have_transformers_logits_to_the_bit(name: str):
    config = msgspec.structs.replace(PRESETS[name], num_hidden_layers=2)
    with torch.device("meta"):
        ours = Llama(config)
    generator = torch.Generator().manual_seed(2)
    weights = {
        n: torch.empty(p.shape).normal_(0.0 if p.ndim > 1 else 1.0, 0.02, generator=generator)
        for n, p in ours.named_parameters()
    }
    ours.load_state_dict(weights, assign=True)
    with torch.device("meta"):
        reference = theirs(config)
    # Both hold the same memory: the largest of them has 6 GB of weights.
    reference.load_state_dict(weights, strict=False, assign=True)
    reference.tie_weights()
    # Made anew, since its buffers were on meta.
    reference.model.rotary_emb = type(reference.model.rotary_emb)(reference.config)
    assert not any(p.is_meta for p in reference.parameters())
    tokens = torch.randint(0, config.vocab_size, (1, 96), generator=generator)
    with torch.no_grad():
        logits = ours(tokens, Mask.causal(*tokens.shape)) @ ours.head_weight.T
        assert torch.equal(logits, reference(tokens).logits)


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_have_transformers_names_and_count(name: str):
    config = PRESETS[name]
    with torch.device("meta"):
        ours, reference = Llama(config), theirs(config)
    assert sum(p.numel() for p in ours.parameters()) == config.num_parameters
    shapes = {name: p.shape for name, p in ours.named_parameters()}
    assert shapes == {name: p.shape for name, p in reference.named_parameters()}


def test_weights_are_a_pure_function_of_config_and_seed():
    first, second = Llama(PRESETS["demo"]), Llama(PRESETS["demo"])
    first.init_weights(seed=3)
    torch.manual_seed(99)
    second.init_weights(seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    query = first.model.layers[0].self_attn.q_proj.weight.detach().clone()
    first.init_weights(seed=4)
    assert not torch.equal(query, first.model.layers[0].self_attn.q_proj.weight)
    assert not torch.equal(query, first.model.layers[1].self_attn.q_proj.weight)
    assert first.model.norm.weight.eq(1).all()


def test_a_document_in_a_packed_window_has_the_hidden_states_it_has_alone():
    model = Llama(PRESETS["demo"])
    model.init_weights(seed=0)
    tokens = torch.randint(0, 2048, (2, 60), generator=torch.Generator().manual_seed(0))
    documents = torch.tensor([[0] * 20 + [1] * 40, [2] * 60])
    with torch.no_grad():
        packed = model(tokens, Mask.of_documents(documents))
        alone = model(tokens[:1, 20:], Mask.causal(1, 40))
    torch.testing.assert_close(packed[:1, 20:], alone, rtol=1e-4, atol=1e-5)
