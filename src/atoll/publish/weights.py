"""The weights of an export, held against the table of the state that its run has signed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from atoll.agent.arrays import Floats
from atoll.agent.mapped import as_bytes
from atoll.agent.state import ROW_BYTES
from atoll.errors import UserError
from atoll.publish import proof as proofs
from atoll.publish.proof import Proof, Rounding
from atoll.publish.stored import StoredTensor
from atoll.swarm.layout import DIGEST_BYTES, Layout, digest, row

NUM_SHOWN = 3  # tensors in a sentence


def check_weights(directory: Path, proof: Proof, stored: dict[str, StoredTensor]) -> None:
    """Raises UserError, naming tensors, unless the stored ones are those of the state that the table names.

    The table itself is believed.
    """
    layout = proof.run.layout
    if not proofs.have_layout(stored, layout):
        raise UserError(f"{directory}: its tensors are not those of the run's state{_odd(stored, layout)}")
    rest = Rounding(directory, layout) if proofs.is_rounded(stored) else None
    changed: list[str] = []
    for chunk, values in enumerate(_chunks(layout, stored, rest)):
        if digest(as_bytes(values)) != row(proof.table, chunk, ROW_BYTES)[:DIGEST_BYTES]:
            changed += _changed(chunk, proof, stored, rest)
    if names := list(dict.fromkeys(changed)):
        verb, whose = ("is", "its") if len(names) == 1 else ("are", "their")
        raise UserError(
            f"{directory}: {_some(names)} {verb} not what the run has committed: {whose} bits were changed"
        )


def _odd(stored: dict[str, StoredTensor], layout: Layout) -> str:
    wanted = {tensor.name: tensor.shape for tensor in layout.tensors}
    have = {name: tensor.shape for name, tensor in stored.items()}
    names = sorted(name for name in wanted.keys() | have.keys() if wanted.get(name) != have.get(name))
    if names:
        return f": {_some(names)}: missing, not expected, or of another shape"
    return ": they are neither all fp32 nor all bf16"


def _chunks(layout: Layout, stored: dict[str, StoredTensor], rest: Rounding | None) -> Iterator[Floats]:
    """Yield the fp32 parameters of each chunk, padding included, as the run's agents have hashed them.

    The array is used again.
    """
    buffer, chunk = np.zeros(layout.chunk_elements, np.float32), 0
    for (tensor, where), following in zip(layout.tensor_slices(), layout.offsets[1:], strict=True):
        bits = stored[tensor.name].bits()
        values = (bits if rest is None else rest.restored(tensor.name, bits)).view(np.float32)
        at = where.start
        while at < following:
            elements = layout.chunk(chunk)
            end = min(following, elements.stop)
            part = values[at - where.start : end - where.start]  # shorter, or empty, within the padding
            buffer[at - elements.start : at - elements.start + len(part)] = part
            at = end
            if at == elements.stop:
                yield buffer[: elements.stop - elements.start]
                buffer[:] = 0
                chunk += 1


def _changed(chunk: int, proof: Proof, stored: dict[str, StoredTensor], rest: Rounding | None) -> list[str]:
    """The tensors of a false chunk that were changed since the export; all of the chunk if none is known."""
    elements = proof.run.layout.chunk(chunk)
    within = [
        tensor
        for tensor, where in proof.run.layout.tensor_slices()
        if where.start < elements.stop and elements.start < where.stop
    ]
    changed: list[str] = []
    for tensor in within:
        known = proof.tensors.get(tensor.name)
        if known is None or digest(as_bytes(stored[tensor.name].bits())) != known.stored:
            changed.append(tensor.name)
        elif rest is not None and rest.digest(tensor.name, tensor.num_elements) != known.rest:
            changed.append(f"{tensor.name} (in {proofs.ROUNDING})")
    return changed or [tensor.name for tensor in within]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
    return ", ".join(names[:NUM_SHOWN]) + more
