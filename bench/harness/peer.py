"""The other side of a training step: `transformers`' own Llama, as its trainer would run it."""

import warnings

import msgspec
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.sides import Batch, Shape, Step


def their_step(shape: Shape, batch: Batch, packed: bool, device: torch.device) -> Step:
    """The same step with `LlamaForCausalLM` (sdpa) and torch's fused AdamW.

    As `transformers`' own trainer does with `bf16=True`, it computes in bf16 by autocast and keeps fp32
    weights; on a CPU in fp32, as we do. For packed windows it gets what it offers: position ids that start
    anew.
    """
    rope = {"rope_type": "default", "rope_theta": shape.config.rope_theta}
    dimensions = {k: v for k, v in msgspec.structs.asdict(shape.config).items() if not k.startswith("rope")}
    config = LlamaConfig(**dimensions, rope_parameters=rope, attn_implementation="sdpa")
    with device:
        model = LlamaForCausalLM(config).train()
    if shape.activation_checkpointing:
        with warnings.catch_warnings(action="ignore"):  # its newest versions have another name for it
            model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.tensor(batch.tokens, device=device)
    arguments = {"input_ids": tokens, "labels": tokens, "use_cache": False}
    if packed:
        starts = np.diff(batch.documents, axis=1, prepend=batch.documents[:, :1] - 1) != 0
        indices = np.arange(shape.context_length)
        positions = indices - np.maximum.accumulate(np.where(starts, indices, 0), axis=1)
        arguments["position_ids"] = torch.tensor(positions, device=device)
    narrow = torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu")

    def step() -> None:
        for _ in range(shape.num_micro_batches):
            with narrow:
                loss = model(**arguments).loss / shape.num_micro_batches
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # as ours reads its loss: the host waits for the device

    return step
