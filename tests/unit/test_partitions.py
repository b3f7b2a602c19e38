"""Private sources: each island's part of them stays with it, and their weight holds over the swarm."""

import json
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

import examples

pytest.importorskip("tokenizers")

from atoll.coordinator.admission import objection_to_hello
from atoll.coordinator.members import Members
from atoll.coordinator.plans import Plans
from atoll.data.loader import Loader
from atoll.data.partition import partitions, recipe_of
from atoll.data.prepare import prepare
from atoll.errors import UserError
from atoll.recipe import Recipe, parse
from atoll.run import genesis
from atoll.run.directory import RunDir
from atoll.samples import Ranges, first_sample, merge, number_of, partition_number, private_source
from atoll.swarm.records import CommitRecord, Term

WORDS = "the old sea dog sat by the fire and told of islands storms and gold"
TERM = Term(1, "n")
ADA, BOB = (partition_number(["mail"], f"mail/{name}", "digest") for name in ("ada", "bob"))
RULES = examples.rules(
    num_outer_steps=100,
    windows_per_step=8,
    stage_ends=(200, 400),
    partitioned=("mail",),
    private_shares=({"mail": 0.25}, {"mail": 0.5}),
)


# --------------------------------------------------------------------------------------------- sample numbers
def test_a_sample_says_which_private_source_it_is_of() -> None:
    number = partition_number(["diary", "mail"], "mail/ada", "digest")
    assert private_source(first_sample(number) + 5, ["diary", "mail"]) == "mail"
    assert private_source(5, ["diary", "mail"]) == ""
    assert number != partition_number(["diary", "mail"], "mail/ada", "other data")
    sample = first_sample(number) + 5
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(sample)) == sample


def test_turns_of_partitions_are_spread_over_a_plan() -> None:
    first = first_sample(ADA)
    plan = examples.plan(term=TERM, lease=((0, 6), (first, 2)))
    assert plan.samples == [0, 1, first, 2, 3, 4, first + 1, 5]


# ----------------------------------------------------------------------------------------------------- leases
def member(members: Members, island: str, partitions: dict[str, int]) -> None:
    members.add(
        island,
        examples.hello(port=0, partitions=partitions),
        0.0,
    )


def given(leases: list[tuple[tuple[int, int], ...]]) -> tuple[int, int]:
    """(number of samples in all, number of those that are of partitions)."""
    parts = [part for lease in leases for part in lease]
    return sum(count for _, count in parts), sum(count for first, count in parts if number_of(first))


def record_of(step: int, leases: tuple[tuple[str, Ranges], ...]) -> CommitRecord:
    return examples.commit_record(term=TERM, step=step, leases=leases, stage_starts=(0,))


@pytest.mark.parametrize("restart", [False, True])
def test_a_private_source_has_its_weight_over_the_swarm(restart) -> None:
    """Only one of three islands has a partition; samples that are not committed come back later."""
    members = Members()
    for island, held in (("a", {"mail/ada": ADA}), ("b", {}), ("c", {})):
        member(members, island, held)
    plans, commits, spent = Plans(RULES), [], []
    for step in range(50):
        for island in "abc":
            assert plans.add(TERM, step, b"", members[island], members, 0.0)
        assert all(not number_of(first) for island in "bc" for first, _ in plans[island].lease)
        taking_part = {"a", "b", "c"} if step % 5 else {"b", "c"}
        leases = tuple((island, plans[island].lease) for island in sorted(taking_part))
        spent += [lease for _, lease in leases]
        commits.append(record_of(step, leases))
        plans.close_step(dict.fromkeys(taking_part, 4), members, 0.0)
        if restart:
            starts, plans = plans.stage_starts, Plans(RULES)
            plans.restore([], commits, starts, 0.0)
        total, private = given(spent)
        assert abs(private - 0.25 * total) <= 32 + 8, "within one island's plan, and what it gave back"
    turns = sorted(part for lease in spent for part in lease if number_of(part[0]))
    assert all(sum(one) <= other[0] for one, other in pairwise(turns)), "no turn twice"


def test_two_partitions_of_a_source_get_equal_turns_and_each_stage_has_its_own_weights() -> None:
    members = Members()
    member(members, "a", {"mail/ada": ADA, "mail/bob": BOB})
    plans, leases = Plans(RULES), []
    for step in range(60):
        plan = plans.add(TERM, step, b"", members["a"], members, 0.0)
        leases.append(plan.lease)
        plans.close_step({"a": 4}, members, 0.0)
    assert given(leases[:50]) == (1600, 400) and given(leases[50:]) == (320, 160)
    assert abs(plans.leases.num_turns(ADA) - plans.leases.num_turns(BOB)) <= 16


def test_a_step_cut_short_returns_turns_of_partitions_too() -> None:
    members = Members()
    member(members, "a", {"mail/ada": ADA})
    plans = Plans(RULES)
    plan = plans.add(TERM, 0, b"", members["a"], members, 0.0)
    assert given([plan.lease]) == (32, 8)
    assert [given([part]) for part in plan.split_lease(1)] == [(8, 2), (24, 6)], (
        "turns are spread evenly over a plan"
    )
    assert merge(span for part in plan.split_lease(1) for span in part) == plan.lease
    plans.close_step({"a": 1}, members, 1.0)
    again = plans.add(TERM, 1, b"", members["a"], members, 0.0)
    assert given([plan.used_lease(1), again.lease]) == (40, 10), "the weight stays"
    assert [part for part in again.lease if number_of(part[0])] == [(first_sample(ADA) + 2, 8)]


