"""What the doctor says of machines of all kinds, and what joining says before it starts."""

import json

import pytest
from unit.machines import CPU, H100, MACHINE, NEEDS, NETWORK, OVERVIEW, SYSTEM, TICKET, asked, changed, looked
from worlds.swarm import LAYOUT, Swarm

from atoll import cli
from atoll.doctor import accelerator, clock, versions
from atoll.doctor.accelerator import Accelerators, accelerators
from atoll.doctor.doctor import judge_device_memory
from atoll.doctor.finding import Finding, prevents
from atoll.doctor.link import Link, judge_link, known_link, traffic
from atoll.doctor.needs import Needs, gb
from atoll.doctor.network import judge_control, judge_listening, judge_reach
from atoll.doctor.system import judge_disk, judge_handles, judge_memory, system
from atoll.swarm import messages as m
from atoll.swarm.address import HostPorts


@pytest.fixture
def run(tmp_path):
    return Swarm(tmp_path / "swarm", num_outer_steps=10).run


# ------------------------------------------------------------------------------------------------ the machine
@pytest.mark.parametrize(
    ("found", "grade", "said", "done"),
    [
        (Accelerators(torch=CPU), "right", "no accelerator was found", ""),
        (Accelerators(num_nvidia=2, torch=H100), "right", "trains on 2 x H100 (160 GB)", ""),
        (
            Accelerators(num_nvidia=1, torch=CPU),
            "note",
            "an NVIDIA GPU, and torch 2.13.0 for the CPU was",
            "index",
        ),
        (
            Accelerators(num_nvidia=1, torch=changed(CPU, build="CUDA 13.0")),
            "note",
            "its driver may be too old",
            "index",
        ),
        (Accelerators(has_amd=True, torch=CPU), "note", "an AMD GPU", "index"),
        (Accelerators(), "wrong", "is not installed", "atoll[train]"),
        (Accelerators(failure="libcudart.so: missing"), "wrong", "libcudart.so", "anew"),
    ],
)
def test_torch_without_the_gpu_that_it_could_use_is_noticed(found, grade, said, done) -> None:
    finding = accelerator.judge(found)
    assert (finding.grade, bool(finding.do)) == (grade, bool(done))
    assert said in finding.found
    assert done in finding.do


