"""The pictures of docs/network.md, by its own commands: every island takes part, whatever is between."""

import msgspec
import pytest
from networks.internet import Internet, missing
from networks.swarm import NetworkSwarm, commands_of

from atoll.status import RunStatus

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture
def internet():
    with Internet() as found:
        yield found


def play(picture: int, internet: Internet, swarm: NetworkSwarm) -> RunStatus:
    """Run the picture's commands, wait until every island has taken part, and ask how the run is."""
    rows = commands_of(picture)
    assert rows
    for machine, _, words in rows:
        swarm.run(machine, words)
    swarm.until_all_take_part(2)
    host = rows[0][0]
    return msgspec.json.decode(swarm.ask(host, "status", "--json"), type=RunStatus)


def reachable(status: RunStatus) -> dict[str, tuple[str, ...]]:
    """Where each agent is reached: "relay", or an island's id."""
    return {"relay" if island.relay else island.island: island.addresses for island in status.islands}


def test_one_local_network(internet, tmp_path) -> None:
    internet.router("home", "203.0.113.5")
    internet.machine("host", "192.168.1.5", "home")
    internet.machine("second", "192.168.1.6", "home")
    with NetworkSwarm(internet, tmp_path) as swarm:
        status = play(1, internet, swarm)
        assert reachable(status)["relay"] == ("192.168.1.5:7702",)
        others = [found for name, found in reachable(status).items() if name != "relay"]
        assert any(address.startswith("192.168.1.6:") for found in others for address in found)


def test_a_host_that_opens_its_three_ports_suffices_for_friends_who_only_dial_out(internet, tmp_path) -> None:
    internet.machine("host", "203.0.113.5", open_ports="7700-7702")
    for number, name in enumerate(("ada", "bob")):
        internet.router(f"home{number}", f"203.0.113.{20 + number}")
        internet.machine(name, "192.168.1.5", f"home{number}")
    with NetworkSwarm(internet, tmp_path) as swarm:
        status = play(2, internet, swarm)
        assert reachable(status)["relay"] == ("203.0.113.5:7702",)
        assert sum(map(len, reachable(status).values())) == 1
        ports = {event.address for event in swarm.events("answered")}
        assert ports == {"203.0.113.5:7700", "203.0.113.5:7701", "203.0.113.5:7702"}


@pytest.mark.parametrize("loopback", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_host_behind_a_home_router(internet, tmp_path, loopback) -> None:
    internet.router("home", "203.0.113.5", to="192.168.1.5", loopback=loopback)
    internet.machine("host", "192.168.1.5", "home")
    internet.machine("second", "192.168.1.6", "home")
    internet.router("elsewhere", "203.0.113.20")
    internet.machine("ada", "192.168.1.5", "elsewhere")
    with NetworkSwarm(internet, tmp_path) as swarm:
        status = play(3, internet, swarm)
        assert reachable(status)["relay"] == ("203.0.113.5:7702", "192.168.1.5:7702")
        # No address of the home means anything to ada.
        assert all(not found for name, found in reachable(status).items() if name != "relay")
        assert "203.0.113.5:7702" in {event.address for event in swarm.events("answered")}
        assert swarm.ask("host", "invite").startswith("atoll join atoll-")
