"""Objectives of post-training: no packing and no split changes them, and a preference starts at ln 2."""

import dataclasses
import math
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor
from unit.islands import Batch, some_island, some_recipe, take_step
from unit.packed import Document, Row, chats, pack, some_pairs

from atoll import recipe
from atoll.island.step import Island
from atoll.objective.entries import Entries
from atoll.objective.preference import by_document
from atoll.recipe.objective import AnyObjective

LENGTH = 64
OBJECTIVES: dict[str, AnyObjective] = {
    "sft": recipe.Sft(),
    "dpo": recipe.Dpo(label_smoothing=0.1),
    "ipo": recipe.Ipo(),
    "simpo": recipe.SimPo(),
    "distill": recipe.Distill(temperature=2.0, cross_entropy=0.3),
}
PAIRS = some_pairs(6)
each_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)


def island_of(objective: AnyObjective, seed: int = 0) -> Island:
    return some_island(msgspec.structs.replace(some_recipe(z_loss=0.0), objective=objective, seed=seed))


def batch_of(objective: AnyObjective, windows: Sequence[Sequence[Row]], reference_seed: int = 1) -> Batch:
    """These pairs, or of each the chosen side, with the columns that the objective needs."""
    if objective.rows == "pairs":
        batch = pack(windows, LENGTH)
    else:
        batch = pack([chats(pairs) for pairs in windows], LENGTH)
    if "reference" in objective.columns:
        reference = island_of(objective, reference_seed)
        with torch.no_grad():
            sums, num_labels = by_document(reference.model, reference.place(batch))
        return dataclasses.replace(
            batch, by_document={"reference": sums.where(num_labels > 0, torch.nan).numpy()}
        )
    if "teacher" in objective.columns:  # one that knows the last token only
        table = np.random.default_rng(5).dirichlet(np.ones(64), 64)
        ids = np.argsort(-table)[:, :7]
        kept = np.take_along_axis(table, ids, 1)
        words = Entries(64).encoded(ids, np.log(np.concatenate((kept, 1 - kept.sum(1, keepdims=True)), 1)))
        return dataclasses.replace(batch, by_token={"teacher": words[batch.tokens]})
    return batch


def gradient(island: Island, batches: Sequence[Batch], total: int | None = None) -> Tensor:
    """The gradient of sum(objective) / `total`, else / sum(count), over the micro-batches, flat."""
    placed = [island.place(batch) for batch in batches]
    for batch in placed:
        objective = island.objective.sums(island.model, batch).objective
        (objective / (total or sum(batch.count for batch in placed))).backward()
    found = torch.cat([parameter.grad.to_dense().flatten() for parameter in island.model.parameters()])
    island.model.zero_grad()
    return found


ALONE = [[pair] for pair in PAIRS]
PACKED = [PAIRS[:2], PAIRS[2:3], PAIRS[3:5], PAIRS[5:]]


@each_objective
def test_packed_rows_give_what_rows_give_alone(objective: AnyObjective) -> None:
    island = island_of(objective)
    alone, packed = (batch_of(objective, windows) for windows in (ALONE, PACKED))
    assert island.evaluate([alone]) == pytest.approx(island.evaluate([packed]), rel=1e-5)
    torch.testing.assert_close(gradient(island, [alone]), gradient(island, [packed]), rtol=1e-4, atol=1e-6)
    one, other = (take_step(island_of(objective), [batch], 0) for batch in (alone, packed))
    assert one.count == other.count
    assert one.further == pytest.approx(other.further, rel=1e-4, abs=1e-6)


@each_objective
def test_any_split_into_micro_batches_and_ranks_gives_the_same_gradient(objective: AnyObjective) -> None:
    island, whole = island_of(objective), batch_of(objective, PACKED)
    want = gradient(island, [whole])
    assert want.norm() > 1e-2
    parts = [whole.windows(0, 1), whole.windows(1, 4)]
    torch.testing.assert_close(gradient(island, parts), want, rtol=1e-4, atol=1e-6)
    count = island.place(whole).count
    ranks = sum(gradient(island, [part], count) for part in parts)
    torch.testing.assert_close(ranks, want, rtol=1e-4, atol=1e-6)


@each_objective
def test_islands_that_are_weighed_by_their_counts_give_the_same_gradient(objective: AnyObjective) -> None:
    island, whole = island_of(objective), batch_of(objective, PACKED)
    parts = [whole.windows(0, 3), whole.windows(3, 4)]
    counts = [island.place(part).count for part in parts]
    assert counts[0] != counts[1]
    weighed = sum(count * gradient(island, [part]) for count, part in zip(counts, parts, strict=True))
    torch.testing.assert_close(weighed / sum(counts), gradient(island, [whole]), rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------------------------------------------
# preferences
def test_a_preference_starts_at_ln_2_and_leaves_it() -> None:
    objective = recipe.Dpo()
    batch, island = batch_of(objective, PACKED, reference_seed=0), island_of(objective)
    loss, count = island.evaluate([batch])
    assert (loss / count, count) == (pytest.approx(math.log(2), abs=1e-7), len(PAIRS))
    first, second = (take_step(island, [batch], step) for step in range(2))
    assert first.loss == pytest.approx(math.log(2), abs=1e-6)
    assert first.further["margin"] == pytest.approx(0, abs=1e-6)
    assert second.loss < first.loss - 1e-2
    assert second.further["margin"] > 0
    assert second.further["accuracy"] > 0.5


def logprob(island: Island, document: Document) -> tuple[float, int]:
    """Of a document's answer, and how many tokens that is; by whole logits of the document alone."""
    batch = island.place(pack([[(document,)]], len(document.tokens)))
    logits = island.model(batch.tokens, batch.mask) @ island.model.head_weight.T
    logprobs = logits[0].detach().double().log_softmax(-1)
    answer = range(document.num_prompt, len(document.tokens))
    return sum(logprobs[at - 1, document.tokens[at]].item() for at in answer), len(answer)


@pytest.mark.parametrize("name", ["dpo", "ipo", "simpo"])
def test_a_preferences_loss_is_the_papers_formula(name: str) -> None:
    objective = OBJECTIVES[name]
    island, reference = island_of(objective), island_of(objective, 1)
    losses, margins = [], []
    for pair in PAIRS:
        (chosen, chosen_length), (rejected, rejected_length) = (logprob(island, side) for side in pair)
        of_reference = [logprob(reference, side)[0] for side in pair]
        match objective:
            case recipe.Dpo(beta=beta, label_smoothing=wrong):
                margin = beta * (chosen - rejected - (of_reference[0] - of_reference[1]))
                right, left = (math.log1p(math.exp(-x)) for x in (margin, -margin))
                loss = (1 - wrong) * right + wrong * left
            case recipe.Ipo(beta=beta):
                ratio = (chosen - of_reference[0]) / chosen_length
                difference = ratio - (rejected - of_reference[1]) / rejected_length
                margin, loss = beta * difference, (difference - 1 / (2 * beta)) ** 2
            case recipe.SimPo(beta=beta, margin=gamma):
                margin = beta * (chosen / chosen_length - rejected / rejected_length)
                loss = math.log1p(math.exp(gamma - margin))
        losses.append(loss)
        margins.append(margin)
    measured = take_step(island, [batch_of(objective, PACKED)], 0)
    assert measured.loss == pytest.approx(np.mean(losses), rel=1e-5)
    accuracy = np.mean(np.array(margins) > 0)
    assert measured.further == pytest.approx({"margin": np.mean(margins), "accuracy": accuracy}, rel=1e-4)