def test_an_accelerator_is_found_by_its_device_file_and_torch_by_importing_it(tmp_path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    found = accelerators(tmp_path)
    assert (found.num_nvidia, found.has_amd) == (2, False)
    assert found.torch is not None
    assert found.torch.version


def test_this_machine_has_what_the_system_says(tmp_path) -> None:
    found = system(tmp_path / "not" / "yet", is_measured=True)
    assert found.num_cores > 0
    assert found.memory_bytes >= found.available_bytes > 0
    assert found.disk_path == str(tmp_path)
    assert found.write_speed is not None
    assert found.write_speed > 0


@pytest.mark.parametrize(
    ("has", "needs", "grade"),
    [
        (SYSTEM, None, "right"),
        (SYSTEM, NEEDS, "right"),
        (changed(SYSTEM, disk_bytes=10**9), NEEDS, "wrong"),
        (changed(SYSTEM, disk_bytes=10**9), changed(NEEDS, disk_there=92e9), "right"),
        (changed(SYSTEM, write_speed=5e6), NEEDS, "note"),
        (changed(SYSTEM, write_speed=None, why_not_written="read-only file system"), None, "wrong"),
    ],
)
def test_a_disk_is_judged_by_what_the_run_still_needs(has, needs, grade) -> None:
    assert judge_disk(has, needs).grade == grade


def test_memory_is_judged_by_where_the_trainer_lies() -> None:
    assert judge_memory(SYSTEM, NEEDS, trains_here=False).grade == "right"
    assert judge_memory(SYSTEM, NEEDS, trains_here=True).grade == "note"
    assert judge_memory(changed(SYSTEM, memory_bytes=8 * 10**9), NEEDS, trains_here=True).grade == "wrong"
    assert judge_memory(changed(SYSTEM, memory_bytes=0), NEEDS, trains_here=True).grade == "unknown"
    large = changed(NEEDS, trainer=200e9)
    assert [f.grade for f in judge_device_memory(Accelerators(torch=H100), large)] == ["note"]
    assert [f.grade for f in judge_device_memory(Accelerators(torch=H100), NEEDS)] == ["right"]
    assert judge_device_memory(Accelerators(torch=CPU), NEEDS) == []


def test_too_few_open_files_are_wrong_and_few_are_noted() -> None:
    grades = [judge_handles(changed(SYSTEM, num_handles=n)).grade for n in (0, 4096, 512, 64)]
    assert grades == ["right", "right", "note", "wrong"]


def test_a_clock_that_nobody_was_asked_about_is_not_known() -> None:
    assert clock.judge(None, None).grade == "unknown"
    assert clock.judge(False, None).grade == "note"
    assert clock.judge(True, None).grade == "right"
    assert clock.judge(False, 0.3).grade == "right", "the host's clock agrees"
    assert "400 s behind" in clock.judge(True, -400.0).found
    assert clock.is_synchronised() in (True, False, None)


# ------------------------------------------------------------------------------------------------ the network
def test_a_private_address_is_noted_and_a_public_one_is_not_known_before_it_is_tried(run) -> None:
    assert "local network" in judge_reach(NETWORK, None).found
    assert judge_reach(changed(NETWORK, host="203.0.113.9"), None).grade == "unknown"
    assert judge_reach(changed(NETWORK, host="127.0.0.1"), None).grade == "note"


def test_what_the_host_has_tried_counts_for_more_than_the_address(run) -> None:
    reached = judge_reach(NETWORK, asked(run, unreached=""))
    assert (reached.grade, "198.51.100.7" in reached.found) == ("right", True)
    closed = judge_reach(NETWORK, asked(run, unreached="connection refused"))
    assert closed.grade == "note"
    assert "a router stands between: here it is 192.168.1.5" in closed.found
    assert "--dial-only" in closed.do


def test_a_port_that_cannot_be_listened_at_prevents_joining() -> None:
    taken = judge_listening(changed(NETWORK, why_not_served="the port is in use"))
    assert prevents([taken])
    assert not prevents([judge_listening(NETWORK)])


@pytest.mark.parametrize(
    ("control", "has_bbr", "grade", "done"),
    [
        ("bbr", True, "right", ""),
        ("cubic", True, "note", "as root: sysctl"),
        ("reno", False, "note", "modprobe"),
    ],
)
def test_cubic_is_noted_with_how_to_have_bbr(control, has_bbr, grade, done) -> None:
    found = judge_control(changed(NETWORK, control=control, has_bbr=has_bbr))
    assert found.grade == grade
    assert done in found.do


def test_a_link_that_nobody_knows_is_not_known_and_what_it_should_carry_is_said() -> None:
    assert judge_link(None, None, None, 0.0).grade == "unknown"
    said = judge_link(None, NEEDS, None, 0.1).found
    assert "Mbit/s each way 90% of the time is training" in said
    assert "each way" not in judge_link(None, changed(NEEDS, inner_step_seconds=None), None, 0.1).found


def test_a_slow_link_is_told_with_the_utilisation_that_it_leaves() -> None:
    fast = judge_link(Link(up=2000, down=2000, source="as you say"), NEEDS, MACHINE, 0.1)
    slow = judge_link(Link(up=10, down=100, source="as you say"), NEEDS, MACHINE, 0.1)
    assert (fast.grade, slow.grade) == ("right", "note")
    assert "needs" in slow.do
    assert "preset 1b" in judge_link(Link(up=10, down=100, source="as you say"), None, None, 0.0).found


def test_a_link_is_known_from_what_an_island_has_learned_unless_it_is_given(tmp_path) -> None:
    directory = tmp_path / "islands" / "island-1"
    directory.mkdir(parents=True)
    assert known_link(tmp_path, None) is None
    rates = {"up_bytes_per_second": 1e6, "down_bytes_per_second": 5e6}
    (directory / "links.json").write_text(json.dumps(rates))
    assert known_link(tmp_path, None) == Link(up=8.0, down=40.0, source="as island-1 has seen")
    assert known_link(tmp_path, (1.0, 2.0)) == Link(up=1.0, down=2.0, source="as you say")


# ---------------------------------------------------------------------------------------------------- the run
def test_what_a_run_needs_follows_from_its_layout_and_its_pace(run, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "kept").write_bytes(b"x" * 100_000)
    needs = Needs.of(run, OVERVIEW, tmp_path / "run", is_member=False)
    assert needs.num_parameters == sum(tensor.num_elements for tensor in LAYOUT.tensors)
    assert needs.num_islands == 3
    assert needs.inner_step_seconds == pytest.approx(16 * 2 / 400.0)
    assert needs.disk_left == max(0.0, needs.disk - needs.disk_there)
    assert needs.disk_there >= 100_000
    assert needs.outer_steps_a_day == pytest.approx(86_400 / (4 * needs.inner_step_seconds))
    again = Needs.of(run, None, tmp_path / "run", is_member=True)
    assert (again.join, again.outer_steps_a_day, again.num_islands) == (0.0, None, 1)


def test_traffic_is_told_a_day_only_where_somebody_trains() -> None:
    assert "at most 130 GB a day" in traffic(NEEDS), "1.5 payloads of 1 GB in each of 86.4 steps"
    assert "once somebody trains" in traffic(changed(NEEDS, inner_step_seconds=None))
    assert "while it is alone" in traffic(changed(NEEDS, num_islands=1))


@pytest.mark.parametrize(
    ("size", "text"), [(1.24e9, "1.2 GB"), (940e9, "940 GB"), (18e6, "18 MB"), (2e4, "0.02 MB")]
)
def test_sizes_are_readable(size, text) -> None:
    assert gb(size) == text


def test_versions_that_do_not_fit_prevent_joining(run) -> None:
    here = versions.Versions(release="0.1.0", protocol=m.VERSION, python="3.11", self_test=b"same")
    assert versions.judge(here, None).grade == "right"
    assert versions.judge(here, looked(run)).grade == "right"
    assert versions.judge(here, looked(run, release="0.2.0")).grade == "note"
    other = versions.judge(here, looked(run, version=99, release="9.9"))
    assert (other.grade, "atoll==9.9" in other.do) == ("wrong", True)
    assert versions.judge(here, looked(run, self_test=b"other")).grade == "wrong"


# -------------------------------------------------------------------------------------------------- the verb
def test_the_doctor_tells_a_table_or_json_and_its_exit_status_says_whether_joining_works(
    capsys, tmp_path, monkeypatch
) -> None:
    from atoll.doctor import doctor

    found = [
        Finding(about="disk", grade="right", found="\x1b[2Jmuch"),
        Finding(about="x", grade="note", found="y"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda request: found)
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "nothing here prevents joining" in shown
    assert "\x1b[2J" not in shown
    advice = "pip install 'atoll[train]'"
    found.append(Finding(about="torch", grade="wrong", found="is not installed", do=advice))
    assert cli.main(["doctor"]) == 1
    assert f"-> {advice}" in capsys.readouterr().out
    assert cli.main(["doctor", "--json"]) == 1
    assert [each["grade"] for each in json.loads(capsys.readouterr().out)] == ["right", "note", "wrong"]


def test_a_doctor_without_a_run_says_what_it_can(tmp_path) -> None:
    from atoll.doctor.doctor import Request, examine

    found = examine(Request(run_dir=tmp_path, relay=True))
    about = [finding.about for finding in found]
    assert about == [
        *(
            "memory",
            "disk",
            "open files",
            "clock",
            "ports",
            "reachable",
            "congestion",
            "bandwidth",
            "versions",
        )
    ]
    assert not [finding for finding in found if finding.grade == "unknown" and finding.about == "disk"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ticket", "atoll-nonsense"], "not a ticket"),
        (["--mbit", "fast"], "--mbit"),
        (["--mbit", "1/2,3/4"], "one link"),
        (["--listen", "host:port"], "--listen"),
    ],
)
def test_what_the_doctor_is_given_wrongly_is_the_users_mistake(capsys, arguments, said) -> None:
    assert cli.main(["doctor", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_run_that_is_not_hosted_is_what_prevents_joining(tmp_path) -> None:
    from atoll.doctor.doctor import Request, examine

    ticket = changed(TICKET, hosts=(HostPorts("127.0.0.1", 1, 1, 1),)).text()
    found = examine(Request(ticket=ticket, run_dir=tmp_path, relay=True))
    assert (found[0].about, found[0].grade) == ("host", "wrong")
    assert "no coordinator answers at 127.0.0.1:1" in found[0].found
