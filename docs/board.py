"""Writes grafana.json, a board of what `atoll metrics --prometheus` serves.

    python docs/board.py

In Grafana: Dashboards, New, Import, this file, and a Prometheus data source.
"""

import json
from pathlib import Path

FILE = Path(__file__).with_name("grafana.json")
SOURCE = {"type": "prometheus", "uid": "${source}"}
WHO = "{{contributor}} {{island}}"
BY_CONTRIBUTOR = "sum by (contributor) (atoll_island_committed_tokens)"
# Title, unit, and by expression how it is called; a column is half of the board's 24.
PANELS = [
    ("Loss by time", "none", {"atoll_loss": "swarm", "atoll_island_loss": WHO}),
    ("Tokens committed", "short", {"atoll_committed_tokens": "all"}),
    ("Held-out loss", "none", {"atoll_heldout_loss": "{{source}}", "atoll_island_heldout_loss": WHO}),
    ("Scores", "percentunit", {"atoll_score": "{{task}}"}),
    ("Tokens a second", "short", {"atoll_island_tokens_per_second": WHO}),
    ("Utilisation of islands", "percentunit", {"atoll_island_utilisation": WHO}),
    (
        "An outer step",
        "s",
        {
            "atoll_step_seconds": "from commit to commit",
            "atoll_reduce_seconds": "reducing",
            "atoll_hold_seconds": "holding",
        },
    ),
    ("Who is here", "none", {"atoll_islands": "islands", "atoll_participants": "in the newest commit"}),
    ("Gradient norm", "none", {"atoll_island_gradient_norm": WHO}),
    ("Norms of updates", "none", {"atoll_update_norm": "update", "atoll_island_norm": WHO}),
    ("Direction of updates", "none", {"atoll_update_cosine": "cosine to the momentum"}),
    ("Sent in a step", "bytes", {"atoll_island_sent_bytes": WHO}),
    (
        "Given, by contributor",
        "short",
        {"sum by (contributor) (atoll_island_committed_tokens)": "{{contributor}}"},
    ),
    (
        "What went wrong",
        "none",
        {
            "atoll_stalled": "stalled",
            "atoll_failed_attempts": "failed attempts",
            "atoll_losses_of_islands": "islands lost",
        },
    ),
]


def panel(number: int, title: str, unit: str, expressions: dict[str, str]) -> dict[str, object]:
    """One chart; two stand in a row."""
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [
            {"refId": chr(65 + at), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
            for at, (expression, legend) in enumerate(expressions.items())
        ],
    }


def board() -> dict[str, object]:
    """The board as Grafana imports it."""
    return {
        "title": "atoll",
        "uid": "atoll",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": [panel(number, *each) for number, each in enumerate(PANELS)],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(board(), indent=1) + "\n", "utf-8")
