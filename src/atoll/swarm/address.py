"""Where something listens or is reached: a host and a port, as one value that is written in one way."""

import ipaddress
import re

import msgspec

from atoll.errors import UserError

MAX_PORT = 65_535
WILDCARDS = ("0.0.0.0", "::")  # to listen at either is to listen at all of a machine's addresses
_MAX_HOST_CHARACTERS = 253
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
# Addresses that mean something only within a machine or a local network. (What Python calls private holds
# the networks of documents as well, which a reader may try out.)
_LOCAL_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)


class Address(msgspec.Struct, frozen=True, order=True, array_like=True, forbid_unknown_fields=True):
    """A host and a port. What is no address cannot be made, nor decoded (ValueError)."""

    host: str  # a name, or an IP address; IPv6 without brackets
    port: int  # of TCP; 0 where something listens: any that is free

    def __post_init__(self) -> None:
        if not _is_host(self.host) or not 0 <= self.port <= MAX_PORT:
            raise ValueError(f"{self.host!r} and {self.port} are no address")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @staticmethod
    def parse(text: str, default_port: int | None = None, default_host: str = "") -> "Address":
        """The address in `text`: HOST:PORT, or what of it has a default.

        IPv6 stands in brackets where a port follows. Raises UserError.
        """
        text = text.strip()
        if text.startswith("["):
            host, closed, rest = text[1:].partition("]")
            colon, port = rest[:1], rest[1:]
            well_formed = bool(closed) and colon in ("", ":") and ":" in host
        elif text.count(":") > 1:  # IPv6 without brackets, and so without a port
            host, colon, port, well_formed = text, "", "", True
        else:
            host, colon, port = text.partition(":")
            well_formed = True
        host = _compressed(host or default_host)
        if not colon and default_port is not None:
            port = str(default_port)
        try:
            if not well_formed or not re.fullmatch(r"[0-9]{1,5}", port):
                raise ValueError
            return Address(host, int(port))
        except ValueError:
            form = "HOST:PORT" if default_port is None else "HOST or HOST:PORT"
            raise UserError(
                f"{text}: not {form}; write it as in 203.0.113.5:7700, host.example:7700 or "
                f"[2001:db8::5]:7700, with a port of at most {MAX_PORT}"
            ) from None

    def with_port(self, port: int) -> "Address":
        """The same host, another port."""
        return Address(self.host, port)


Addresses = tuple[Address, ...]  # of one member, best first: whoever dials it uses what works


class HostPorts(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where the three parts of a run's host are: one host, and a port for each."""

    host: str
    members: int  # of the coordinator, for members
    enrolment: int  # of the coordinator, for strangers with a ticket
    relay: int  # of the relay beside it

    def __post_init__(self) -> None:
        for port in (self.members, self.enrolment, self.relay):
            Address(self.host, port)

    @staticmethod
    def following(first: Address, enrolment: int | None = None, relay: int | None = None) -> "HostPorts":
        """`first` for members, the next port for enrolment and the one after it for the relay.

        Ports that are given take the place of these; if `first` is any port, so are the others. Raises
        UserError if there are no such ports.
        """
        if enrolment is None:
            enrolment = first.port and first.port + 1
        if relay is None:
            relay = first.port and first.port + 2
        for what, port in (("enrolment", enrolment), ("the relay", relay)):
            if not 0 <= port <= MAX_PORT:
                raise UserError(
                    f"{first}: this leaves no port for {what} ({port} is none); choose one of at most "
                    f"{MAX_PORT - 2}, or name the ports of enrolment and of the relay as well"
                )
        return HostPorts(first.host, first.port, enrolment, relay)

    @property
    def for_members(self) -> Address:
        return Address(self.host, self.members)

    @property
    def for_strangers(self) -> Address:
        return Address(self.host, self.enrolment)

    @property
    def of_relay(self) -> Address:
        return Address(self.host, self.relay)


def is_local(host: str) -> bool:
    """Whether a host is an IP address that means something only within a machine or a local network."""
    address = _ip(host)
    return address is not None and any(address in network for network in _LOCAL_NETWORKS)


def is_loopback(host: str) -> bool:
    """Whether a host is an IP address of the machine that asks, and of no other."""
    address = _ip(host)
    return address is not None and address.is_loopback


def _is_host(text: str) -> bool:
    if _ip(text) is not None:
        return "%" not in text  # a zone, as in fe80::1%eth0, means nothing elsewhere
    last = text.rsplit(".", 1)[-1]  # 300.1.1.1 and 10.1 are not addresses, and may not be names
    return len(text) <= _MAX_HOST_CHARACTERS and bool(_NAME.fullmatch(text)) and not last.isdigit()


def _compressed(host: str) -> str:
    """An IP address in its shortest form, IPv4 in IPv6 as IPv4; any other text as it is."""
    address = _ip(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return host if address is None else str(address)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
