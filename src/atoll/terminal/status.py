"""What `atoll status` prints: a run at one moment."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from atoll.metrics import scores_text
from atoll.status import IslandStatus, RunStatus
from atoll.terminal.figures import clock, duration, human
from atoll.terminal.names import Names
from atoll.terminal.terminal import FILE_WIDTH
from atoll.words import visible

WIDE = 110  # columns, from which on there is room for what each island is doing
NARROW = 80  # columns, below which there is room for names, ids and what was committed only


def status_table(status: RunStatus, width: int, now: float = 0.0) -> Group:
    """A run's status for so many columns: a row for each island, who gave how much, and what happened last.

    Names and ids are whole at any width, so that they can be copied. `now`, in seconds since the epoch, dates
    the status of a run that is not hosted.
    """
    parts: list[RenderableType] = [Text(title(status), style="bold")]
    if not status.hosted:
        ago = duration(max(0.0, now - status.time))
        parts.append(
            f"not hosted now: this is what the files know; last hosted {ago} ago, term {status.term}"
        )
    elif status.stall:
        parts.append(Text(visible(f"stalled: {status.stall}"), style="bold red"))
    elif not status.finished and status.num_islands < status.num_awaited:
        parts.append(f"waiting for islands: {status.num_islands} of {status.num_awaited} are here")
    parts += [
        Text(visible(f"{clock(alert.time)}  {alert.text}"), style="bold red") for alert in status.alerts
    ]
    if status.islands:
        parts.append(islands_table(status, width))
    parts += _ledger_table(status, width)
    if (found := status.evaluation) is not None:
        parts.append(
            Text(
                visible(
                    f"state {found.step} was evaluated: {scores_text(found.scores, found.heldout_losses)}"
                )
            )
        )
    names = Names()
    for island in status.islands:
        names.learn(island.island, island.contributor)
    told = (f"{clock(event.time)}  {names.within(event.text)}" for event in status.events)
    return Group(*parts, *(Text(visible(line), style="dim") for line in told))


def title(status: RunStatus) -> str:
    """One line about the run."""
    step = "finished" if status.finished else f"outer step {status.step} of {status.num_outer_steps}"
    committed = f"{human(status.committed_tokens)} tokens committed, root {status.root[:12]}"
    return f"{status.run_id}: {step}, {committed}"


def islands_table(status: RunStatus, width: int, names: dict[str, str] | None = None) -> Table:
    """A row for each island; `names` may give some another name than their contributor."""
    is_wide = width >= WIDE
    table = Table(box=None, pad_edge=False, expand=is_wide and width < FILE_WIDTH)
    table.add_column("contributor", overflow="fold", min_width=6)
    table.add_column("island", no_wrap=True, min_width=16)
    table.add_column("is", no_wrap=True)
    shown = _shown_figures(status, width)
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    if is_wide:
        table.add_column("doing", no_wrap=True, overflow="ellipsis", ratio=1)
    for island in status.islands:
        name = (names or {}).get(island.island, island.contributor)
        figures = _figures(island, status.num_inner_steps)
        cells = [name, island.island, state_of(island), *(figures[name] for name in shown)]
        table.add_row(*(Text(visible(cell)) for cell in (*cells, *([doing(island)] if is_wide else []))))
    return table


def state_of(island: IslandStatus) -> str:
    """What an island is to the run now, in a word."""
    if island.evicted:
        return "evicted"
    if not island.present:
        return "gone"
    return "relay" if island.relay else "island"


def doing(island: IslandStatus) -> str:
    """What it is doing, or why it is out."""
    return island.evicted or (island.note if island.present else "")


def link(island: IslandStatus) -> str:
    """What its link carries, up and down."""
    return f"{island.up_mbit:.0f} up, {island.down_mbit:.0f} down" if island.up_mbit else ""


def _shown_figures(status: RunStatus, width: int) -> list[str]:
    """Which figures of islands there is room for, and something to show of, by the names of their columns."""
    if width < NARROW:
        return ["committed"]
    is_wide = width >= WIDE
    has_looked = is_wide and any(i.metrics.heldout_loss is not None for i in status.islands)
    links = ["Mbit/s"] if is_wide and any(i.up_mbit for i in status.islands) else []
    return ["inner step", "loss", *(["held-out"] if has_looked else []), "tokens/s", "committed", *links]


def _figures(island: IslandStatus, num_inner_steps: int) -> dict[str, str]:
    """The figures of one island's row by the names of their columns; empty where there is nothing to tell."""
    working, measured = island.present and not island.relay, island.metrics
    return {
        "inner step": _inner_step(island, num_inner_steps) if working else "",
        "loss": f"{measured.loss:.3f}" if working and measured.loss is not None else "",
        "held-out": f"{measured.heldout_loss:.3f}" if working and measured.heldout_loss is not None else "",
        "tokens/s": human(measured.tokens_per_second) if working else "",
        "committed": human(island.committed_tokens) if island.committed_tokens else "",
        "Mbit/s": link(island),
    }


def _inner_step(island: IslandStatus, num_inner_steps: int) -> str:
    """How far it is; an island that is too slow for all inner steps is planned fewer."""
    planned = island.planned_inner_steps or num_inner_steps
    return f"{island.inner_step}/{planned}" + (f" of {num_inner_steps}" if planned < num_inner_steps else "")


def _ledger_table(status: RunStatus, width: int) -> list[Table]:
    """Tokens by contributor and source, with the pages that they gave; nothing before the first commit."""
    ledger, links = status.ledger, _links(status)
    sources = sorted({source for row in ledger.values() for source in row})
    table = Table(box=None, pad_edge=False)
    table.add_column("committed by", overflow="fold")
    for name in (*sources, "in all"):
        table.add_column(Text(visible(name)), justify="right")
    rows = [*ledger.items(), ("all", {s: sum(row.get(s, 0) for row in ledger.values()) for s in sources})]
    has_links = bool(links) and width >= NARROW
    if has_links:
        table.add_column("page", overflow="fold")
    for name, row in rows:
        counts = (*map(row.get, sources), sum(row.values()))
        cells = [human(count) if count else "" for count in counts]
        page = [Text(visible(", ".join(sorted(links.get(name, ())))))] if has_links else []
        table.add_row(Text(visible(name)), *cells, *page)
    return [table] if ledger else []


def _links(status: RunStatus) -> dict[str, set[str]]:
    """The pages that contributors gave, by their names as a ledger has them."""
    found: dict[str, set[str]] = {}
    for island in status.islands:
        if island.link:
            found.setdefault(island.contributor or island.island, set()).add(island.link)
    return found
