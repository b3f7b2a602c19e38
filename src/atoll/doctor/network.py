"""How this machine is reached, and how it sends."""

from pathlib import Path

import msgspec

from atoll.doctor.asked import Asked
from atoll.doctor.finding import Finding
from atoll.run.ports import own_host
from atoll.swarm.address import Address, is_local, is_loopback
from atoll.swarm.grpc_transport import why_not_served

CONTROLS = Path("/proc/sys/net/ipv4")
BBR = "sysctl -w net.core.default_qdisc=fq net.ipv4.tcp_congestion_control=bbr"
FORWARD = (
    "nothing, and --dial-only says so at once; or let the router forward a port here and join with "
    "--advertise ADDRESS:PORT"
)


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """What the system says of its network."""

    host: str  # by which this machine goes out; loopback: there is no network
    listen: Address  # where an agent would listen
    why_not_served: str  # there; "": it can
    control: str  # of congestion, that new connections use; "": not known
    has_bbr: bool  # it may be chosen, with or without loading a module


def network(listen: Address) -> Network:
    """Of this machine."""
    return Network(
        host=own_host(listen.host),
        listen=listen,
        why_not_served=why_not_served(listen),
        control=_read("tcp_congestion_control"),
        has_bbr="bbr" in _read("tcp_available_congestion_control").split(),
    )


def judge_listening(found: Network) -> Finding:
    """Whether an agent can listen."""
    where = f"{found.listen.host}, " + (f"port {found.listen.port}" if found.listen.port else "any port")
    if found.why_not_served:
        return Finding(
            about="ports",
            grade="wrong",
            found=f"nothing can listen at {where}: {found.why_not_served}",
            do="choose another with --listen, or join with --dial-only",
        )
    return Finding(about="ports", grade="right", found=f"an agent can listen at {where}")


def judge_reach(found: Network, asked: Asked | None) -> Finding:
    """Whether others reach this machine: as the host has tried it, else as its address says."""
    looked = asked.looked if asked else None
    if is_loopback(found.host) and (looked is None or is_loopback(looked.seen_host)):
        said = "this machine is in no network: only what runs on it is reached"
        return Finding(about="reachable", grade="note" if looked is None else "right", found=said)
    if looked is not None and looked.unreached is not None:
        seen = looked.seen_host
        if not looked.unreached:
            return Finding(about="reachable", grade="right", found=f"the host has reached it at {seen}")
        router = "" if seen == found.host else f"; a router stands between: here it is {found.host}"
        return Finding(
            about="reachable",
            grade="note",
            found=f"the host cannot reach it at {seen} ({looked.unreached}){router}; it still takes part in "
            "every step, and reduces nothing",
            do=FORWARD,
        )
    if is_local(found.host):
        return Finding(
            about="reachable",
            grade="note",
            found=f"{found.host} is an address of a local network: from outside only a router that forwards "
            "a port leads here",
            do=FORWARD,
        )
    return Finding(
        about="reachable",
        grade="unknown",
        found=f"{found.host} is a public address; whether a firewall is before it can only be tried from "
        "outside",
        do="ask with --ticket: the run's host tries it",
    )


def judge_control(found: Network) -> Finding:
    """Which congestion control new connections use."""
    about = "congestion"
    if not found.control:
        return Finding(about=about, grade="unknown", found="this system does not say how TCP is controlled")
    if found.control == "bbr":
        return Finding(about=about, grade="right", found="bbr, which loses little speed to lost packets")
    first = "" if found.has_bbr else "modprobe tcp_bbr; "
    return Finding(
        about=about,
        grade="note",
        found=f"{found.control}: on long links that lose packets a reduction took 1.3 to 1.6 of the least "
        "time with cubic, and 1.1 with bbr (docs/links.md)",
        do=f"as root: {first}{BBR}",
    )


def _read(name: str) -> str:
    try:
        return (CONTROLS / name).read_text().strip()
    except OSError:
        return ""
