"""Steps and optimizers of one island."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh
from unit.islands import OPTIMIZERS, equal, some_batch, some_island, some_recipe, take_step, values

from atoll import recipe
from atoll.data.loader import NO_LABEL
from atoll.errors import UserError
from atoll.island import optim
from atoll.island.parallelize import device, parallelize
from atoll.island.ranks import Ranks
from atoll.island.step import Island, LossNotFiniteError
from atoll.model.llama import Llama
from atoll.model.presets import resolve
from atoll.objective import build


def test_loss_and_step_do_not_depend_on_the_micro_batches():
    batch = some_batch()
    whole, parts = some_island(), some_island()
    one = take_step(whole, [batch], 0)
    two = take_step(parts, [batch.windows(0, 1), batch.windows(1, 4)], 0)
    assert one.count == two.count == (batch.labels >= 0).sum()
    assert one.loss == pytest.approx(two.loss, rel=1e-6)
    assert one.gradient_norm == pytest.approx(two.gradient_norm, rel=1e-5)
    for a, b in zip(values(whole), values(parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_on_one_batch_lowers_its_loss(optimizer):
    island, batch = some_island(some_recipe(optimizer)), some_batch()
    loss, tokens = island.evaluate([batch])
    metrics = [take_step(island, [batch], step) for step in range(12)]
    assert metrics[0].loss == pytest.approx(loss / tokens, rel=1e-6)
    assert metrics[-1].loss < metrics[0].loss - 0.3
    assert metrics[0].learning_rate == optimizer.lr


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_step_without_a_single_label_changes_nothing(optimizer):
    one, other = some_island(some_recipe(optimizer)), some_island(some_recipe(optimizer))
    batch = some_batch()
    empty = dataclasses.replace(batch, labels=np.full_like(batch.labels, NO_LABEL))
    for island in (one, other):
        take_step(island, [batch], 0)
    nothing = take_step(other, [empty], 1)
    assert (nothing.loss, nothing.count, nothing.gradient_norm) == (None, 0, 0.0)
    assert take_step(one, [batch], 2) == take_step(other, [batch], 2), "nor do the moments decay"
    assert equal(values(one), values(other))


def test_the_learning_rate_follows_the_schedule():
    schedule = recipe.Schedule(type="linear", warmup_steps=1)
    island = some_island(some_recipe(schedule=schedule))
    rates = [take_step(island, [some_batch()], step).learning_rate for step in (0, 1, 2, 200)]
    assert rates == pytest.approx([0.005, 0.01, 0.01 * (1 - 1 / 199), 0.0])


def test_a_loss_that_is_not_finite_names_its_step():
    island = some_island()
    take_step(island, [some_batch()], 0)
    next(iter(island.parameters().values()))[3] = torch.nan
    for step in (17, 18):
        island.inner_step([island.place(some_batch())], step)
    with pytest.raises(LossNotFiniteError, match="inner step 17: loss nan") as refusal:
        island.read()
    assert isinstance(refusal.value, UserError), "a sentence at the command line, and no traceback"


def test_metrics_are_the_same_whether_read_after_each_step_or_later():
    at_once, later = some_island(), some_island()
    told = [take_step(at_once, [some_batch(step)], step) for step in range(3)]
    for step in range(3):
        later.inner_step([later.place(some_batch(step))], step)
    assert later.read() == told
    assert later.read() == []


def test_parameters_are_the_models_own_and_load_copies_into_them():
    island, other = some_island(), some_island()
    take_step(island, [some_batch()], 0)
    arrays = {name: value.numpy().copy() for name, value in island.parameters().items()}
    for array in arrays.values():
        array.flags.writeable = False
    assert list(arrays) == list(island.model.state_dict())
    other.load(arrays)
    assert equal(values(other), values(island))
    other.load(some_island().parameters())
    assert not equal(values(other), values(island))
    with pytest.raises(ValueError, match="on one side only"):
        other.load({name: array for name, array in arrays.items() if name != "lm_head.weight"})
    with pytest.raises(ValueError, match=r"model\.norm\.weight: shape"):
        other.load(arrays | {"model.norm.weight": np.ones(3, np.float32)})


def test_only_matrices_decay_and_muon_has_only_those_of_the_blocks():
    model = some_island().model
    (adamw,) = optim.build(model, recipe.AdamW())
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.1, 0.0]
    assert all(p.ndim == 1 for p in adamw.param_groups[1]["params"])
    muon, adamw = optim.build(model, recipe.Muon())
    assert sum(len(group["params"]) for group in muon.param_groups) == 7 * model.config.num_hidden_layers
    assert any(p is model.model.embed_tokens.weight for p in adamw.param_groups[0]["params"])


def test_an_unknown_device_is_a_user_error():
    with pytest.raises(UserError, match=r"island\.device: 'abacus'"):
        device("abacus")


@pytest.fixture
def mesh():
    ranks = Ranks.of_torchrun()
    yield ranks.device_mesh(torch.device("cpu"))
    ranks.close()


def parallel_island(mesh: DeviceMesh, island: recipe.Island) -> Island:
    described = some_recipe()
    model = Llama(resolve(described.model, 64))
    model.init_weights(described.seed)
    return Island(parallelize(model, mesh, island), build(described, 64), described, mesh)


def test_in_float8_an_island_trains_nearly_as_in_fp32_on_the_same_parameters(mesh):
    pytest.importorskip("torchao", reason="pip install 'atoll[float8]' to run this")
    plain, narrow = parallel_island(mesh, recipe.Island()), parallel_island(mesh, recipe.Island(float8=True))
    assert list(narrow.parameters()) == list(plain.parameters())
    assert all(value.dtype == torch.float32 for value in narrow.parameters().values())
    batch = some_batch()
    losses = [[take_step(island, [batch], step).loss for step in range(12)] for island in (plain, narrow)]
    assert losses[1] == pytest.approx(losses[0], abs=0.05)
    assert losses[1] != losses[0]
    assert losses[1][-1] < losses[1][0] - 0.3


def test_float8_without_torchao_says_what_to_install(mesh, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(UserError, match=r"pip install 'atoll\[float8\]'"):
        parallel_island(mesh, recipe.Island(float8=True))


def test_a_single_cpu_rank_has_nothing_to_offload(mesh):
    island, plain = (
        parallel_island(mesh, recipe.Island(cpu_offload=True)),
        parallel_island(mesh, recipe.Island()),
    )
    batch = some_batch()
    assert take_step(island, [batch], 0).loss == take_step(plain, [batch], 0).loss
