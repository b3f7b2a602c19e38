"""Teachers that are not on this machine: a server's answers, and rows in the three forms of DistillKit."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unit.packed import Document, pack

from atoll.data.loader import Batch
from atoll.errors import UserError
from atoll.post.published import PublishedRows
from atoll.post.server import ServedModel

V, K = 64, 8  # vocabulary; entries that are kept
DOCUMENTS = [Document([1, 5, 9, 4, 7], 2), Document([1, 6, 3, 8], 2), Document([1, 2, 2], 1)]
TABLE = np.log(np.random.default_rng(0).dirichlet(np.full(V, 0.3), V).clip(1e-9))  # by the last token


def windows() -> Batch:
    batch = pack([[(DOCUMENTS[0],), (DOCUMENTS[1],)], [(DOCUMENTS[2],)]], 12)
    return Batch(batch.tokens, batch.labels, batch.documents)


def best(tokens: list[int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, log-probabilities) of what may follow each token, the likeliest first."""
    logprobs = TABLE[tokens]
    ids = np.argsort(-logprobs, axis=-1)[:, :count]
    return ids, np.take_along_axis(logprobs, ids, -1)


def check(ids: np.ndarray, logprobs: np.ndarray, atol: float, *, has_tail: bool = True) -> None:
    batch = windows()
    is_label = batch.labels != -100
    want_ids, want = best(batch.tokens[is_label].tolist(), K - 1)
    others = np.log1p(-np.exp(want).sum(-1, keepdims=True))
    assert (ids[is_label] == want_ids).all()
    if has_tail:
        assert np.allclose(logprobs[is_label], np.concatenate((want, others), -1), atol=atol)
    else:
        found = logprobs[is_label][:, :-1]
        assert np.allclose(found - found[:, :1], want - want[:, :1], atol=atol)
        assert np.allclose(np.exp(logprobs[is_label]).sum(-1), 1)
        _, known = best(batch.tokens[is_label].tolist(), 12)  # whose sum is taken for all there is
        rest = np.exp(known[:, K - 1 :]).sum(-1) / np.exp(known).sum(-1)
        assert np.allclose(np.exp(logprobs[is_label][:, -1]), rest)


