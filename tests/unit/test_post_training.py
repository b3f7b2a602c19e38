"""The loop that ships, on chats and pairs: what is measured, what is exported, and how it goes on."""

import math
import shutil

import pytest
import torch
from golden.first_steps import ThreadAgent, enrol
from unit.chats import chat_recipe, prepared
from unit.test_capture import quiet, teacher_of

from atoll.agent.line import AgentLine
from atoll.agent.settings import Settings
from atoll.data.loader import Loader
from atoll.errors import UserError
from atoll.island.ranks import Ranks
from atoll.island.step import InnerMetrics
from atoll.mesh import ElasticDeviceMesh, Swarm
from atoll.post.verb import Asked, capture_for
from atoll.publish import states
from atoll.publish.adapter import export_adapter
from atoll.recipe import Recipe
from atoll.run.directory import RunDir
from atoll.run.genesis import prepare
from atoll.train import train


def quiet_progress(progress: object) -> None:
    pass


def trained(recipe: Recipe, run_dir: RunDir) -> list[InnerMetrics]:
    """What an island of a run without others measures until it is finished."""
    island = run_dir.islands / "island"
    run = enrol(run_dir, island, recipe)
    found: list[InnerMetrics] = []
    threads, ranks = torch.get_num_threads(), Ranks.of_torchrun()
    try:
        agent = ThreadAgent(island, run, run_dir, recipe)
        line = AgentLine(Settings(directory=island), start=lambda *_: agent)
        with ElasticDeviceMesh(ranks, Swarm(ranks, line)) as mesh:
            train(mesh, recipe.island, island, lambda plan, number, metrics: found.append(metrics))
    finally:
        ranks.close()
        torch.set_num_threads(threads)
    return found


def test_supervised_fine_tuning_counts_what_the_assistant_says(tmp_path) -> None:
    recipe, run_dir = prepared(tmp_path, "sft", "stage.0.until=16", "objective.outer_lr=1")
    measured = trained(recipe, run_dir)
    (source,) = Loader(run_dir.data, recipe).manifest.sources.values()
    assert source.num_labels("train") / 2 < sum(each.count for each in measured[:4]) < 768 * 4 / 2
    assert measured[-1].loss < measured[0].loss - 0.5
    assert measured[0].further == {}


def test_preference_optimisation_starts_at_ln_2_and_learns_what_was_chosen(tmp_path) -> None:
    recipe, run_dir = prepared(tmp_path, "dpo", "stage.0.until=16")
    capture_for(recipe, run_dir, Asked(), quiet)
    measured = trained(recipe, run_dir)
    assert measured[0].loss == pytest.approx(math.log(2), abs=1e-6)
    assert measured[0].further["margin"] == pytest.approx(0, abs=1e-6)
    assert measured[1].loss < measured[0].loss
    assert measured[-1].further["margin"] > 0.5
    assert measured[-1].further["accuracy"] > 0.8


def test_distillation_comes_nearer_to_its_teacher(tmp_path) -> None:
    changes = "stage.0.until=16", "objective={type='distill', cross_entropy=0.5, outer_lr=1}"
    recipe, run_dir = prepared(tmp_path, "distill", *changes)
    teacher = teacher_of((recipe, run_dir), tmp_path / "teacher")
    capture_for(recipe, run_dir, Asked(teacher=teacher, num_entries=8), quiet)
    measured = trained(recipe, run_dir)
    assert measured[0].further["divergence"] > 0
    assert measured[-1].loss < measured[0].loss - 0.3


def test_adapters_train_beside_a_base_that_lies_elsewhere_here(tmp_path) -> None:
    first = prepared(tmp_path / "first", "sft")
    base, elsewhere = teacher_of(first, tmp_path / "base"), tmp_path / "elsewhere"
    changes = f"model={{from='{base}', lora={{rank=2}}}}", f"tokenizer={{file='{base}/tokenizer.json'}}"
    recipe, run_dir = prepared(tmp_path, "sft", *changes, f"island.base='{elsewhere}'")
    *adapters, of_base = (tensor.name for tensor in run_dir.state_0().layout.tensors)
    assert all("lora_" in name for name in adapters)
    assert of_base.startswith("base.")
    member = run_dir.islands / "first"
    enrol(run_dir, member, recipe)
    shutil.copytree(run_dir.genesis, member / "outer")
    export_adapter(run_dir, tmp_path / "adapter", step=0)
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
    with pytest.raises(UserError, match="trains all weights, and no adapters"):
        whole_dir = first[1]
        enrol(whole_dir, whole_dir.islands / "first", first[0])
        shutil.copytree(whole_dir.genesis, whole_dir.islands / "first" / "outer")
        export_adapter(whole_dir, tmp_path / "none", step=0)
    base.rename(elsewhere)  # what the recipe names is not on this island's machine
    measured = trained(recipe, run_dir)
    assert measured[-1].loss < measured[0].loss


def test_a_run_begins_where_another_has_ended(tmp_path, monkeypatch) -> None:
    first, first_dir = prepared(tmp_path / "first", "sft", "seed=5")
    with pytest.raises(UserError, match="no island of a run here"):
        prepare(first, RunDir(tmp_path / "early"), quiet_progress, start=first_dir)
    member = first_dir.islands / "island"
    enrol(first_dir, member, first)
    shutil.copytree(first_dir.genesis, member / "outer")
    with pytest.raises(UserError, match="let the run commit some steps first"):
        prepare(first, RunDir(tmp_path / "early"), quiet_progress, start=first_dir)
    # In the place of what a run has committed: where it began, which is proven as well.
    monkeypatch.setattr(
        states, "committed_state", lambda run_dir, state_0=states.committed_state: state_0(run_dir, 0)
    )
    end = first_dir.state_0().root
    tokenizer = f"tokenizer={{file='{first_dir.data}/tokenizer/tokenizer.json'}}"
    recipe, run_dir = chat_recipe(tmp_path, "dpo", tokenizer), RunDir(tmp_path / "run")
    prepare(recipe, run_dir, quiet_progress, start=first_dir)
    assert run_dir.state_0().root == end
    prepare(recipe, run_dir, quiet_progress, start=first_dir)  # again: it is kept
    other, other_dir = prepared(tmp_path / "other", "dpo", tokenizer)
    with pytest.raises(UserError, match="begins from another state"):
        prepare(other, other_dir, quiet_progress, start=first_dir)
    with pytest.raises(UserError, match=r"the same tokenizer: tokenizer\.file = "):
        prepare(chat_recipe(tmp_path, "dpo"), RunDir(tmp_path / "tokens"), quiet_progress, start=first_dir)
    wider = chat_recipe(tmp_path, "dpo", tokenizer, "model.intermediate_size=64")
    with pytest.raises(UserError, match="trains another model"):
        prepare(wider, RunDir(tmp_path / "wider"), quiet_progress, start=first_dir)
