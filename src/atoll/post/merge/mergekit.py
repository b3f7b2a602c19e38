"""MergeKit, called as a library: the weights of a merge, and nothing else.

It would also write a configuration without the older rope keys, a tokenizer by rules of its own and a card
that asks the hub; these files are copied from the first model instead.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atoll.errors import UserError
from atoll.recipe.merge import (
    Breadcrumbs,
    Dare,
    Della,
    Linear,
    ModelStock,
    Simple,
    Slerp,
    TaskArithmetic,
    Ties,
)


def configuration(method: Simple, models: Sequence[Path], base: Path | None, dtype: str) -> dict[str, Any]:
    """What `mergekit-yaml` would be given for this merge. All paths are absolute: others are taken for the
    hub's. `dtype` is that of the result; sums are in fp32.
    """
    common: dict[str, Any] = {"dtype": "float32", "out_dtype": dtype}
    if base is not None:
        common["base_model"] = str(base)
    if isinstance(method, Slerp):
        common["base_model"] = str(base or models[0])
        listed = [{"model": str(path)} for path in models]
        return {"merge_method": "slerp", "models": listed, "parameters": {"t": method.t}, **common}
    if isinstance(method, ModelStock):
        return {"merge_method": "model_stock", "models": [{"model": str(path)} for path in models], **common}
    weights = method.weights or [1 / len(models)] * len(models)
    parameters: dict[str, Any] = {}
    if isinstance(method, Ties | Dare | Della | Breadcrumbs):
        parameters["density"] = method.density
    if isinstance(method, Della):
        parameters["epsilon"] = method.epsilon
    if isinstance(method, Breadcrumbs):
        parameters["gamma"] = method.gamma
    listed = [
        {"model": str(path), "parameters": {"weight": weight, **parameters}}
        for path, weight in zip(models, weights, strict=True)
    ]
    return {"merge_method": _name(method), "models": listed, **common}


def _name(method: Linear | TaskArithmetic | Ties | Dare | Della | Breadcrumbs) -> str:
    if isinstance(method, Dare):
        return "dare_ties" if method.elect_signs else "dare_linear"
    if isinstance(method, Della):
        return "della" if method.elect_signs else "della_linear"
    if isinstance(method, Breadcrumbs):
        return "breadcrumbs_ties" if method.elect_signs else "breadcrumbs"
    return {Linear: "linear", TaskArithmetic: "task_arithmetic", Ties: "ties"}[type(method)]


def write_weights(described: dict[str, Any], out: Path, seed: int | None) -> None:
    """Write the merged tensors, as safetensors, into the directory `out`.

    `described`: what `configuration` returned. `seed`: of methods that drop entries at random. Raises
    UserError where MergeKit cannot merge these models.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # the models are here; nothing is looked up
    try:
        with warnings.catch_warnings():  # of what it imports
            warnings.simplefilter("ignore")
            from mergekit.config import MergeConfiguration
            from mergekit.merge import run_merge
            from mergekit.options import MergeOptions
    except ModuleNotFoundError as error:
        raise UserError("merging needs mergekit; install it with: pip install 'atoll[post]'") from error
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True, random_seed=seed)
    try:
        with _quiet():
            run_merge(MergeConfiguration.model_validate(described), str(out), options)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"MergeKit cannot merge these models by {described['merge_method']}: {error}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Any:
    """Its log says what it does for its own users."""
    loggers = [logging.getLogger(name) for name in ("mergekit", "transformers")]
    old = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, old, strict=True):
            logger.setLevel(level)