# --------------------------------------------------------------------------------------------------- a server
class Served(BaseHTTPRequestHandler):
    """Answers as vLLM does: of each token of the prompt the likeliest, and itself."""

    leaves_out = False

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt, count = asked["prompt"], asked["prompt_logprobs"]
        ids, logprobs = best(prompt, count)
        said: list[Any] = [None]
        for at, token in enumerate(prompt[1:]):
            values = dict(zip(ids[at].tolist(), logprobs[at].tolist(), strict=True)) | {
                token: TABLE[prompt[at], token]
            }
            said.append({str(key): {"logprob": value, "rank": 1} for key, value in values.items()})
        choice = {
            "index": 0,
            "text": "x",
            "finish_reason": "length",
            "logprobs": None,
            "prompt_logprobs": said,
        }
        if self.leaves_out:
            del choice["prompt_logprobs"]
        body = json.dumps(
            {
                "id": "1",
                "object": "text_completion",
                "created": 0,
                "model": asked["model"],
                "choices": [choice],
            }
        ).encode()
        self.send_response(200 if asked["model"] == "teacher" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    pytest.importorskip("openai")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_servers_answers_become_entries_of_the_labels(url) -> None:
    check(*ServedModel(url, "teacher")(windows(), K), atol=1e-9)


@pytest.mark.parametrize(
    "given", ["localhost:8000/v1", "http:///v1", "http://localhost:99999/v1", "file:///x"]
)
def test_what_is_no_servers_url_is_said(given) -> None:
    with pytest.raises(UserError, match="not a server's URL; write it like http"):
        ServedModel(given, "m")


def test_a_server_that_does_not_serve_the_model_or_returns_nothing_is_said(url, monkeypatch) -> None:
    with pytest.raises(UserError, match=f"^{url}: .*404"):
        ServedModel(url, "nobody")(windows(), K)
    monkeypatch.setattr(Served, "leaves_out", True)
    with pytest.raises(UserError, match="has no prompt_logprobs"):
        ServedModel(url, "teacher")(windows(), K)


# --------------------------------------------------------------------------------------------- published rows
def write(path: Path, rows: list[dict[str, Any]], codec: dict[str, Any] | None = None) -> PublishedRows:
    file = path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if codec is None:
        return PublishedRows(file, None)
    (path / "codec.json").write_text(json.dumps(codec))
    return PublishedRows(file, path / "codec.json")


def raw_rows(count: int = 12) -> list[dict[str, Any]]:
    return [
        {"input_ids": tokens, "token_ids": ids.tolist(), "top_values": values.tolist()}
        for tokens in (document.tokens for document in DOCUMENTS)
        for ids, values in [best(tokens, count)]
    ]


def test_raw_rows_are_found_by_their_tokens(tmp_path) -> None:
    check(*write(tmp_path, raw_rows()[::-1])(windows(), K), atol=1e-9)


def test_rows_of_fewer_entries_leave_the_others_out(tmp_path) -> None:
    ids, logprobs = write(tmp_path, raw_rows(count=3))(windows(), K)
    batch = windows()
    is_label = batch.labels != -100
    assert np.isneginf(logprobs[is_label][:, 3:-1]).all()
    assert np.allclose(np.exp(logprobs[is_label]).sum(-1), 1)
    assert (ids[is_label][:, 3:] == ids[is_label][:, :1]).all()


def packed_bits(values: np.ndarray, bits: int) -> list[list[int]]:
    """Integers [n, k] as bytes, the highest bit first."""
    stream = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(stream.reshape(len(values), -1).astype(np.uint8), axis=-1).tolist()


@pytest.mark.parametrize("normalize_t", [False, True])
@pytest.mark.parametrize("delta_encoding", [False, True])
def test_compressed_rows_are_read_to_the_precision_of_their_codec(
    tmp_path, normalize_t, delta_encoding
) -> None:
    exact, bits, terms = 5, 8, [0, 1, "sqrt"]
    codec = {
        "d": V, "k": 12, "exact_k": exact, "exact_dtype": "bfloat16", "polynomial_terms": terms,
        "term_dtype": "float32", "delta_encoding": delta_encoding, "normalize_t": normalize_t,
        "residual_bins": [{"scale_dtype": "float16", "element_bits": bits, "num_elements": 7}],
    }  # fmt: skip
    rows = []
    for document in DOCUMENTS:
        ids, values = best(document.tokens, 12)
        if delta_encoding:
            values = np.concatenate((values[:, :1], np.diff(values, axis=-1)), -1)
        at = np.linspace(0, 1, 7) if normalize_t else np.arange(7.0)
        design = np.stack([at**0, at, np.sqrt(at)], -1)
        coefficients = np.ascontiguousarray(np.linalg.lstsq(design, values[:, exact:].T)[0].T, np.float32)
        residual = values[:, exact:] - coefficients @ design.T
        scale = (np.abs(residual).max(-1, keepdims=True) / 128).astype(np.float16)
        levels = np.clip(np.rint(residual / scale), -128, 127).astype(np.int64) + 128
        exact_bytes = torch.tensor(values[:, :exact]).bfloat16().view(torch.uint8).numpy()
        parts = [
            exact_bytes,
            coefficients.view(np.uint8),
            scale.view(np.uint8),
            np.array(packed_bits(levels, bits)),
        ]
        rows.append(
            {
                "input_ids": document.tokens,
                "compressed_logprobs": np.concatenate(parts, -1).tolist(),
                "bytepacked_indices": packed_bits(ids, 6),
            }
        )
    check(*write(tmp_path, rows, codec)(windows(), K), atol=0.08 if delta_encoding else 0.03)


def test_legacy_rows_are_logits_so_what_is_known_is_taken_for_all(tmp_path) -> None:
    codec = {"vocab_size": V, "k": 12, "exact_k": 9, "polynomial_degree": 2}
    rows = []
    for document in DOCUMENTS:
        ids, values = best(document.tokens, 12)
        values = values + 20.0  # of logits that are centred
        at = np.arange(3) + 1.0
        design = np.stack([at**-power for power in range(3)], -1)
        coefficients = np.linalg.solve(design, values[:, 9:].T).T
        per_word = 64 // 6
        padded = np.pad(ids, ((0, 0), (0, -12 % per_word))).reshape(len(ids), -1, per_word)
        words = (padded << (6 * np.arange(per_word))).sum(-1)
        rows.append(
            {
                "input_ids": document.tokens,
                "packed_indices": words.tolist(),
                "exact_values": values[:, :9].tolist(),
                "coeffs": coefficients.tolist(),
            }
        )
    check(*write(tmp_path, rows, codec)(windows(), K), atol=1e-6, has_tail=False)


def test_rows_of_other_tokens_or_in_no_known_form_are_refused(tmp_path) -> None:
    rows = raw_rows()
    rows[1]["input_ids"] = [1, 6, 3, 9]
    with pytest.raises(UserError, match=r"a capture of other rows: none has the 4 tokens .*\[1, 6, 3, 8\]"):
        write(tmp_path, rows)(windows(), K)
    with pytest.raises(UserError, match=r"columns input_ids, logits are in none of DistillKit's forms"):
        write(tmp_path, [{"input_ids": d.tokens, "logits": []} for d in DOCUMENTS])(windows(), K)
    with pytest.raises(UserError, match="not a row with input_ids"):
        write(tmp_path, [{"text": "x"}])
    with pytest.raises(UserError, match="has no rows"):
        write(tmp_path, [])
    with pytest.raises(UserError, match="not a configuration of DistillKit's compression"):
        write(tmp_path, raw_rows(), {"k": 3})
