"""How a run is while nobody hosts it: what its files know."""

import io

import msgspec
from rich.console import Console
from unit.small_runs import SmallRun

from atoll.events import Joined
from atoll.run.kept import kept_in
from atoll.swarm.identity import RELAY, island_key
from atoll.terminal import status_table


def test_who_has_not_committed_is_named_too_and_a_relay_is_known_as_one(tmp_path) -> None:
    run = SmallRun(tmp_path).commit()
    relay, _, request = island_key(tmp_path / "relay")
    run.store.redeem(run.store.new_ticket(1, 1.0), relay, "relay", run.keys.issue(request, RELAY))
    ticket = run.store.new_ticket(1, 1.0)
    run.store.redeem(ticket, "e" * 16, "Eve", b"", link="https://example.org/eve")
    status = kept_in(run.dir)
    assert status is not None
    rows = {row.island: row for row in status.islands}
    assert (rows[relay].contributor, rows[relay].relay) == ("relay", True)
    assert (rows["e" * 16].contributor, rows["e" * 16].relay) == ("Eve", False)
    assert rows["e" * 16].link == "https://example.org/eve"
    assert not any(rows[island].relay for island in run.people)


def test_events_of_a_relay_are_told_by_its_name(tmp_path) -> None:
    run = SmallRun(tmp_path)
    relay, _, request = island_key(tmp_path / "relay")
    run.store.redeem(run.store.new_ticket(1, 1.0), relay, "relay", run.keys.issue(request, RELAY))
    run.events.append(Joined(time=0.0, island=relay, contributor="relay", relay=True))
    run.commit()
    file = io.StringIO()
    Console(file=file, width=80).print(status_table(kept_in(run.dir), 80))
    assert "relay joined as a relay" in file.getvalue()


def test_the_page_of_a_contributor_stands_beside_what_it_gave(tmp_path) -> None:
    people = {"a" * 16: ("Ada", "")}
    run = SmallRun(tmp_path, people)
    run.commit()
    status = kept_in(run.dir)
    assert status is not None
    (row,) = status.islands
    row = msgspec.structs.replace(row, link="https://example.org/ada")
    status = msgspec.structs.replace(status, islands=(row,))
    for width, is_shown in ((60, False), (80, True), (120, True)):
        file = io.StringIO()
        Console(file=file, width=width).print(status_table(status, width))
        assert ("https://example.org/ada" in file.getvalue()) == is_shown
