"""What `atoll join` says before it starts: what this machine gives, what the run takes, what is lacking."""

import sys
from pathlib import Path

import msgspec

from atoll.agent import membership
from atoll.doctor import accelerator
from atoll.doctor.accelerator import Accelerators, device_of
from atoll.doctor.asked import Asked, ask
from atoll.doctor.doctor import judge_device_memory
from atoll.doctor.finding import Finding
from atoll.doctor.joining import Joining
from atoll.doctor.link import Link, known_link, measured_link, traffic
from atoll.doctor.needs import Needs, gb
from atoll.doctor.network import Network, judge_listening, judge_reach, network
from atoll.doctor.system import System, judge_disk, judge_memory, system
from atoll.errors import UserError
from atoll.swarm.address import Address
from atoll.swarm.identity import Ticket

MAX_BYTES = 1 << 20


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run and of this machine before it joins."""

    needs: Needs
    has: System
    net: Network
    asked: Asked
    link: Link | None


def look(joining: Joining) -> Seen | None:
    """Ask the run's host, and look at this machine; None while nothing is known of the run.

    Raises UserError for what is no ticket. A host that does not answer is no error: joining waits for it.
    """
    member = membership.load(joining.member_dir) if joining.member_dir else None
    link = known_link(joining.run_dir, None)
    if member is None or joining.listen is not None:
        is_measured = link is None and not joining.metered
        asked = ask(joining.ticket, joining.listen, is_measured=is_measured)
    else:
        asked = Asked(ticket=Ticket.parse(joining.ticket))
    looked = asked.looked
    run = looked.run if looked else member.run if member else None
    if run is None:
        return None
    overview = looked.overview if looked else None
    return Seen(
        needs=Needs.of(run, overview, joining.run_dir, is_member=member is not None),
        has=system(joining.run_dir, is_measured=False),
        net=network(joining.listen or Address("0.0.0.0", 0)),
        asked=asked,
        link=link or measured_link(asked),
    )


def described(joining: Joining, devices: Accelerators, seen: Seen) -> list[str]:
    """Sentences about what this machine gives, what the run takes, and what is lacking."""
    needs, has, net = seen.needs, seen.has, seen.net
    reach = judge_reach(net, seen.asked)
    lines = [
        f"this machine gives: {_gives(joining, devices, has)}",
        f"reachable: {'it only dials out (--dial-only)' if joining.listen is None else reach.found}",
        f"link: {_link(joining, seen.link)}",
        f"the run takes: {_takes(joining, needs)}",
        f"traffic: {f'joining receives {gb(needs.join)}; ' if needs.join else ''}{traffic(needs)}",
    ]
    trains_here = not joining.relay and (devices.torch is None or devices.torch.device != "cuda")
    looked_at = [judge_memory(has, needs, trains_here), judge_disk(has, needs)]
    if not joining.relay:
        looked_at += [accelerator.judge(devices), *judge_device_memory(devices, needs)]
    if joining.listen is not None:
        looked_at.append(judge_listening(net))
    return lines + [_lack(finding) for finding in looked_at if finding.grade in ("note", "wrong")]


def _gives(joining: Joining, devices: Accelerators, has: System) -> str:
    own, room = joining.own, f"{gb(has.memory_bytes)} of memory, {gb(has.disk_bytes)} of disk free"
    if joining.relay:
        return f"a relay, without training; {room}"
    device = device_of(devices.torch) if devices.torch else "the CPU"
    if own.device != "auto":
        device = own.device
    cores = own.threads or has.num_cores
    return f"{device}{f' with {cores} cores' if device in ('the CPU', 'cpu') else ''}; {room}"


def _takes(joining: Joining, needs: Needs) -> str:
    trainer = "" if joining.relay else f", and {gb(needs.trainer)} for the trainer, activations aside"
    data = "" if joining.relay or not needs.data else f" and up to {gb(needs.data)} of data by its end"
    return f"{gb(needs.disk)} of disk{data}; {gb(needs.mapped)} of memory for the outer state{trainer}"


def _link(joining: Joining, link: Link | None) -> str:
    own, caps = joining.own, list[str]()
    if own.upload_mbit:
        caps.append(f"{own.upload_mbit:g} Mbit/s up")
    if own.download_mbit:
        caps.append(f"{own.download_mbit:g} Mbit/s down")
    known = link.text if link else "what it carries is seen in the first outer steps"
    capped = f"; at most {' and '.join(caps)} are used" if caps else ""
    return f"{known}{capped}" + (
        "; others get no state and no data here (--metered)" if joining.metered else ""
    )


def _lack(finding: Finding) -> str:
    return f"{'lacking' if finding.grade == 'wrong' else 'note'}, {finding.about}: {finding.found}" + (
        f"; {finding.do}" if finding.do else ""
    )


def main() -> int:
    """Print sentences, as JSON; of standard input a line is a `Joining`, and the next the accelerators."""
    try:
        told = sys.stdin.buffer.readline(MAX_BYTES)
        joining = msgspec.json.decode(told, type=Joining, dec_hook=lambda _, path: Path(path))
        seen = look(joining)
        devices = msgspec.json.decode(sys.stdin.buffer.readline(MAX_BYTES), type=Accelerators | None)
        lines = described(joining, devices or Accelerators(), seen) if seen else []
    except UserError as error:
        print(f"atoll: {error}", file=sys.stderr)
        return 2
    print(msgspec.json.encode(lines).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
