"""How checkpoints become one: the methods of `atoll merge`, each with the settings that have an effect on it.

`models`, in the words below, are the checkpoints that are merged, in the order in which they are given; a
task vector is a model minus the base.
"""

from typing import Annotated, Literal

from msgspec import Meta

from atoll.recipe.bounds import Factor, FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt
from atoll.recipe.table import Table

Weights = Annotated[
    list[FiniteFloat], Meta(min_length=1, description="an array of one number for each model")
]
Density = Annotated[float, Meta(gt=0, le=1, description="a number > 0 and <= 1")]


class Method(Table, frozen=True, tag_field="method"):
    """A way to make one checkpoint of several. Sums are in fp32, whatever the checkpoints' dtype is."""


class Linear(Method, frozen=True, tag="linear"):
    """The weighted mean (model soups, arXiv 2203.05482)."""

    weights: Weights | None = None  # among each other; none given: all the same


class Slerp(Method, frozen=True, tag="slerp"):
    """Between two models on the great circle; the base, if there is one, is the first of the two."""

    t: Factor = 0.5  # 0: the first model, 1: the second


class TaskArithmetic(Method, frozen=True, tag="task_arithmetic"):
    """The base plus weighted task vectors (arXiv 2212.04089)."""

    weights: Weights | None = None  # none given: the mean of the task vectors


class Ties(Method, frozen=True, tag="ties"):
    """Task vectors trimmed to their largest entries, with signs elected (arXiv 2306.01708)."""

    weights: Weights | None = None
    density: Density = 0.5  # the share of entries that stay


class Dare(Method, frozen=True, tag="dare"):
    """Task vectors with entries dropped at random, the others rescaled (arXiv 2311.03099)."""

    weights: Weights | None = None
    density: Density = 0.5
    elect_signs: bool = True  # as TIES does
    seed: NonNegativeInt = 0


class Della(Method, frozen=True, tag="della"):
    """As DARE, but smaller entries are dropped more often (arXiv 2406.11617)."""

    weights: Weights | None = None
    density: Density = 0.5
    epsilon: PositiveFloat = 0.15  # how far the probabilities of a row's entries are from `density` at most
    elect_signs: bool = True
    seed: NonNegativeInt = 0


class Breadcrumbs(Method, frozen=True, tag="breadcrumbs"):
    """Task vectors without their smallest and their largest entries (arXiv 2312.06795)."""

    weights: Weights | None = None
    density: Density = 0.9
    gamma: Factor = 0.01  # the share of entries that are dropped as the largest
    elect_signs: bool = False


class ModelStock(Method, frozen=True, tag="model_stock"):
    """Between the models' mean and the base, by the angle between task vectors (arXiv 2403.19522)."""


Simple = Linear | Slerp | TaskArithmetic | Ties | Dare | Della | Breadcrumbs | ModelStock


class Best(Method, frozen=True, tag="best"):
    """The best of the models, as it is: nothing is merged."""


class Greedy(Method, frozen=True, tag="greedy"):
    """Greedy soup (arXiv 2203.05482): the best model first, others as long as the mean is no worse."""


class Search(Method, frozen=True, tag="search"):
    """The best of the models and of several merges of one method, so never worse than a model.

    The first merge has the settings given; for the others what the method has of `weights`, `t` and `density`
    is drawn.
    """

    of: Simple
    tries: PositiveInt = 16  # merges
    seed: NonNegativeInt = 0


Merge = Simple | Best | Greedy | Search
CHOOSES = (Best, Greedy, Search)  # by a metric
Dtype = Literal["fp32", "bf16"]
NEEDS_BASE = (TaskArithmetic, Ties, Dare, Della, Breadcrumbs, ModelStock)
