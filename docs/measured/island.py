"""Tables of one island, on a CPU and on an accelerator."""

from collections.abc import Callable

from harness.markdown import NOTHING, Lines, Measured, Values, table

from measured.kept import rows


def trained_by(values: Values) -> str:
    """Which side of a training step, and how."""
    how = [word for word in ("compiled", "float8") if values.get(word)]
    return ", ".join([values["side"], *how])


def or_why(cell: str) -> Callable[[Values], str]:
    """A cell that says why where nothing was measured."""

    def text(values: Values) -> str:
        for word in ("not_measured", "failed"):
            if word in values:
                return f"{word.replace('_', ' ')}: {values[word]}"
        return cell.format_map(values)

    return text


TABLES = {
    "island": Measured(
        bench="island",
        form=Lines(
            columns={
                "shape": "{shape}, {windows} x {context_length}",
                "packed": "{packed}",
                "threads": "{threads}",
                "tokens/s": "{ours:,}",
                "transformers": "{peer:,}",
                "ratio": "**{ratio:.2f}**",
                "peak memory": "{ours_peak_mib:,} MiB",
                "of transformers": "{peer_peak_mib:,} MiB",
            }
        ),
    ),
    "head": Measured(
        bench="head",
        form=Lines(
            columns={
                "tokens x hidden": "{tokens:,} x {hidden:,}",
                "CPU seconds": "{ours:.1f}",
                "CPU seconds of plain logits": "{peer:.1f}",
                "times as fast": "**{ratio:.2f}**",
                "peak memory": "{ours_peak_mib:,} MiB",
                "peak memory of plain logits": "{peer_peak_mib:,} MiB",
                "memory ratio": "**{memory_ratio:.2f}**",
            }
        ),
    ),
    "checkpoint": Measured(
        bench="checkpoint",
        form=Lines(
            columns={
                "shape": "{shape}",
                "threads": "{threads}",
                "bytes": "{bytes:,}",
                "stall": "{ours:g} ms",
                "synchronous save": "{peer:,g} ms",
                "ratio": "**{ratio:.3f}**",
                "first stall": "{first:g} ms",
            }
        ),
    ),
    "training on an accelerator": Measured(
        bench="gpu",
        only=lambda v: v["row"] == "training step",
        form=Lines(
            columns={
                "model": "{model}",
                "packed": "{packed}",
                "side": trained_by,
                "tokens/s": or_why("{tokens_per_second:,.0f}"),
                "TFLOP/s": "{tflops:.0f}",
                "MFU": "**{mfu:.1%}**",
                "attention over the whole window": "{mfu_whole_window:.1%}",
                "peak memory": "{peak_gib:.1f} GiB",
                "graph breaks": "{graph_breaks}",
            }
        ),
    ),
    "handing over": Measured(
        bench="gpu",
        only=lambda v: v["row"] == "hand-over",
        form=Lines(
            columns={
                "model": "{model}",
                "bytes": or_why("{bytes:,}"),
                "copy to the host": "{copy_seconds:.2f} s, {copy_gb_per_second:.1f} GB/s",
                "int8, on one core of the CPU": (
                    "{int8_on_cpu_seconds:.2f} s, {int8_on_cpu_gb_per_second:.1f} GB/s"
                ),
            }
        ),
    ),
    "adopting": Measured(
        bench="gpu",
        only=lambda v: v["row"] == "adopt",
        form=Lines(
            columns={
                "model": "{model}",
                "bytes": or_why("{bytes:,}"),
                "mapped file to device": "{seconds:.2f} s, {gb_per_second:.1f} GB/s",
            }
        ),
    ),
}


def summary() -> str:
    """An island's ratios, beside what was asked for."""
    steps = [row for row in rows("island") if row["threads"] > 1]
    shapes = ", ".join(dict.fromkeys(row["shape"] for row in steps))
    stalls = rows("checkpoint")

    def ratios(of: list[Values], form: str = ".2f") -> str:
        return ", ".join(format(row["ratio"], form) for row in of) or NOTHING

    def memory(of: list[Values]) -> str:
        found = sorted(row["ours_peak_mib"] / row["peer_peak_mib"] for row in of)
        return " to ".join(dict.fromkeys(f"{found[end]:.2f}" for end in (0, -1))) if found else NOTHING

    plain, packed = ([row for row in steps if row["packed"] is packed] for packed in (False, True))
    lines = [
        (f"tokens/s of a training step, both cores: {shapes}", "transformers", ratios(plain), "at least 1.0"),
        ("the same, packed", "transformers", ratios(packed), "at least 1.3"),
        ("peak memory of these", "transformers", memory(steps), "at most 1.0"),
        ("speed of the chunked head, 128,256 words", "plain logits", ratios(rows("head")), "at least 0.9"),
        ("its peak memory", "plain logits", memory(rows("head")), "at most 0.25"),
        (
            f"stall of an inner checkpoint: {', '.join(row['shape'] for row in stalls)}",
            "a synchronous save",
            ratios(stalls, ".3f"),
            "at most 0.05",
        ),
    ]
    return table([("what", "beside", "ratio", "asked"), *lines])
