"""The pictures of docs/network.md, by its own commands: every island takes part, whatever is between."""

import pytest
from networks.internet import Internet, missing
from networks.swarm import NetworkSwarm, commands_of

from atoll.status import RunStatus

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture
def internet():
    with Internet() as found:
        yield found


def play(picture: int, swarm: NetworkSwarm) -> RunStatus:
    """Run the picture's commands, wait until every island has taken part, and ask how the run is."""
    rows = commands_of(picture)
    assert rows
    for machine, _, words in rows:
        swarm.run(machine, words)
    swarm.until_all_take_part(2)
    return swarm.status()


def reachable(status: RunStatus) -> dict[str, tuple[str, ...]]:
    """Where each agent is reached: "relay", or an island's id."""
    return {"relay" if island.relay else island.island: island.addresses for island in status.islands}


def test_one_local_network(internet, tmp_path) -> None:
    internet.router("home", "203.0.113.5")
    internet.machine("host", "192.168.1.5", "home")
    internet.machine("second", "192.168.1.6", "home")
    with NetworkSwarm(internet, tmp_path) as swarm:
        status = play(1, swarm)
        assert reachable(status)["relay"] == ("192.168.1.5:7702",)
        others = [found for name, found in reachable(status).items() if name != "relay"]
        assert any(address.startswith("192.168.1.6:") for found in others for address in found)


def test_a_host_that_opens_its_three_ports_suffices_for_friends_who_only_dial_out(internet, tmp_path) -> None:
    internet.machine("host", "203.0.113.5", open_ports="7700-7702")
    for number, name in enumerate(("ada", "bob")):
        internet.router(f"home{number}", f"203.0.113.{20 + number}")
        internet.machine(name, "192.168.1.5", f"home{number}")
    with NetworkSwarm(internet, tmp_path) as swarm:
        status = play(2, swarm)
        assert reachable(status)["relay"] == ("203.0.113.5:7702",)
        assert sum(map(len, reachable(status).values())) == 1
        found = swarm.examined("ada")
        assert "just now to the run's host" in found["bandwidth"].found  # and so for what `join` says
        assert found["reachable"].grade == "note"
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
        status = play(3, swarm)
        assert reachable(status)["relay"] == ("203.0.113.5:7702", "192.168.1.5:7702")
        # No address of the home means anything to ada.
        assert all(not found for name, found in reachable(status).items() if name != "relay")
        assert "203.0.113.5:7702" in {event.address for event in swarm.events("answered")}
        assert swarm.ask("invite").startswith("atoll join atoll-")


@pytest.mark.slow
def test_nobody_can_be_reached_but_a_rented_machine_that_hosts_the_copied_run(internet, tmp_path) -> None:
    internet.machine("rented", "203.0.113.9", open_ports="7700-7702")
    for number, name in enumerate(("ada", "bob")):
        internet.router(f"home{number}", f"203.0.113.{20 + number}")
        internet.machine(name, "192.168.1.5", f"home{number}")
    with NetworkSwarm(internet, tmp_path) as swarm:
        swarm.prepare("ada")
        swarm.copy("ada", "rented")
        status = play(4, swarm)
        assert reachable(status)["relay"] == ("203.0.113.9:7702",)


@pytest.mark.slow
def test_a_rented_relay_beside_a_host_with_a_slow_uplink(internet, tmp_path) -> None:
    internet.machine("host", "203.0.113.5", open_ports="7700-7701")
    internet.machine("rented", "203.0.113.9", open_ports="7702")
    internet.router("home", "203.0.113.20")
    internet.machine("ada", "192.168.1.5", "home")
    with NetworkSwarm(internet, tmp_path) as swarm:
        swarm.prepare("host")
        swarm.copy("host", "rented", "genesis")
        swarm.run("host", "atoll host mine.toml --advertise 203.0.113.5 --no-relay")
        swarm.run("rented", "atoll join TICKET --relay --listen 0.0.0.0:7702")
        swarm.run("ada", "atoll join TICKET --dial-only")
        swarm.until_all_take_part(2)


@pytest.mark.slow
def test_no_machine_has_an_address_of_ipv4(internet, tmp_path) -> None:
    internet.machine("host", "2001:db8::5", open_ports="7700-7702")
    internet.machine("ada", "2001:db8::a", open_ports="7800")
    internet.machine("bob", "2001:db8::b", open_ports="")
    with NetworkSwarm(internet, tmp_path) as swarm:
        status = play(5, swarm)
        assert reachable(status)["relay"] == ("[2001:db8::5]:7702",)
        assert ("[2001:db8::a]:7800",) in reachable(status).values()


@pytest.mark.slow
def test_a_friend_whose_router_forwards_another_port_is_reached_there(internet, tmp_path) -> None:
    internet.machine("host", "203.0.113.5", open_ports="7700-7702")
    internet.router("home", "203.0.113.20", to="192.168.1.5", ports="7800")
    internet.machine("ada", "192.168.1.5", "home", open_ports="7800")
    with NetworkSwarm(internet, tmp_path) as swarm:
        swarm.run("host", "atoll host mine.toml --advertise 203.0.113.5")
        swarm.run("ada", "atoll join TICKET --advertise 203.0.113.20:7800")
        swarm.until_all_take_part(2)
        assert ("203.0.113.20:7800",) in reachable(swarm.status()).values()


@pytest.mark.slow
def test_a_relay_whose_port_is_closed_is_named_with_the_port(internet, tmp_path) -> None:
    internet.machine("host", "203.0.113.5", open_ports="7700-7701")
    internet.router("home", "203.0.113.20")
    internet.machine("ada", "192.168.1.5", "home")
    with NetworkSwarm(internet, tmp_path) as swarm:
        swarm.run("host", "atoll host mine.toml --advertise 203.0.113.5")
        swarm.run("ada", "atoll join TICKET --dial-only")
        told = swarm.until_event("unreachable")
        assert told.address == "203.0.113.5:7702"
        assert told.by == swarm.island_ids().pop()
