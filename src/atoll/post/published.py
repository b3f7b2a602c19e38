"""A teacher's rows as DistillKit writes them, as JSON lines.

A row has `input_ids` [n] and, for each of its n tokens, what the teacher said of the token *after* it, in one
of three forms. The second and third are lossy, and need the configuration that they were written with.

raw         `token_ids` and `top_values` [n, k] legacy      `packed_indices` int64, as many ids in each as
fit; `exact_values`; `coeffs` of a polynomial of the rest.
            Its values are logits, so the k tokens are taken for all that there are
compressed  `bytepacked_indices` and `compressed_logprobs`, bytes: ids of equally many bits; exact values,
coefficients
            of a polynomial of the rest, and its residuals
"""

import json
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch

from atoll.data.loader import NO_LABEL, Batch
from atoll.errors import UserError
from atoll.given import read_text
from atoll.post.witnesses import spans

Dtype = Literal["float16", "bfloat16", "float32", "float64"]


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Residuals that share a scale; with DistillKit's names."""

    scale_dtype: Dtype
    element_bits: int
    num_elements: int


class Codec(msgspec.Struct, frozen=True, kw_only=True):
    """How rows are compressed; with the names of DistillKit's `logprob_compressor`."""

    d: int  # size of the vocabulary
    k: int
    exact_k: int
    exact_dtype: Dtype = "float32"
    polynomial_terms: list[int | Literal["sqrt", "exp"]] | None = None
    term_dtype: Dtype = "float32"
    residual_bins: list[Bin] = []
    delta_encoding: bool = True
    normalize_t: bool = False
    error_diffusion: bool = False  # of the writer alone


class Legacy(msgspec.Struct, frozen=True, kw_only=True):
    """The same of old rows: `legacy_logit_compression`."""

    vocab_size: int
    k: int
    exact_k: int
    polynomial_degree: int
    invert_polynomial: bool = True
    with_sqrt_term: bool = False
    term_dtype: Dtype = "float32"


Decoded = tuple[np.ndarray, np.ndarray]  # ids int64 [n, k], values fp64 [n, k]