@pytest.mark.parametrize("name", ["mail/ada", "letters/ada"])
def test_a_partition_of_no_source_of_the_run_is_refused(name) -> None:
    number = partition_number(["mail"], "mail/ada", "digest")
    partitions = {name: number if name != "mail/ada" else 7}
    hello = examples.hello(partitions=partitions)
    assert "is of no partitioned source of this run" in objection_to_hello(RULES, hello)
    assert not objection_to_hello(RULES, msgspec.structs.replace(hello, partitions={"mail/ada": number}))


# ------------------------------------------------------------------------------------------------------- data
@pytest.fixture
def run_dir(tmp_path) -> RunDir:
    words = WORDS.split()
    lines = [" ".join(words[(n * 7 + k * k) % len(words)] for k in range(60)) for n in range(60)]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("\f".join(lines[:50]))
    (tmp_path / "mail.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines[50:]))
    return RunDir(tmp_path / "run")


def recipe(run_dir: RunDir, **weights: float) -> Recipe:
    tree = {
        "name": "test",
        "model": {"preset": "demo"},
        "tokenizer": {"train": 300},
        "heldout_fraction": 0.1,
        "sources": {
            "tales": {"text": str(run_dir.path.parent / "texts"), "separator": "\f"},
            "mail": {"partitioned": True},
        },
        "stage": [{"until": 10, "mixture": weights or {"tales": 3.0, "mail": 1.0}}],
        "inner": {"context_length": 32, "tokens_per_step": 64},
        "outer": {"inner_steps": 2},
    }
    return parse(tree, "test")


def prepared(run_dir: RunDir) -> Recipe:
    """The recipe, after preparing the run's data and ada's partition of it."""
    of_run = recipe(run_dir)
    prepare(of_run, run_dir.data)
    genesis.prepare_partition(
        of_run, run_dir, f"mail/ada=jsonl:{run_dir.path.parent / 'mail.jsonl'}", lambda _: None
    )
    return of_run


def test_a_partition_lies_apart_and_can_only_be_read_where_it_is(run_dir) -> None:
    of_run = prepared(run_dir)
    (part,) = partitions(run_dir.private, of_run)
    numbers = {found.name: found.number for found in partitions(run_dir.private, of_run)}
    assert numbers == {"mail/ada": part.number}
    assert (
        not part.directory.is_relative_to(run_dir.data)
        and "mail" not in Loader(run_dir.data, of_run).manifest.sources
    )
    first, here = first_sample(part.number), Loader(run_dir.data, of_run, [part])
    turns = range(first, first + part.num_windows(32))
    read = sorted(here.sample(index, [0]).window for index in turns)
    assert read == list(range(len(turns))), "every window once a pass"
    assert here.sample(first + len(turns), [0]).pass_number == 1
    assert here.blocks([first, 0], [0]) == here.blocks([0], [0]), "nothing of it is asked of others"
    (step,) = here.batches([0, first], [0], 2, 2)
    assert step[0].tokens.shape == (2, 32)
    with pytest.raises(UserError, match="is of a partition that is not on this machine any more"):
        Loader(run_dir.data, of_run).sample(first, [0])


def test_the_ledger_counts_a_partition_as_its_source(run_dir) -> None:
    of_run = prepared(run_dir)
    (part,) = partitions(run_dir.private, of_run)
    count = Loader(run_dir.data, of_run).mixture.count([(0, 12), (first_sample(part.number), 4)], [0])
    assert count == {"tales": 12, "mail": 4}


def test_a_partition_with_another_tokenizer_is_refused(run_dir) -> None:
    of_run = prepared(run_dir)
    (part,) = partitions(run_dir.private, of_run)
    common = msgspec.structs.replace(Loader(run_dir.data, of_run).manifest, tokenizer="another")
    with pytest.raises(UserError, match="made with another tokenizer than the run's"):
        part.check(common)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("mail/ada", "write it as SOURCE/NAME=KIND:PATH"),
        ("mail/../x=jsonl:y", "write it as SOURCE/NAME=KIND:PATH"),
        ("tales/ada=jsonl:y", "no partitioned source of the recipe is named tales"),
        ("mail/ada=pigeon:y", "unknown key `pigeon`"),
    ],
)
def test_an_impossible_partition_is_refused_with_the_reason(run_dir, wanted, message) -> None:
    of_run = recipe(run_dir)
    prepare(of_run, run_dir.data)
    with pytest.raises(UserError, match=message):
        recipe_of(of_run, wanted, run_dir.data)


def test_a_partition_needs_the_runs_tokenizer(run_dir) -> None:
    with pytest.raises(UserError, match="the run's tokenizer is not here yet"):
        recipe_of(recipe(run_dir), "mail/ada=jsonl:y", Path("nowhere"))


def test_a_stage_needs_a_source_that_every_island_can_have(run_dir) -> None:
    with pytest.raises(UserError, match="at least one source that is not partitioned must weigh more than 0"):
        recipe(run_dir, mail=1.0)
    tree = recipe(run_dir).shared()
    tree["sources"]["mail"]["jsonl"] = "x"
    with pytest.raises(UserError, match="it is partitioned, so each island says where its part is"):
        parse(tree, "test")
