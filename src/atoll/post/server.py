"""A teacher behind an OpenAI-compatible server that returns `prompt_logprobs`, as vLLM does."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from atoll.data.loader import NO_LABEL, Batch
from atoll.errors import UserError
from atoll.post.client import check_url, library
from atoll.post.witnesses import spans

TIMEOUT_SECONDS = 300.0
NUM_AT_ONCE = 8  # requests; the server batches them
MAX_RETRIES = 4


class ServedModel:
    """A served model, asked for its distributions. Each row is a prompt of token ids."""

    def __init__(self, url: str, served: str) -> None:
        """`url` as in http://127.0.0.1:8000/v1, `served`: the model's name there."""
        check_url(url)
        openai = library("--server")
        self._url, self._served, self._failed = url, served, openai.OpenAIError
        # A key is sent where OPENAI_API_KEY is set; a server of one's own mostly wants none.
        key = os.environ.get("OPENAI_API_KEY", "none")
        self._client = openai.OpenAI(
            base_url=url, api_key=key, timeout=TIMEOUT_SECONDS, max_retries=MAX_RETRIES
        )

    def __call__(self, batch: Batch, num_entries: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids int64 [B, L, K - 1], log-probabilities fp64 [B, L, K]) of the next token, the others' last.

        Raises UserError for a server that does not answer, or not with log-probabilities.
        """
        ids = np.zeros((*batch.tokens.shape, num_entries - 1), np.int64)
        logprobs = np.zeros((*batch.tokens.shape, num_entries))
        documents = [
            (row, start, stop)
            for row in range(len(batch.tokens))
            for start, stop in spans(batch.documents[row])
            if (batch.labels[row, start:stop] != NO_LABEL).any()
        ]
        with ThreadPoolExecutor(NUM_AT_ONCE) as threads:
            prompts = [batch.tokens[row, start:stop].tolist() for row, start, stop in documents]
            answers = threads.map(lambda prompt: self._ask(prompt, num_entries - 1), prompts)
            for (row, start, stop), answer in zip(documents, answers, strict=True):
                for at in range(start, stop - 1):
                    ids[row, at], logprobs[row, at] = self._entry(answer[at - start + 1], num_entries)
        return ids, logprobs

    def _ask(self, prompt: list[int], count: int) -> list[dict[str, Any] | None]:
        """Of each token of the prompt, the likeliest there, by id."""
        try:
            answer = self._client.completions.create(
                model=self._served,
                prompt=prompt,
                max_tokens=1,
                temperature=0.0,
                extra_body={"prompt_logprobs": count},
            )
        except self._failed as error:
            raise UserError(f"{self._url}: {error}") from error
        found = (answer.choices[0].model_extra or {}).get("prompt_logprobs") if answer.choices else None
        if found is None or len(found) != len(prompt):
            raise UserError(
                f"{self._url}: the answer has no prompt_logprobs of the {len(prompt)} tokens asked about; "
                "serve the model with vLLM, or another server that returns them"
            )
        return found

    def _entry(self, said: dict[str, Any] | None, num_entries: int) -> tuple[np.ndarray, np.ndarray]:
        values = {int(token): float(each["logprob"]) for token, each in (said or {}).items()}
        # The token that stands there is added to the likeliest where it is none of them.
        best = sorted(values, key=lambda token: -values[token])[: num_entries - 1]
        if len(best) < num_entries - 1:
            raise UserError(
                f"{self._url}: {len(best)} log-probabilities of a token where {num_entries - 1} were asked "
                f"for; serve the model with --max-logprobs {num_entries - 1}, or ask for fewer --entries"
            )
        known = np.array([values[token] for token in best])
        others = np.log1p(-min(np.exp(known).sum(), 1.0)) if np.exp(known).sum() < 1 else -np.inf
        return np.array(best), np.append(known, others)
