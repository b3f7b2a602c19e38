"""Checkpoints on the Hugging Face hub. Only this file imports `huggingface_hub` for reading."""

import re
from collections.abc import Sequence
from pathlib import Path

from atoll.errors import UserError
from atoll.given import named

NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken", "README.md")


def fetched(model: str, patterns: Sequence[str] | None = None) -> Path:
    """The directory of a checkpoint: `model` itself if it is one here, else that of the hub, fetched.

    `patterns`: of the files that are fetched; None: all that a checkpoint is. Raises UserError where there is
    neither.
    """
    here = Path(model)
    if here.exists() or not NAME.fullmatch(model):
        return here
    import huggingface_hub
    from huggingface_hub.utils import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(model, allow_patterns=list(patterns or WANTED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{named(model)}: no such directory, and the hub does not give it: {reason}"
        ) from error
