"""The addresses that options give."""

from __future__ import annotations

from atoll.errors import UserError
from atoll.swarm.address import WILDCARDS, Address


def parse_advertised(text: str) -> Address:
    """The address of `--advertise`. Raises UserError, also for one at which nothing can be reached."""
    address = parse_address("--advertise", text, 0)
    if address.host in WILDCARDS:
        raise UserError(
            f"--advertise {text}: means all addresses of a machine, to listen at; say one where the others "
            "reach it"
        )
    return address


def parse_address(option: str, text: str, default_port: int, default_host: str = "") -> Address:
    """The address that an option gives. Raises UserError, which names the option."""
    try:
        return Address.parse(text, default_port, default_host)
    except UserError as error:
        raise UserError(f"{option} {error}") from None
