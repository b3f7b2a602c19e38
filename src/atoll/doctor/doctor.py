"""The whole examination, in the order in which its table is read."""

from pathlib import Path

import msgspec

from atoll.doctor import accelerator, clock, versions
from atoll.doctor.accelerator import Accelerators, accelerators
from atoll.doctor.asked import Asked, ask
from atoll.doctor.finding import Finding
from atoll.doctor.link import judge_link, known_link, measured_link, traffic
from atoll.doctor.needs import Needs, gb
from atoll.doctor.network import judge_control, judge_listening, judge_reach, network
from atoll.doctor.system import judge_disk, judge_handles, judge_memory, system
from atoll.simulate.plan_machine import measure
from atoll.swarm.address import Address
from atoll.swarm.identity import Ticket
from atoll.terminal import human


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be examined."""

    ticket: str = ""  # of the run that it is about; "": none
    run_dir: Path | None = None  # where the run lies, or would; None: runs/NAME, as `atoll join` chooses
    listen: Address = Address("0.0.0.0", 0)
    mbit: tuple[float, float] | None = None  # of the link, up and down
    relay: bool = False  # there is to be no trainer


def examine(request: Request) -> list[Finding]:
    """Look at everything, in some seconds. Raises UserError for what is no ticket."""
    run_dir = request.run_dir or Path("runs")
    asked, needs, found = None, None, list[Finding]()
    if request.ticket:
        run_dir = request.run_dir or Path("runs") / Ticket.parse(request.ticket).run_name
        is_measured = known_link(run_dir, request.mbit) is None
        asked = ask(request.ticket, request.listen, is_measured=is_measured)
        looked = asked.looked
        needs = Needs.of(looked.run, looked.overview, run_dir, is_member=False) if looked else None
        found += _judge_run(asked, needs)
    looked = asked.looked if asked else None
    devices = Accelerators() if request.relay else accelerators()
    has, net = system(run_dir, is_measured=True), network(request.listen)
    link = known_link(run_dir, request.mbit) or (measured_link(asked) if asked else None)
    if not request.relay:
        found.append(accelerator.judge(devices))
        found += judge_device_memory(devices, needs)
    trains_here = not request.relay and (devices.torch is None or devices.torch.device != "cuda")
    machine = measure(Path(has.disk_path), needs.codec) if link and needs else None
    return [
        *found,
        judge_memory(has, needs, trains_here),
        judge_disk(has, needs),
        judge_handles(has),
        clock.judge(clock.is_synchronised(), asked.ahead_seconds if looked and asked else None),
        judge_listening(net),
        judge_reach(net, asked),
        judge_control(net),
        judge_link(link, needs, machine, asked.round_trip_seconds if asked else 0.0),
        versions.judge(versions.versions(is_tested=looked is not None), looked),
    ]


def judge_device_memory(found: Accelerators, needs: Needs | None) -> list[Finding]:
    """Whether a run's trainer fits on the accelerators; nothing where that is not known."""
    torch = found.torch
    if needs is None or torch is None or not torch.memory_bytes:
        return []
    said = f"{gb(torch.memory_bytes)}; weights, gradients and moments of this run take {gb(needs.trainer)}"
    if torch.memory_bytes < needs.trainer:
        return [
            Finding(
                about="GPU memory",
                grade="note",
                found=said,
                do="island.cpu_offload=true keeps them in the machine's memory; more GPUs share them "
                "(torchrun)",
            )
        ]
    return [Finding(about="GPU memory", grade="right", found=said)]


def _judge_run(asked: Asked, needs: Needs | None) -> list[Finding]:
    """What the run's host has said."""
    looked = asked.looked
    if looked is None or needs is None:
        return [Finding(about=asked.about, grade="wrong", found=asked.failure)]
    o = looked.overview
    how = "finished" if o.step >= o.num_outer_steps else f"at step {o.step} of {o.num_outer_steps}"
    islands = "1 island is in it" if o.num_islands == 1 else f"{o.num_islands} islands are in it"
    said = f"{looked.run.run_id}, {human(needs.num_parameters)} parameters, {how}; {islands}"
    said += f"; the host answers in {asked.round_trip_seconds * 1e3:.0f} ms"
    stall = [Finding(about="stall", grade="note", found=o.stall)] if o.stall else []
    grade = "wrong" if o.step >= o.num_outer_steps else "right"
    advice = "there is nothing left to train; ask for a ticket of another run" if grade == "wrong" else ""
    return [
        Finding(about="run", grade=grade, found=said, do=advice),
        *stall,
        Finding(about="traffic", grade="right", found=_traffic(needs)),
    ]


def _traffic(needs: Needs) -> str:
    joining = f"joining receives {gb(needs.join)}; " if needs.join else ""
    return f"{joining}{traffic(needs)}"
