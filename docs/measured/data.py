"""Tables of the data layer."""

from harness.markdown import Columns, Lines, Measured, Values


def times(values: Values, peer: str) -> str:
    """A peer's windows per second, and how many times as many we give."""
    return f"{values[f'{peer}_windows_per_second']:,}/s (1/{values[f'times_{peer}']:g})"


TABLES = {
    "prepare": Measured(
        bench="prepare",
        only=lambda v: v["row"] == "speed",
        form=Lines(
            columns={
                "text": "{megabytes:g} MB",
                "atoll": "{mb_per_second:.2f} MB/s",
                "`tokenizers` alone, in memory": "{limit_mb_per_second:.2f} MB/s",
                "`datasets`, load and map": "{datasets_mb_per_second:.2f} MB/s",
                "of the limit": "**{of_limit:.2f}**",
                "load": "{load}",
            }
        ),
    ),
    "memory of prepare": Measured(
        bench="prepare",
        only=lambda v: v["row"] == "memory",
        form=Lines(columns={"text": "{megabytes:,g} MB", "peak": "{peak_megabytes} MB"}),
    ),
    "loader": Measured(
        bench="loader",
        form=Columns(
            head="{context_length:,} tokens",
            lines={
                "atoll": "{windows_per_second:,}/s ({million_tokens_per_second:g} M tokens/s)",
                "atoll, from sample 10^12 on": "{far_windows_per_second:,}/s",
                "`datasets`, interleaved and streamed": lambda v: times(v, "datasets"),
                "`datasets`, windows cut before": lambda v: times(v, "datasets_precut"),
                "Grain, windows in memory": lambda v: times(v, "grain"),
                "CPU per window: atoll": "{cpu_microseconds_per_window:.0f} µs",
                "`datasets`": "{datasets_cpu_microseconds_per_window:,.0f} µs",
                "`datasets`, cut before": "{datasets_precut_cpu_microseconds_per_window:,.0f} µs",
                "Grain": "{grain_cpu_microseconds_per_window:,.0f} µs",
                "CPU until the first batch, from sample 0": "{resume_ms_at_0:.1f} ms",
                "the same, from sample 10^12": "{resume_ms_at_10_to_the_12:.1f} ms",
                "load": "{load}",
            },
        ),
    ),
    "mixture": Measured(
        bench="mixture",
        form=Lines(
            columns={
                "off due, in an aligned thousand": "{worst_aligned:g} ({random_worst_aligned:g})",
                "off due, in any thousand": "{worst_sliding:g} ({random_worst_sliding:g})",
                "seen again too early": "{repeats} ({random_repeats:,})",
                "to find sample 10^12": "{microseconds_at_10_to_the_12:.0f} µs",
            }
        ),
    ),
    "leases": Measured(
        bench="leases",
        form=Lines(
            columns={
                "window": "{context_length:,} tokens",
                "blocks": "{fetched_blocks:,}",
                "fetched": "{fetched_mb:,.0f} MB",
                "times the lease's bytes": "{times_the_lease:g}",
                "CPU per window, to find out which": "{cpu_microseconds_per_window:.0f} µs",
                "load": "{load}",
            }
        ),
    ),
}
