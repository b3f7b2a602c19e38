"""A small internet in this kernel: machines in namespaces, routers that translate, firewalls that drop."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from agents.spaces import command, inside, leftovers, own_prefix, remove

from atoll.errors import UserError

PREFIX = "an"  # and the process's id: of namespaces
PUBLIC = "internet"  # the network to which everything with a public address is attached
HOME_ROUTER = "192.168.1.1"  # of every home, as it is
FIREWALL = """
table inet wall {{
  chain input {{
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iif lo accept
    meta l4proto ipv6-icmp accept
    {let_in}
  }}
}}
"""
# Answers come back through the translation; what begins outside goes only where a port is forwarded. What
# goes from one machine of the home to another passes the forward chain too, where the kernel filters bridges.
ROUTER = """
table ip nat {{
  chain before {{ type nat hook prerouting priority dstnat; {forwards}
  }}
  chain after {{ type nat hook postrouting priority srcnat; oifname "wan" masquerade
    {hairpin}
  }}
}}
table inet wall {{
  chain input {{ type filter hook input priority filter; policy drop; ct state established,related accept
  }}
  chain forward {{ type filter hook forward priority filter; policy drop; ct state established,related accept
    iifname "lan" accept
    ct status dnat accept
  }}
}}
"""


@cache
def missing() -> str:
    """Why there can be no such internet here; "" if there can."""
    if os.geteuid():
        return "networks are made by root"
    if tools := [tool for tool in ("ip", "nft") if not shutil.which(tool)]:
        return f"not installed: {', '.join(tools)}"
    try:
        with Internet() as probe:
            probe.router("home", "203.0.113.5")
    except (UserError, OSError) as error:  # such as in a container that is root of little
        return f"networks cannot be made here ({error})"
    return ""


class Internet:
    """Machines by name. As a context it removes them all at the end."""

    def __init__(self) -> None:
        self._prefix = own_prefix(PREFIX)
        self._num_links = 0

    def __enter__(self) -> "Internet":
        for left in leftovers(PREFIX):
            remove(f"{left}-")
        self._switch(PUBLIC)
        return self

    def __exit__(self, *_: object) -> None:
        remove(f"{self._prefix}-")

    def machine(self, name: str, address: str, network: str = PUBLIC, open_ports: str | None = None) -> None:
        """A machine in a network. With `open_ports` ("7700-7702", "" for none) it has a firewall."""
        self._space(name)
        self._plug(name, "wan", address, network)
        if network != PUBLIC:
            self._ip(name, "route add default via", HOME_ROUTER)
        if open_ports is not None:
            self._nft(name, FIREWALL.format(let_in=f"tcp dport {open_ports} accept" if open_ports else ""))

    def router(
        self, home: str, address: str, *, to: str = "", ports: str = "7700-7702", loopback: bool = False
    ) -> None:
        """A home, as a network of that name, behind a router with a public address.

        It forwards `ports` to the machine `to`, if given; with `loopback` also what comes from inside.
        """
        self._switch(home)
        self._plug(home, "wan", address, PUBLIC)
        self._ip(home, "addr add", f"{HOME_ROUTER}/24", "dev lan")
        with inside(self._named(home)):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        only_outside = "" if loopback else 'iifname "wan" '
        forwards = f"{only_outside}ip daddr {address} tcp dport {ports} dnat to {to}" if to else ""
        hairpin = f"ip saddr {HOME_ROUTER}/24 ip daddr {to} masquerade" if to and loopback else ""
        self._nft(home, ROUTER.format(forwards=forwards, hairpin=hairpin))

    @contextmanager
    def at(self, name: str) -> Generator[None]:
        """Processes that are started inside the block run on that machine."""
        with inside(self._named(name)):
            yield

    def _named(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def _space(self, name: str) -> None:
        command("ip", "netns", "add", self._named(name))
        self._ip(name, "link set lo up")

    def _switch(self, network: str) -> None:
        self._space(network)
        self._ip(network, "link add lan type bridge")
        self._ip(network, "link set lan up")

    def _plug(self, name: str, device: str, address: str, network: str) -> None:
        self._num_links += 1
        port = f"port{self._num_links}"
        ends = (port, "type veth peer name", device, "netns", self._named(name))
        self._ip(network, "link add", *ends)
        self._ip(network, "link set", port, "master lan up")
        whole = f"{address}/64" if ":" in address else f"{address}/24"
        no_wait = ("nodad",) if ":" in address else ()
        self._ip(name, "addr add", whole, "dev", device, *no_wait)
        self._ip(name, "link set", device, "up")

    def _ip(self, name: str, *words: str) -> None:
        command("ip", "-n", self._named(name), *" ".join(words).split())

    def _nft(self, name: str, rules: str) -> None:
        with inside(self._named(name)):
            command("nft", "-f", "-", text=rules)
