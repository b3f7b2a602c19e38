"""Tables of post-training."""

from harness.markdown import Lines, Measured, Values


def of_post(values: Values) -> str:
    """What a row has measured of us."""
    if "bytes_per_entry" in values:
        errors = f"{values['mean_error']:.1e} nats in the mean, {values['largest_error']:.1e} at most"
        return f"{values['bytes_per_entry']:.2f} bytes an entry, off by {errors}"
    if values["row"].startswith("lora"):
        return f"{values['ours'] / 1e6:,.0f} MB"
    return f"{values['ours']:,.0f} tokens/s"


def of_peer(values: Values) -> str:
    """What a row has measured of the other side."""
    if values["row"].startswith("lora"):
        return f"{values['peer'] / 1e6:,.0f} MB with all weights"
    return f"{values['peer']:,.0f} tokens/s of TRL" if "peer" in values else "–"


TABLES = {
    "generate": Measured(
        bench="generate",
        form=Lines(
            columns={
                "prompts at once": "{batch}",
                "atoll generate": "{ours:.0f} tokens/s",
                "generate of transformers": "{peer:.0f} tokens/s",
                "ratio": "**{ratio:.2f}**",
                "load of the machine": "{load:.0f}",
            }
        ),
    ),
    "evaluate": Measured(
        bench="evaluate",
        form=Lines(
            columns={
                "questions": "{questions}",
                "atoll evaluate": "{ours:.1f} s",
                "lm_eval": "{peer:.1f} s",
                "ratio": "**{ratio:.2f}**",
                "load of the machine": "{load:.0f}",
            }
        ),
    ),
    "evolve": Measured(
        bench="evolve",
        form=Lines(
            columns={
                "requests at once": "{concurrency}",
                "a reply takes": "{latency} s",
                "atoll evolve": "{ours:.0f} requests/s",
                "the plain client": "{peer:.0f} requests/s",
                "ratio": "**{ratio:.2f}**",
                "of a processor, a request": "{ours_cpu_ms:.1f} ms; {peer_cpu_ms:.1f} ms",
                "load of the machine": "{load:.0f}",
            }
        ),
    ),
    "post": Measured(
        bench="post",
        form=Lines(
            columns={
                "what": "{row}",
                "here": of_post,
                "there": of_peer,
                "ratio": lambda v: f"**{v['ratio']:.2f}**" if "ratio" in v else "–",
                "load of the machine": "{load:.0f}",
            }
        ),
    ),
    "averaging": Measured(
        bench="averaging",
        form=Lines(
            columns={
                "objective": "{objective}",
                "outer rate, momentum": "{outer_lr:g}, {outer_momentum:g}",
                "held-out loss at the start": "{start:.3f}",
                "a swarm of 4": "**{swarm:.4f}**",
                "one island on the same rows": "{alone:.4f}",
                "by seed, swarm": lambda v: ", ".join(f"{loss:.4f}" for loss in v["by_seed"]),
                "by seed, one island": lambda v: ", ".join(f"{loss:.4f}" for loss in v["alone_by_seed"]),
            }
        ),
    ),
}
