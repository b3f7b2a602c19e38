"""What `atoll host` says at its start: what it advertises, and which ports must be open or forwarded."""

from atoll.run.ports import advice, from_here, own_host, scope_of
from atoll.swarm.address import Address, HostPorts

OWN = HostPorts("192.168.1.5", 7700, 7701, 7702)
PUBLIC = HostPorts("203.0.113.5", 7700, 7701, 7702)


def said(own: HostPorts, advertised: HostPorts, *ips: str, has_relay: bool = True) -> str:
    return "\n".join(advice(own, advertised, list(ips), has_relay))


def test_a_public_host_is_told_which_ports_to_open() -> None:
    text = said(PUBLIC, PUBLIC, PUBLIC.host)
    assert "203.0.113.5, by TCP on the ports 7700 (members), 7701 (enrolment), 7702 (the relay)" in text
    assert "warning" not in text
    assert "7702" not in said(PUBLIC, PUBLIC, PUBLIC.host, has_relay=False)


def test_an_address_of_a_local_network_is_warned_of() -> None:
    assert "warning: 192.168.1.5 is an address of a local network" in said(OWN, OWN, OWN.host)


def test_a_host_behind_a_router_is_told_what_to_forward() -> None:
    outside = HostPorts("203.0.113.5", 17700, 17701, 17702)
    text = said(OWN, outside, outside.host)
    assert "forward 17700 to 192.168.1.5:7700, 17701 to 192.168.1.5:7701, 17702 to 192.168.1.5:7702" in text


def test_a_host_that_has_the_advertised_address_itself_need_not_forward_anything() -> None:
    """As a machine with several interfaces, which goes out by another one. (Its own address: 127.0.0.2.)"""
    text = said(OWN, HostPorts("host.example", 7700, 7701, 7702), "203.0.113.5", "127.0.0.2")
    assert "forward" not in text


def test_a_machine_without_a_network_is_not_told_to_forward_to_loopback() -> None:
    own = HostPorts("127.0.0.1", 7700, 7701, 7702)
    text = said(own, PUBLIC, PUBLIC.host)
    assert "7700 to this machine:7700" in text
    assert "127.0.0.1" not in text


def test_a_host_of_one_machine_says_so() -> None:
    own = HostPorts("127.0.0.1", 7700, 7701, 7702)
    assert "only islands on this machine" in said(own, own, "127.0.0.1")


def test_a_name_that_cannot_be_resolved_is_warned_of() -> None:
    assert "host.example cannot be resolved" in said(OWN, HostPorts("host.example", 7700, 7701, 7702))


def test_this_machine_finds_the_coordinator_by_itself() -> None:
    assert from_here(HostPorts("0.0.0.0", 7700, 7701, 7702)) == Address("127.0.0.1", 7700)
    assert from_here(HostPorts("::", 7700, 7701, 7702)) == Address("127.0.0.1", 7700)
    assert from_here(HostPorts("2001:db8::5", 7700, 7701, 7702)) == Address("2001:db8::5", 7700)
    assert own_host("203.0.113.5") == "203.0.113.5"


def test_where_members_can_be_follows_from_what_is_advertised() -> None:
    assert scope_of(["127.0.0.1", "::1"]) == "machine"
    assert scope_of(["192.168.1.5"]) == "network"
    assert scope_of(["192.168.1.5", "2001:db8::5"]) == "internet"
    assert scope_of([]) == "internet"
