"""What an export carries so that others can verify it: the folder `proof`.

    certificate.pem   the run's certificate, which names the key that signs the run's records
    records.msgpack   what the run is, and every record up to the state, signed; the state's table
    rounding.bin      of a bf16 export: what rounding has taken away of the state

Whoever exports signs nothing. A table's root is in a signed record, and each of its rows is the digest of a
chunk of fp32 parameters, so fp32 weights can be held against it as they are. From bf16 weights alone nothing
follows: so many states round to them. With what rounding took away they are the fp32 weights again.

`rounding.bin` holds the lower halves of all tensors in the order of the layout, uint16, little endian; then
one byte for each tie among them: whether it was rounded up (`rounding.py`).
"""

from pathlib import Path

import msgspec
import numpy as np

from atoll.agent.mapped import as_bytes
from atoll.errors import UserError
from atoll.publish import rounding
from atoll.publish.states import CommittedState
from atoll.publish.stored import StoredTensor, stored_tensors
from atoll.swarm.layout import Layout, digest
from atoll.swarm.records import CommitRecord, Rewind, RunInfo

FOLDER, CERTIFICATE, RECORDS, ROUNDING = "proof", "certificate.pem", "records.msgpack", "rounding.bin"
FORMAT = 1


class TensorDigests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one tensor. They prove nothing, as nobody has signed them, but name the tensor that was changed."""

    stored: bytes  # of its bytes in the safetensors file
    rest: bytes  # of what rounding took away of it; empty in an fp32 export


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of `records.msgpack`."""

    format: int
    run: RunInfo
    records: tuple[CommitRecord, ...]
    rewinds: tuple[Rewind, ...]
    table: bytes
    tensors: dict[str, TensorDigests]


def write(directory: Path, state: CommittedState) -> bool:
    """Write the folder into an export whose weights are there; whether its tensors are those of the state.

    They are not where `transformers` stores an architecture's parameters in another form than it holds them:
    then nothing is written.
    """
    stored = stored_tensors(directory)
    if not have_layout(stored, state.layout):
        return False
    folder, member = directory / FOLDER, state.member
    folder.mkdir()
    (folder / CERTIFICATE).write_bytes(member.authority)
    proof = Proof(
        format=FORMAT,
        run=member.run,
        records=state.records,
        rewinds=state.rewinds,
        table=state.table,
        tensors=_write_rounding(folder, state, stored),
    )
    (folder / RECORDS).write_bytes(msgspec.msgpack.encode(proof))
    return True


def read(directory: Path) -> tuple[Proof, bytes]:
    """(what an export says of itself, the certificate that it carries). Raises UserError if it is damaged."""
    path = directory / FOLDER / RECORDS
    try:
        data, certificate = path.read_bytes(), (directory / FOLDER / CERTIFICATE).read_bytes()
        proof = msgspec.msgpack.decode(data, type=Proof)
    except OSError as error:
        raise UserError(
            f"{directory}: carries no proof ({error.filename}: {error.strerror}); verify a directory that "
            "`atoll export` made, with all of its files"
        ) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); copy the export again") from error
    if proof.format != FORMAT:
        raise UserError(
            f"{path}: format {proof.format}, but this atoll reads {FORMAT}; use the one that made it"
        )
    return proof, certificate


def have_layout(stored: dict[str, StoredTensor], layout: Layout) -> bool:
    """Whether the stored tensors are, by name, shape and dtype, exactly those of a layout."""
    wanted = {tensor.name: tensor.shape for tensor in layout.tensors}
    dtypes = {tensor.dtype for tensor in stored.values()}
    return {name: tensor.shape for name, tensor in stored.items()} == wanted and dtypes in ({"F32"}, {"BF16"})


def is_rounded(stored: dict[str, StoredTensor]) -> bool:
    """Whether the stored tensors are in bf16."""
    return any(tensor.dtype == "BF16" for tensor in stored.values())


def _write_rounding(
    folder: Path, state: CommittedState, stored: dict[str, StoredTensor]
) -> dict[str, TensorDigests]:
    """The digests of all tensors; writes what rounding took away of them, if they are in bf16."""
    digests: dict[str, TensorDigests] = {}
    if not is_rounded(stored):
        return {name: TensorDigests(digest(as_bytes(tensor.bits())), b"") for name, tensor in stored.items()}
    all_ties: list[rounding.Ties] = []
    with (folder / ROUNDING).open("wb") as file:
        for tensor, where in state.layout.tensor_slices():
            lower, ties = rounding.split(np.ascontiguousarray(state.parameters[where]).view(np.uint32))
            file.write(lower.astype("<u2").data)
            all_ties.append(ties)
            of_stored = digest(as_bytes(stored[tensor.name].bits()))
            digests[tensor.name] = TensorDigests(of_stored, _digest_of_rest(lower, ties))
        file.write(np.concatenate(all_ties).astype(np.uint8).data)
    return digests


class Rounding:
    """The file `rounding.bin`, mapped, as far as a layout says what is in it."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        """Raises UserError if it is missing or has the wrong size."""
        path = directory / FOLDER / ROUNDING
        count = sum(tensor.num_elements for tensor in layout.tensors)
        try:
            self._lower = np.memmap(path, "<u2", "r", 0, (count,))
            self._ties = np.fromfile(path, np.uint8, offset=2 * count).astype(bool)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: missing or cut off, and from bf16 weights alone nothing follows; get the file with "
                "the export, or verify an fp32 export of the same state"
            ) from error
        num_ties = 0
        self._places: dict[str, tuple[int, int]] = {}  # by tensor: its first lower half, its first tie
        first = 0
        for tensor in layout.tensors:
            self._places[tensor.name] = first, num_ties
            lower = self._lower[first : first + tensor.num_elements]
            num_ties += int(np.count_nonzero(lower == rounding.TIE))
            first += tensor.num_elements
        if len(self._ties) != num_ties:
            raise UserError(f"{path}: was changed: it has {len(self._ties)} ties, not {num_ties}")

    def restored(self, name: str, upper: rounding.Halves) -> rounding.Bits:
        """The bits of a tensor's fp32 values [n], given those of its bf16 values [n]."""
        return rounding.joined(upper, *self._rest(name, len(upper)))

    def digest(self, name: str, num_elements: int) -> bytes:
        """The digest of what rounding took away of a tensor."""
        return _digest_of_rest(*self._rest(name, num_elements))

    def _rest(self, name: str, num_elements: int) -> tuple[rounding.Halves, rounding.Ties]:
        first, first_tie = self._places[name]
        lower = self._lower[first : first + num_elements]
        num_ties = int(np.count_nonzero(lower == rounding.TIE))
        return lower, self._ties[first_tie : first_tie + num_ties]


def _digest_of_rest(lower: rounding.Halves, ties: rounding.Ties) -> bytes:
    return digest(b"".join((as_bytes(lower), as_bytes(ties))))
