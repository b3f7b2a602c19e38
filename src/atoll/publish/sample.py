"""`atoll generate`: text from an exported model."""

from pathlib import Path

from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.model import hf
from atoll.model.generate import generate


def sample(directory: Path, prompt: str, max_tokens: int, temperature: float, seed: int) -> str:
    """The prompt and the model's continuation of it. Raises UserError for a directory without a model."""
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory}: no exported model here; make one with `atoll export RUN {directory}`")
    model = hf.open_model(directory)
    tokenizer = Tokenizer.load(directory / "tokenizer.json")
    tokens = [int(token) for token in tokenizer.encode_documents([prompt])[0]]
    continuation = generate(
        model.eval(),
        tokens,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=0.95,
        seed=seed,
        stop_tokens=frozenset(tokenizer.eos_ids),
    )
    return prompt + tokenizer.decode(continuation)
