"""A result of `atoll evaluate` for tests."""

from typing import Any

import msgspec

from atoll.evaluate.results import Checkpoint, Measured, Result, Settings

SETTINGS = Settings(
    task="arc_challenge",
    num_fewshot=25,
    limit=None,
    chat_template=False,
    batch_size=1,
    device="cpu",
    versions={"lm_eval": "0.4.13"},
)


def result(value: float = 0.25, error: float | None = 0.01, **changes: Any) -> Result:
    """`changes` are of a result, or of its checkpoint or settings."""
    checkpoint = Checkpoint(name="model", digest="d" * 64)
    parts: dict[str, Any] = {"checkpoint": checkpoint, "settings": SETTINGS}
    for part, struct in parts.items():
        own = {name: changes.pop(name) for name in struct.__struct_fields__ if name in changes}
        parts[part] = msgspec.structs.replace(struct, **own)
    known: dict[str, Any] = {
        "time": 1.0,
        "seconds": 2.0,
        "data": {},
        "metrics": {"acc_norm,none": Measured(value=value, standard_error=error)},
        "subtasks": {},
        "task_versions": {"arc_challenge": "1.0"},
        "num_samples": 100,
        "num_requests": 400,
        "num_cut": 0,
        "starts_with": "one BOS",
        "stop_tokens": ["</s>"],
        "num_parameters": 1000,
        "dtype": "float32",
        "max_length": 64,
    }
    return Result(**{**known, **parts, **changes})
