"""Machines, runs and answers of a host as examples, which tests of the doctor change by name."""

import msgspec

from atoll.doctor.accelerator import Torch
from atoll.doctor.asked import Asked
from atoll.doctor.needs import Needs
from atoll.doctor.network import Network
from atoll.doctor.system import System
from atoll.simulate.plan import Machine
from atoll.status import Overview
from atoll.swarm import messages as m
from atoll.swarm.address import Address, HostPorts
from atoll.swarm.identity import Ticket

CPU = Torch(version="2.13.0", device="cpu")
H100 = Torch(
    version="2.13.0", device="cuda", names=("H100", "H100"), memory_bytes=160 * 10**9, build="CUDA 13.0"
)
SYSTEM = System(
    num_cores=8,
    memory_bytes=32 * 10**9,
    available_bytes=16 * 10**9,
    disk_path="/",
    disk_bytes=100 * 10**9,
    write_speed=500e6,
    num_handles=1024,
)
NEEDS = Needs(
    name="reef",
    num_parameters=10**9,
    codec="int8",
    inner_steps=100,
    checkpoint_every=10,
    disk=92e9,
    disk_there=0.0,
    data=1e9,
    mapped=14e9,
    trainer=16e9,
    payload=1e9,
    join=6.7e9,
    num_islands=4,
    inner_step_seconds=10.0,
)
NETWORK = Network(
    host="192.168.1.5",
    listen=Address("0.0.0.0", 0),
    why_not_served="",
    control="cubic",
    has_bbr=True,
)
MACHINE = Machine(
    encode_seconds=1e-9, add_seconds=1e-9, apply_seconds=2e-9, copy_seconds=1e-9, disk_bytes_per_second=1e9
)
OVERVIEW = Overview(
    step=3,
    num_outer_steps=10,
    num_islands=2,
    num_awaited=1,
    stall="",
    num_proposed=0,
    tokens_per_second=400.0,
)
TICKET = Ticket("reef-1", (HostPorts("203.0.113.5", 7700, 7701, 7702),), b"f" * 16, "secret")


def changed(base, **values):
    return msgspec.structs.replace(base, **values)


def looked(swarm_run, **values) -> m.Looked:
    plain = {
        "run": swarm_run,
        "version": m.VERSION,
        "release": "0.1.0",
        "self_test": b"same",
        "time": 0.0,
        "overview": OVERVIEW,
        "seen_host": "198.51.100.7",
        "unreached": None,
    }
    return m.Looked(**{**plain, **values})


def asked(swarm_run, **values) -> Asked:
    return Asked(ticket=TICKET, looked=looked(swarm_run, **values))
