"""`atoll prepare`: the prepared data and the state 0 of a run, both a pure function of the recipe."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atoll import recipe as recipes
from atoll.agent import checkpoint
from atoll.data.manifest import TOKENIZER_DIR, Manifest
from atoll.data.progress import Report
from atoll.errors import UserError
from atoll.recipe import Recipe
from atoll.run.directory import RunDir
from atoll.swarm.layout import Layout, TensorSpec

SMALL_PIECE_ELEMENTS = 1 << 16
LARGE_PIECE_ELEMENTS = 1 << 18  # of a large model, whose table of small pieces would not fit a frame
LARGE_MODEL_ELEMENTS = 1_000_000_000


def prepare(
    recipe: Recipe,
    run_dir: RunDir,
    report: Report,
    tell: Callable[[str], None] = lambda _: None,
    *,
    start: RunDir | None = None,
) -> Manifest:
    """Make a run's data and state 0; verify and keep what is there already.

    `tell`: called with what the user should know about the base model. `start`: the run whose newest
    committed state is state 0. Raises UserError for a recipe or data that cannot be used, and for a start
    that is not of this model and tokenizer.
    """
    from atoll.data.prepare import prepare as prepare_data

    has_state_0 = bool(checkpoint.newest([run_dir.genesis]))
    check_model(recipe)  # first: the data may take hours
    is_base = recipe.model.from_ is not None and not has_state_0 and start is None
    if is_base and (note := _check_checkpoint(recipe)):
        tell(note)
    with run_dir.claimed(recipe):
        manifest = prepare_data(recipe, run_dir.data, report)
        if start is not None:
            _begin_from(start, recipe, run_dir, manifest)
        elif not has_state_0:
            write_state_0(run_dir, _initial_parameters(recipe, manifest.vocab_size))
    return manifest


def prepare_partition(recipe: Recipe, run_dir: RunDir, wanted: str, report: Report) -> Manifest:
    """Make this machine's part of a partitioned source. `wanted` is `SOURCE/NAME=KIND:PATH`.

    Raises UserError for anything that cannot be used.
    """
    from atoll.data.partition import recipe_of
    from atoll.data.prepare import prepare as prepare_data

    run_dir.claim(recipe)
    name, recipe_of_part = recipe_of(recipe, wanted, run_dir.data)
    return prepare_data(recipe_of_part, run_dir.private / name, report)


def prepare_own(directory: Path, recipe: str, parameters: Mapping[str, Any]) -> None:
    """Make state 0 of a run that trains your own module, as `model.own` in the recipe says.

    `parameters` are the module's named parameters; their values become state 0.
    """
    run_dir = RunDir(directory)
    run_dir.claim(recipes.load(recipe))
    write_state_0(run_dir, {name: value.detach() for name, value in parameters.items()})


def write_state_0(run_dir: RunDir, parameters: Mapping[str, Any]) -> None:
    """Keep named fp32 arrays as the run's state 0; every island must have its parameters in their order.

    Raises UserError for a value that is not finite.
    """
    with np.errstate(over="ignore"):  # what is beyond fp32 becomes infinite, and is refused below
        arrays = {name: np.asarray(value, np.float32) for name, value in parameters.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"state 0: {name} has values that are NaN or infinite, from which nothing trains")
    size = sum(array.size for array in arrays.values())
    specs = tuple(TensorSpec(name, array.shape) for name, array in arrays.items())
    is_large = size >= LARGE_MODEL_ELEMENTS
    layout = Layout(specs, piece_elements=LARGE_PIECE_ELEMENTS if is_large else SMALL_PIECE_ELEMENTS)
    flat = np.zeros(layout.num_elements, np.float32)
    for tensor, where in layout.tensor_slices():
        flat[where] = arrays[tensor.name].reshape(-1)
    checkpoint.save(run_dir.genesis, layout, 0, checkpoint.flat_root(layout, flat), flat, None)


def check_model(recipe: Recipe) -> None:
    """Raises UserError where no model can be made of what the recipe says."""
    from atoll.model.presets import ForeignError, resolve

    if recipe.model.own:
        raise UserError(
            "model.own: there is nothing to prepare; your program makes state 0, as examples/own_loop.py does"
        )
    with contextlib.suppress(ForeignError):  # which only transformers, once it builds the model, can judge
        resolve(recipe.model, recipe.tokenizer.train or 1)


def _check_checkpoint(recipe: Recipe) -> str:
    """What the user should know about a base model; "" for nothing.

    Raises UserError where it has no weights to train, cannot read the recipe's windows, or does not know the
    recipe's chat template.
    """
    from atoll.model import hf
    from atoll.model.foreign import Foreign

    model = hf.open_model(recipe.model.checkpoint)
    length = recipe.inner.context_length
    if isinstance(model, Foreign) and (model.max_positions or length) < length:
        raise UserError(
            f"inner.context_length = {length}: {recipe.model.from_} reads at most {model.max_positions} "
            "tokens, as its config.json says; ask for at most that"
        )
    if recipe.objective.rows == "stream" or recipe.tokenizer.file is None:
        return ""
    from atoll.run.first_loss import check_first_loss

    return check_first_loss(recipe, model)


def _begin_from(start: RunDir, recipe: Recipe, run_dir: RunDir, manifest: Manifest) -> None:
    """Make the newest committed state of another run state 0. Raises UserError where it is not, or cannot."""
    from atoll.model import hf, lora
    from atoll.publish.export import load_model
    from atoll.publish.states import committed_state

    state = committed_state(start)
    theirs = Manifest.load(start.data)
    tokenizer = f"{TOKENIZER_DIR}/tokenizer.json"
    if theirs.files[tokenizer] != manifest.files[tokenizer]:
        raise UserError(
            f"{start.path}: its tokens are not those of {run_dir.path}; give this run the same tokenizer: "
            f"tokenizer.file = {str(start.data / tokenizer)!r}"
        )
    parameters = lora.trained(load_model(state.recipe, theirs.vocab_size, state))
    ours = lora.trained(hf.build(recipe.model, manifest.vocab_size))
    if {name: value.shape for name, value in ours.items()} != {
        name: value.shape for name, value in parameters.items()
    }:
        raise UserError(
            f"{start.path}: trains another model than this recipe; give it the same [model], or export that "
            "run and name the checkpoint as model.from"
        )
    arrays = {name: value.numpy() for name, value in parameters.items()}
    if not checkpoint.newest([run_dir.genesis]):
        write_state_0(run_dir, arrays)
        return
    known = run_dir.state_0()
    flat = np.zeros(known.layout.num_elements, np.float32)
    for tensor, where in known.layout.tensor_slices():
        flat[where] = arrays[tensor.name].reshape(-1)
    if checkpoint.flat_root(known.layout, flat) != known.root:
        raise UserError(
            f"{run_dir.path}: this run begins from another state than the newest of {start.path}; leave "
            "--from out to go on with it, or choose another --dir"
        )


def _initial_parameters(recipe: Recipe, vocab_size: int) -> dict[str, Any]:
    from atoll.model import hf, lora
    from atoll.model.llama import Llama

    model = hf.build(recipe.model, vocab_size)
    if recipe.model.lora is not None:
        lora.init_adapters(model, recipe.seed)
    elif recipe.model.from_ is not None:
        model = hf.open_model(recipe.model.checkpoint)
    elif isinstance(model, Llama):
        model.init_weights(recipe.seed)
    return {name: parameter.numpy() for name, parameter in lora.trained(model).items()}
