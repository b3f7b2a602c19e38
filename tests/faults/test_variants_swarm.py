"""Variants that are hosted side by side for whoever joins: each trains on its own, then all are ranked."""

import math
from pathlib import Path

import pytest
from faults.processes import World
from unit.test_variants import TEXT

from atoll import recipe as recipes
from atoll.post import training
from atoll.post.training import MODEL
from atoll.post.variants import train_all
from atoll.run.genesis import prepare

SMALL = "hidden_size = 32, intermediate_size = 48, num_attention_heads = 2, num_key_value_heads = 1"
JOINED = {"low": ("ada", "emmy"), "high": ("kurt",)}  # whoever came, by variant


@pytest.mark.slow
def test_whoever_has_joined_trains_the_variants_and_the_recipe_ranks_them(
    tmp_path: Path, monkeypatch
) -> None:
    source, out = tmp_path / "v.toml", tmp_path / "v"
    text = TEXT.replace('model.preset = "demo"', f'model = {{ preset = "demo", {SMALL} }}')
    source.write_text(text.partition('[[variant]]\nname = "wild"')[0].replace("until = 4", "until = 40"))
    worlds = {name: World(out / name, str(source)) for name in JOINED}
    try:
        for name, world in worlds.items():
            prepare(recipes.load(source, [], name), world.run_dir, lambda _: None)
            world.host("--variant", name, "--wait-for", str(len(JOINED[name])))
        for name, world in worlds.items():
            for contributor in JOINED[name]:
                world.join(contributor, "island.device=cpu", "island.threads=1")
        for name, world in worlds.items():
            for contributor in JOINED[name]:
                assert world.children[contributor].process.wait(300) == 0, world.log(contributor).read_text()
            assert len(world.events("committed")) == 20 and not world.events("unequal")
            assert len(world.participants()) == len(JOINED[name])
    finally:
        for world in worlds.values():
            world.__exit__()
    done: list[str] = []
    verb = training.atoll
    monkeypatch.setattr(training, "atoll", lambda *words, **how: (done.append(words[0]), verb(*words, **how)))
    ranking = train_all(source, [], out)
    assert done == ["export", "export"]  # nothing was trained again
    assert {one.name for one in ranking.runs} == set(JOINED)
    assert all(one.value is not None and math.isfinite(one.value) for one in ranking.runs)
    assert ranking.runs[0].value < ranking.runs[1].value  # type: ignore[operator]
    assert all((out / name / MODEL / "config.json").is_file() for name in JOINED)
