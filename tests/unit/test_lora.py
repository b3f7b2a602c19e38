"""Adapters: what is trained and exchanged is them alone, beside weights that are named by their digest."""

import math
import shutil
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from unit.islands import Batch, some_batch, some_recipe, take_step

from atoll import recipe as recipes
from atoll.errors import UserError
from atoll.island.checkpoint import InnerCheckpoints
from atoll.island.ranks import Ranks
from atoll.island.step import Island
from atoll.model import hf, lora
from atoll.model.attention import Mask
from atoll.model.llama import Llama
from atoll.model.presets import resolve
from atoll.objective import build
from atoll.recipe import Lora, Recipe

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    model = Llama(resolve(some_recipe().model, 64))
    model.init_weights(3)
    hf.save_model(directory, model, context_length=32, bos_token_id=0, eos_token_id=1)
    return directory


def recipe_of(checkpoint: Path, seed: int = 0, **changes: object) -> Recipe:
    model = recipes.Model(from_=str(checkpoint), lora=Lora(rank=4, **changes))
    return msgspec.structs.replace(some_recipe(), model=model, seed=seed)


def island_of(described: Recipe) -> Island:
    model = hf.build(described.model, 64)
    lora.init_adapters(model, described.seed)
    return Island(model, build(described, 64), described)


def logits(model: hf.Model, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        hidden = model(torch.tensor(batch.tokens), Mask.causal(*batch.tokens.shape))
        return hidden @ model.head_weight.T


def test_at_the_start_adapters_change_nothing_and_training_changes_only_them(checkpoint) -> None:
    island, base, batch = island_of(recipe_of(checkpoint)), hf.open_model(checkpoint), some_batch()
    assert torch.equal(logits(island.model, batch), logits(base, batch))
    frozen = {name: p.clone() for name, p in island.model.named_parameters() if not p.requires_grad}
    losses = [take_step(island, [batch], step).loss for step in range(8)]
    assert losses[-1] < losses[0] - 0.05
    after = dict(island.model.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())


def test_what_islands_exchange_is_the_adapters_and_the_digest_of_the_base(checkpoint) -> None:
    island, other, batch = *(island_of(recipe_of(checkpoint)) for _ in range(2)), some_batch(1)
    parameters = island.parameters()
    *adapters, base = parameters
    assert base == f"base.{lora.digest_of(checkpoint)}"
    assert parameters[base].numel() == 0
    assert all("lora_" in name for name in adapters)
    assert len(adapters) == 2 * 7 * 2  # layers, the linear ones of each, A and B
    take_step(island, [batch], 0)
    other.load(island.parameters())
    assert torch.equal(logits(other.model, batch), logits(island.model, batch))


def test_merged_weights_give_the_same_logits_under_the_names_of_the_base(checkpoint) -> None:
    island, batch = island_of(recipe_of(checkpoint)), some_batch()
    for step in range(3):
        take_step(island, [batch], step)
    before = logits(island.model, batch)
    lora.merge(island.model)
    torch.testing.assert_close(logits(island.model, batch), before, rtol=1e-4, atol=1e-5)
    names = list(hf.open_model(checkpoint).state_dict())
    assert list(island.model.state_dict()) == list(lora.trained(island.model)) == names


@pytest.mark.filterwarnings("ignore")  # of peft
def test_peft_loads_what_is_written_as_an_adapter(checkpoint, tmp_path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    described = recipe_of(checkpoint, layers=("q_proj", "down_proj"))
    island, batch = island_of(described), some_batch()
    for step in range(3):
        take_step(island, [batch], step)
    hf.save_adapter(tmp_path, island.model, described.model)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(checkpoint), tmp_path)
    with torch.no_grad():
        want = theirs(input_ids=torch.tensor(batch.tokens)).logits
    torch.testing.assert_close(logits(island.model, batch), want, rtol=1e-4, atol=1e-5)


def test_other_weights_under_the_adapters_are_refused(checkpoint, tmp_path) -> None:
    island = island_of(recipe_of(checkpoint))
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    model = hf.open_model(other)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    hf.save_model(other, model, context_length=32, bos_token_id=0, eos_token_id=1)
    names = list(island.parameters())
    lora.check_base(island.model, names, checkpoint)
    with pytest.raises(UserError, match=r"other weights than the run's adapters .*island\.base"):
        lora.check_base(island_of(recipe_of(other)).model, names, other)


def test_layers_that_are_not_there_are_named(checkpoint) -> None:
    with pytest.raises(UserError, match=r"no linear layer of .* is named c_attn; there are .*q_proj"):
        hf.build(recipe_of(checkpoint, layers=("q_proj", "c_attn")).model, 64)


def test_without_peft_it_is_said_what_to_install(checkpoint, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'atoll\[post\]'"):
        hf.build(recipe_of(checkpoint).model, 64)


def test_adapters_start_as_a_function_of_the_seed(checkpoint) -> None:
    one, same, other = (island_of(recipe_of(checkpoint, seed)).parameters() for seed in (1, 1, 2))
    for name in one:
        assert torch.equal(one[name], same[name])
        if "lora_A" in name:
            assert not torch.equal(one[name], other[name])
            assert one[name].abs().max() <= 1 / math.sqrt(one[name].shape[1])


def test_the_moments_of_adapters_are_kept(checkpoint, tmp_path) -> None:
    ranks, batch = Ranks.of_torchrun(), some_batch()
    try:
        one, other = (island_of(recipe_of(checkpoint)) for _ in range(2))
        take_step(one, [batch], 0)
        with InnerCheckpoints(one, tmp_path, 1, ranks) as saved:
            saved.save(1)
        with InnerCheckpoints(other, tmp_path, 1, ranks) as saved:
            assert saved.restore() == 1
        other.load(one.parameters())
        assert take_step(one, [batch], 1) == take_step(other, [batch], 1)
        assert all(torch.equal(value, other.parameters()[name]) for name, value in one.parameters().items())
    finally:
        ranks.close()
