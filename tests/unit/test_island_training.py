"""Steps, optimizers and the inner checkpoint of one island."""

import errno
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
import torch

from atoll import recipe
from atoll.errors import UserError
from atoll.island import checkpoint, optim
from atoll.island.checkpoint import InnerCheckpoints
from atoll.island.parallelize import parallelize
from atoll.island.step import Island, LossNotFiniteError
from atoll.model.llama import Llama
from atoll.model.presets import resolve

OPTIMIZERS = {"adamw": recipe.AdamW(lr=1e-2), "muon": recipe.Muon()}


@dataclass(frozen=True)
class Batch:
    tokens: np.ndarray
    labels: np.ndarray
    documents: np.ndarray

    def windows(self, start: int, end: int) -> "Batch":
        return Batch(self.tokens[start:end], self.labels[start:end], self.documents[start:end])


def some_batch(seed: int = 0) -> Batch:
    """Four read-only windows of 24 tokens, two documents each, a quarter of the labels ignored."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, 64, (4, 25))
    labels = np.where(generator.random((4, 24)) < 0.25, -100, tokens[:, 1:])
    documents = np.tile((np.arange(24) >= 10).astype(np.int32), (4, 1))
    for array in (tokens, labels, documents):
        array.flags.writeable = False
    return Batch(tokens[:, :-1], labels, documents)


def some_recipe(optimizer: recipe.AdamW | recipe.Muon = OPTIMIZERS["adamw"], **inner: object) -> recipe.Recipe:
    small = recipe.Model(preset="demo", vocab_size=64, hidden_size=32, intermediate_size=48)
    base = recipe.load("demo")
    schedule = recipe.Schedule(type="constant")
    inner = {"optimizer": optimizer, "schedule": schedule, "z_loss": 1e-3} | inner
    return msgspec.structs.replace(base, model=small, inner=msgspec.structs.replace(base.inner, **inner))


def some_island(described: recipe.Recipe | None = None) -> Island:
    described = described or some_recipe()
    model = Llama(resolve(described.model, 64))
    model.init_weights(described.seed)
    return Island(parallelize(model, recipe.Island(device="cpu")), described)


def values(island: Island) -> list[torch.Tensor]:
    return [value.clone() for value in island.parameters().values()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_loss_and_step_do_not_depend_on_the_micro_batches():
    batch = some_batch()
    whole, parts = some_island(), some_island()
    one = whole.inner_step([batch], 0)
    two = parts.inner_step([batch.windows(0, 1), batch.windows(1, 4)], 0)
    assert one.tokens == two.tokens == (batch.labels >= 0).sum()
    assert one.loss == pytest.approx(two.loss, rel=1e-6)
    assert one.grad_norm == pytest.approx(two.grad_norm, rel=1e-5)
    for a, b in zip(values(whole), values(parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_on_one_batch_lowers_its_loss(optimizer):
    island, batch = some_island(some_recipe(optimizer)), some_batch()
    loss, tokens = island.evaluate([batch])
    metrics = [island.inner_step([batch], step) for step in range(12)]
    assert metrics[0].loss == pytest.approx(loss / tokens, rel=1e-6)
    assert metrics[-1].loss < metrics[0].loss - 0.3
    assert metrics[0].learning_rate == optimizer.lr


def test_the_learning_rate_follows_the_schedule():
    schedule = recipe.Schedule(type="linear", warmup_steps=1)
    island = some_island(some_recipe(schedule=schedule))
    rates = [island.inner_step([some_batch()], step).learning_rate for step in (0, 1, 2, 200)]
    assert rates == pytest.approx([0.005, 0.01, 0.01 * (1 - 1 / 199), 0.0])


def test_a_loss_that_is_not_finite_names_the_step_and_changes_nothing():
    island = some_island()
    island.inner_step([some_batch()], 0)
    name, weight = next(iter(island.parameters().items()))
    weight[3] = torch.nan
    before = values(island)
    with pytest.raises(LossNotFiniteError, match="inner step 17: loss nan"):
        island.inner_step([some_batch()], 17)
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(before, values(island), strict=True))
    assert name == "model.embed_tokens.weight"


def test_parameters_are_the_models_own_and_load_copies_into_them():
    island, other = some_island(), some_island()
    island.inner_step([some_batch()], 0)
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


def test_only_matrices_decay_and_only_hidden_ones_are_muons():
    model = some_island().model
    (adamw,) = optim.build(model, recipe.AdamW())
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.1, 0.0]
    assert all(p.ndim == 1 for p in adamw.param_groups[1]["params"])
    muon, adamw = optim.build(model, recipe.Muon())
    assert sum(len(group["params"]) for group in muon.param_groups) == 7 * model.config.num_hidden_layers
    assert any(p is model.model.embed_tokens.weight for p in adamw.param_groups[0]["params"])


def test_an_unknown_device_is_the_users_mistake():
    with pytest.raises(UserError, match=r"island\.device: 'abacus'"):
        parallelize(torch.nn.Linear(1, 1), recipe.Island(device="abacus"))


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_resumed_island_goes_on_bit_equal(tmp_path, optimizer):
    described = some_recipe(optimizer)
    steady = some_island(described)
    for step in range(3):
        steady.inner_step([some_batch(step)], step)
    InnerCheckpoints(steady, tmp_path, keep=2).save(3)
    outer_state = {name: value.numpy().copy() for name, value in steady.parameters().items()}

    resumed = some_island(described)
    assert InnerCheckpoints(resumed, tmp_path, keep=2).restore() == 3
    resumed.load(outer_state)
    for step in range(3, 6):
        assert steady.inner_step([some_batch(step)], step) == resumed.inner_step([some_batch(step)], step)
    assert equal(values(steady), values(resumed))


def test_checkpoints_are_counted_and_the_damaged_one_is_named(tmp_path):
    island = some_island()
    saved = InnerCheckpoints(island, tmp_path, keep=2)
    assert saved.restore() is None
    for step in range(1, 4):
        island.inner_step([some_batch()], step)
        saved.save(step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner-000000002", "inner-000000003"]
    shard = next((tmp_path / "inner-000000003").glob("*.distcp"))
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(UserError, match=r"distcp: missing or damaged.*delete .*inner-000000003"):
        saved.restore()
    (tmp_path / "inner-000000003" / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest\.json: missing or damaged"):
        saved.restore()


def test_after_a_rewind_the_abandoned_checkpoints_are_gone(tmp_path):
    island = some_island()
    island.inner_step([some_batch()], 0)
    saved = InnerCheckpoints(island, tmp_path, keep=3)
    for step in (10, 20, 30, 20):
        saved.save(step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner-000000010", "inner-000000020"]
    assert saved.restore() == 20


def test_a_full_disk_leaves_the_previous_checkpoint_alone(tmp_path, monkeypatch):
    island = some_island()
    island.inner_step([some_batch()], 0)
    saved = InnerCheckpoints(island, tmp_path, keep=1)
    saved.save(1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(UserError, match="no space left"):
        saved.save(2)
    assert [path.name for path in tmp_path.iterdir()] == ["inner-000000001"]
    assert saved.restore() == 1
