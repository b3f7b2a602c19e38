"""What the person at a host must know: where others find it, which ports must be open, which forwarded."""

import socket

from atoll.coordinator.reach import Scope, is_this_machine
from atoll.swarm.address import WILDCARDS, Address, HostPorts, is_local, is_loopback
from atoll.swarm.dial import resolve
from atoll.swarm.transport import TransportError

# Of the ranges kept for documents: nothing is sent there, a datagram socket only chooses its interface.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def own_host(listen_host: str) -> str:
    """The IP address by which the network that this machine is in reaches what listens at `listen_host`.

    Loopback if there is no network.
    """
    if listen_host not in WILDCARDS:
        return listen_host
    for family, elsewhere in _ELSEWHERE:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((elsewhere, 9))
                return str(probe.getsockname()[0])
            except OSError:
                continue
    return "127.0.0.1"


def from_here(listening: HostPorts) -> Address:
    """Where this machine itself reaches the coordinator, whatever firewall or router is around it."""
    address = listening.for_members
    return Address("127.0.0.1", address.port) if address.host in WILDCARDS else address


async def ips_of(host: str) -> list[str]:
    """The IP addresses of a host; none if its name cannot be resolved here."""
    try:
        return await resolve(host)
    except TransportError:
        return []


def scope_of(ips: list[str]) -> Scope:
    """Where the members of a host that is found at these IP addresses can be."""
    if ips and all(map(is_loopback, ips)):
        return "machine"
    return "network" if ips and all(map(is_local, ips)) else "internet"


def advice(own: HostPorts, advertised: HostPorts, ips: list[str], has_relay: bool) -> list[str]:
    """Sentences on how others reach this host: at `advertised`, whose IP addresses are `ips`.

    `own` is where this machine's network finds it.
    """
    named: dict[str, int | str] = {"members": advertised.members, "enrolment": advertised.enrolment}
    if has_relay:
        named["the relay"] = advertised.relay or "any port"
    ports = ", ".join(f"{port} ({what})" for what, port in named.items())
    said = [f"others find this host at {advertised.host}, by TCP on the ports {ports}; they must be open"]
    scope = scope_of(ips)
    if not ips:
        said.append(f"warning: {advertised.host} cannot be resolved here; others need a name that they can")
    elif scope == "machine":
        said = [
            f"{advertised.host} is this machine for itself: only islands on this machine find this host; for "
            "others, say where they find it: --advertise ADDRESS"
        ]
    elif scope == "network":
        said.append(
            f"warning: {advertised.host} is an address of a local network, and of no use outside it; for "
            f"others, forward these ports of your router to {own.host}, and say where they find the router: "
            "--advertise ADDRESS"
        )
    elif own.host not in ips and not any(map(is_this_machine, ips)):
        pairs = [(advertised.members, own.members), (advertised.enrolment, own.enrolment)]
        if has_relay:
            pairs.append((advertised.relay, own.relay))
        here = "this machine" if is_loopback(own.host) else own.host  # loopback: no network was found
        forwards = ", ".join(f"{outside} to {here}:{inside}" for outside, inside in pairs)
        said.append(
            f"{advertised.host} is not this machine's own address: its router must forward {forwards}"
        )
    return said