class PublishedRows:
    """Rows of a file, found by their tokens."""

    def __init__(self, path: Path, codec: Path | None) -> None:
        """Raises UserError for a file that cannot be read, or is in none of the three forms."""
        self._path = path
        self._codec = _read_codec(codec) if codec is not None else None
        self._offsets: dict[bytes, int] = {}
        try:
            with path.open("rb") as file:
                at = 0
                for line in file:
                    self._offsets.setdefault(_key(self._row(line, at)["input_ids"]), at)
                    at += len(line)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
        if not self._offsets:
            raise UserError(f"{path}: has no rows")

    def __call__(self, batch: Batch, num_entries: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids int64 [B, L, K - 1], log-probabilities fp64 [B, L, K]) of the next token, the others' last.

        Raises UserError where the file has no row of the same tokens.
        """
        ids = np.zeros((*batch.tokens.shape, num_entries - 1), np.int64)
        logprobs = np.zeros((*batch.tokens.shape, num_entries))
        for row, documents in enumerate(batch.documents):
            for start, stop in spans(documents):
                if (batch.labels[row, start:stop] != NO_LABEL).any():
                    found = self._find(batch.tokens[row, start:stop])
                    ids[row, start:stop], logprobs[row, start:stop] = _entries(*found, num_entries)
        return ids, logprobs

    def _find(self, tokens: np.ndarray) -> Decoded:
        at = self._offsets.get(_key(tokens))
        if at is None:
            raise UserError(
                f"{self._path}: a capture of other rows: none has the {len(tokens)} tokens of the prepared "
                f"row that begins with {tokens[:8].tolist()}"
            )
        with self._path.open("rb") as file:
            file.seek(at)
            return self._decoded(self._row(file.readline(), at))

    def _decoded(self, row: dict[str, Any]) -> Decoded:
        if {"token_ids", "top_values"} <= row.keys():
            return np.array(row["token_ids"], np.int64), np.array(row["top_values"], np.float64)
        if {"packed_indices", "exact_values", "coeffs"} <= row.keys() and isinstance(self._codec, Legacy):
            return _legacy(row, self._codec)
        if {"compressed_logprobs", "bytepacked_indices"} <= row.keys() and isinstance(self._codec, Codec):
            return _compressed(row, self._codec)
        raise UserError(
            f"{self._path}: rows of the columns {', '.join(sorted(row))} are in none of DistillKit's forms, "
            "or are compressed in one that --codec does not describe"
        )

    def _row(self, line: bytes, at: int) -> dict[str, Any]:
        """The row of the line that begins at this byte."""
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
            row["input_ids"][0]
        except (msgspec.DecodeError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{self._path}: at byte {at}: not a row with input_ids: {error}") from error
        return row


def _read_codec(path: Path) -> Codec | Legacy:
    try:
        tree = json.loads(read_text(path))
        kind = Legacy if isinstance(tree, dict) and "polynomial_degree" in tree else Codec
        return msgspec.convert(tree, kind)
    except (ValueError, msgspec.ValidationError) as error:
        raise UserError(f"{path}: not a configuration of DistillKit's compression: {error}") from error


def _key(tokens: Any) -> bytes:
    return np.asarray(tokens, np.int64).tobytes()


def _entries(ids: np.ndarray, values: np.ndarray, num_entries: int) -> Decoded:
    """The best of each token as entries, and the tail: what the others leave of 1.

    Values whose probabilities have a sum above 1, as logits and lossy ones may, are normalised, and leave no
    tail.
    """
    order = np.argsort(-values, axis=-1, kind="stable")
    ids, values = np.take_along_axis(ids, order, -1), np.take_along_axis(values, order, -1)
    total = np.logaddexp.reduce(values, axis=-1, keepdims=True)
    values = values - np.maximum(total, 0.0)
    count = min(num_entries - 1, ids.shape[-1])
    best = np.full((len(ids), num_entries - 1), -np.inf)
    best[:, :count] = values[:, :count]
    kept = np.exp(best).sum(-1, keepdims=True)
    others = np.log1p(-kept, where=kept < 1, out=np.full_like(kept, -np.inf))
    of_best = np.repeat(ids[:, :1], num_entries - 1, axis=-1)
    of_best[:, :count] = ids[:, :count]
    return of_best, np.concatenate((best, others), -1)


def _compressed(row: dict[str, Any], codec: Codec) -> Decoded:
    data = torch.tensor(row["compressed_logprobs"], dtype=torch.uint8)

    def take(count: int, dtype: str) -> torch.Tensor:
        nonlocal data
        kind: torch.dtype = getattr(torch, dtype)
        part, data = data.split((count * kind.itemsize, data.shape[1] - count * kind.itemsize), 1)
        return part.contiguous().view(kind).double()

    values = take(codec.exact_k, codec.exact_dtype)
    num_others = codec.k - codec.exact_k
    others = torch.zeros(len(values), num_others, dtype=torch.float64)
    if codec.polynomial_terms:
        at = torch.arange(num_others, dtype=torch.float64)
        at = at / max(num_others - 1, 1) if codec.normalize_t else at
        terms = [
            at**term if isinstance(term, int) else getattr(torch, term)(at) for term in codec.polynomial_terms
        ]
        others += take(len(terms), codec.term_dtype) @ torch.stack(terms)
    first = 0
    for each in codec.residual_bins:
        scale = take(1, each.scale_dtype)
        num_bytes = -(-each.num_elements * each.element_bits // 8)
        packed, data = data.split((num_bytes, data.shape[1] - num_bytes), 1)
        levels = torch.from_numpy(_unpacked(packed.numpy(), each.element_bits, each.num_elements))
        lowest = -(1 << (each.element_bits - 1))
        signed = 2 * levels - 1 if each.element_bits == 1 else levels + lowest
        others[:, first : first + each.num_elements] += signed * scale
        first += each.num_elements
    values = torch.cat((values, others), 1)
    if codec.delta_encoding:
        values = values.cumsum(1)
    id_bits = (codec.d - 1).bit_length()
    ids = _unpacked(np.array(row["bytepacked_indices"], np.uint8), id_bits, codec.k)
    return ids, values.numpy()


def _legacy(row: dict[str, Any], codec: Legacy) -> Decoded:
    bits = (codec.vocab_size - 1).bit_length()
    words = np.array(row["packed_indices"], np.int64)
    shifts = np.arange(64 // bits) * bits
    ids = ((words[..., None] >> shifts) & ((1 << bits) - 1)).reshape(len(words), -1)[:, : codec.k]
    at = np.arange(codec.k - codec.exact_k) + 1.0
    sign = -1 if codec.invert_polynomial else 1
    terms = [at ** (sign * power) for power in range(codec.polynomial_degree + 1)]
    terms += [np.sqrt(at)] if codec.with_sqrt_term else []
    others = np.array(row["coeffs"], np.float64) @ np.stack(terms)
    return ids, np.concatenate((np.array(row["exact_values"], np.float64), others), -1)


def _unpacked(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Integers int64 [n, count] of so many bits each, the highest first, in bytes [n, m]."""
    stream = np.unpackbits(packed, axis=-1)[:, : count * bits].reshape(len(packed), count, bits)
    return stream.astype(np.int64) @ (1 << np.arange(bits - 1, -1, -1))
