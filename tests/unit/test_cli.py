"""A user's mistakes at the command line: one clear sentence on standard error, exit status 2, nothing left
behind.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from atoll import cli
from atoll import recipe as recipes
from atoll.cli import parser
from atoll.cli.host import again
from atoll.cli.join import join_settings
from atoll.cli.opened import opened
from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import parse
from atoll.errors import UserError
from atoll.run.directory import IslandDir, RunDir
from atoll.run.genesis import prepare_own
from atoll.swarm.address import Address, HostPorts
from atoll.swarm.identity import Ticket
from atoll.words import command

RECIPE = """
name = "tiny"
model.own = true
stage = [{ until = 4 }]
inner = { context_length = 1, tokens_per_step = 1 }
outer = { inner_steps = 2 }
"""

TALKATIVE = """
from atoll import cli
from atoll.cli import parser
from atoll.cli.join import join_settings
def evict(_): print("more than a pipe holds " * 10_000)
cli.operate.evict = evict
raise SystemExit(cli.main(["evict", "run", "island"]))
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def complaint(capsys, *arguments: object) -> str:
    """What one mistaken command says; its exit status must be 2."""
    assert cli.main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("atoll: ")
    assert captured.err.count("\n") == 1, "one sentence, no traceback"
    return captured.err


def test_an_unknown_recipe_names_the_known_ones(capsys) -> None:
    assert "demo" in complaint(capsys, "prepare", "no-such-recipe")


def test_an_unknown_key_is_named_with_its_place(capsys, tmp_path) -> None:
    text = complaint(capsys, "prepare", "demo", "outer.speed=3", "--dir", tmp_path / "run")
    assert "at outer" in text
    assert "`speed`" in text
    assert not (tmp_path / "run").exists()


def test_a_wrong_type_is_named_with_its_place(capsys, tmp_path) -> None:
    assert "at outer.inner_steps" in complaint(
        capsys, "prepare", "demo", "outer.inner_steps=soon", "--dir", tmp_path / "run"
    )


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("demo", "model.num_key_value_heads=3", "model.num_key_value_heads: must divide"),
        ("demo", "tokenizer.train=4096", "the tokenizer has 4096 tokens, the model only 2048"),
        ("own", "seed=1", "model.own: there is nothing to prepare"),
    ],
)
def test_a_model_that_cannot_be_is_refused_before_any_data_is_prepared(
    capsys, tmp_path, name, change, reason
) -> None:
    assert reason in complaint(capsys, "prepare", name, change, "--dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_directory_of_another_recipe_names_the_keys(capsys, tmp_path, recipe) -> None:
    RunDir(tmp_path / "run").claim(recipes.load(recipe))
    text = complaint(
        capsys, "host", recipe, "outer.codec=fp32", "inner.clip_norm=2", "--dir", tmp_path / "run"
    )
    assert "inner.clip_norm, outer.codec" in text


def test_a_run_of_another_recipe_says_what_it_has_and_how_to_go_on_with_it(capsys, tmp_path, recipe) -> None:
    RunDir(tmp_path / "run").claim(recipes.load(recipe))
    text = complaint(capsys, "host", recipe, "outer.codec=fp32", "--dir", tmp_path / "run")
    assert '(there: outer.codec="int8"); give this directory in the recipe' in text


def test_a_run_is_opened_by_its_directory(capsys, tmp_path, recipe) -> None:
    run_dir = RunDir(tmp_path / "my run")
    run_dir.claim(recipes.load(recipe, ["outer.codec=fp32"]))
    loaded, found = opened(parse(cli.parser(), ["host", str(run_dir.path)]))
    assert (loaded.outer.codec, found.path) == ("fp32", run_dir.path)
    assert "leave --dir out" in complaint(capsys, "host", run_dir.path, "--dir", tmp_path)


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["--advertise", "203.0.113.5"],
        ["--advertise", "[2001:db8::5]:17700", "--advertise-relay-port", "0", "--listen", "[::]:7800"],
        ["--no-relay", "--enrol-port", "9000", "--standby", "--dashboard"],
        ["--dashboard", "0.0.0.0:9001", "--database", "postgresql://db.example/reef"],
    ],
)
def test_the_command_that_hosts_a_run_again_has_what_this_one_was_given(given) -> None:
    def parsed(words):
        found = vars(parse(cli.parser(), ["host", "runs/mine", *words]))
        return {name: value for name, value in found.items() if isinstance(value, str | int | None)}

    options = parse(cli.parser(), ["host", "runs/mine", *given])
    assert parsed(again(options)) == parsed(given)


def test_no_password_is_in_the_command_that_hosts_a_run_again() -> None:
    options = parse(cli.parser(), ["host", "runs/mine", "--database", "postgresql://ada:secret@db/reef"])
    assert again(options) == ["--database", "URL"]


def test_hosting_before_preparing_says_what_to_do_and_leaves_nothing(capsys, tmp_path, recipe) -> None:
    assert "atoll prepare" in complaint(capsys, "host", recipe, "--dir", tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_one_island_alone_does_not_wait_for_others_for_ever(capsys, tmp_path, recipe) -> None:
    place = ("--dir", tmp_path / "run")
    assert "outer.min_participants = 2" in complaint(
        capsys, "train", recipe, "outer.min_participants=2", *place
    )
    assert not (tmp_path / "run").exists()


def test_preparing_that_is_refused_leaves_nothing(capsys, tmp_path, recipe) -> None:
    text = RECIPE.replace("model.own = true", 'model.preset = "demo"\ntokenizer.train = 2048')
    text = text.replace("[{ until = 4 }]", "[{ until = 4, mixture = { a = 1 } }]")
    text = text.replace("context_length = 1, tokens_per_step = 1", "context_length = 8, tokens_per_step = 8")
    recipe.write_text(f'{text}sources.a.text = "{tmp_path}/nowhere"\n')
    assert "nowhere" in complaint(capsys, "prepare", recipe, "--dir", tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_an_island_that_is_refused_before_it_has_enrolled_leaves_nothing(tmp_path) -> None:
    run_dir = RunDir(tmp_path / "new" / "run")
    before = run_dir.existing()
    island = IslandDir(run_dir, "")
    with pytest.raises(UserError), run_dir.member(island.path, before):
        raise UserError("this ticket has expired")
    island._lock.release()
    assert list(tmp_path.iterdir()) == []
    island = IslandDir(run_dir, "")
    (island.path / "agent.log").touch()
    with pytest.raises(UserError), run_dir.member(island.path, before):
        raise UserError(f"its log: {island.path / 'agent.log'}")
    island._lock.release()
    assert (island.path / "agent.log").exists(), "a log that the sentence names stays"


def test_a_port_in_use_is_named(capsys, tmp_path, recipe) -> None:
    import torch

    prepare_own(tmp_path / "run", str(recipe), {"w": torch.zeros(3)})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        text = complaint(capsys, "host", recipe, "--dir", tmp_path / "run", "--listen", listen, "--no-relay")
    assert listen in text
    assert "in use" in text


def test_a_malformed_address_is_refused(capsys, tmp_path, recipe) -> None:
    assert "HOST:PORT" in complaint(capsys, "host", recipe, "--dir", tmp_path / "run", "--listen", "here:")


def test_a_port_of_the_relay_in_use_is_named_before_a_ticket_is_made(capsys, tmp_path, recipe) -> None:
    import torch

    prepare_own(tmp_path / "run", str(recipe), {"w": torch.zeros(3)})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        place = ("--dir", tmp_path / "run", "--listen", "127.0.0.1:0", "--relay-port", str(port))
        text = complaint(capsys, "host", recipe, *place)
    assert f"127.0.0.1:{port}: the port is in use" in text
    assert "--relay-port" in text
    assert not (tmp_path / "run" / "coordinator" / "ticket").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--listen", "0.0.0.0:65535"), "at most 65533"),
        (("--advertise", "::1:x"), "--advertise ::1:x: not HOST"),
        (("--advertise", "https://host"), "--advertise https://host: not HOST"),
        (("--advertise", "host:65534"), "at most 65533"),
        (("--advertise-relay-port", "17702"), "need --advertise"),
        (("--advertise", "0.0.0.0"), "--advertise 0.0.0.0: means all addresses"),
        (("--advertise", "[::]:7700"), "--advertise [::]:7700: means all addresses"),
        (("--enrol-port", "-1"), "--enrol-port -1: must be from 0 to 65,535"),
        (("--advertise", "h", "--advertise-enrol-port", "65536"), "--advertise-enrol-port 65536: must be"),
        (("--enrol-port", "7702"), "0.0.0.0: port 7702 is given to enrolment and to the relay"),
        (("--relay-port", "7700"), "0.0.0.0: port 7700 is given to members and to the relay"),
        (("--advertise", "h:9", "--advertise-enrol-port", "9"), "h: port 9 is given to members and to enrol"),
        (("--no-relay", "--relay-port", "7800"), "--no-relay: no relay needs a port"),
    ],
)
def test_ports_that_cannot_be_are_refused_with_what_to_say(capsys, tmp_path, recipe, options, said) -> None:
    assert said in complaint(capsys, "host", recipe, "--dir", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "listen", "advertise"),
    [
        ([], Address("0.0.0.0", 0), ()),
        (["--listen", "[::]:7800"], Address("::", 7800), ()),
        (["--advertise", "h:7800"], Address("0.0.0.0", 7800), (Address("h", 7800),)),
        (["--advertise", "h", "--listen", ":7"], Address("0.0.0.0", 7), (Address("h", 0),)),
        (
            ["--advertise", "h:1", "--advertise", "2001:db8::5"],
            Address("0.0.0.0", 1),
            (Address("h", 1), Address("2001:db8::5", 0)),
        ),
    ],
)
def test_a_joiner_listens_at_the_port_that_it_advertises(options, listen, advertise) -> None:
    settings = join_settings(parser().parse_args(["join", "ticket", *options]))
    assert (settings.listen, settings.advertise) == (listen, advertise)


@pytest.mark.parametrize("other", [["--listen", "h:1"], ["--advertise", "h:1"], ["--relay"]])
def test_who_only_dials_out_cannot_be_reached_as_well(capsys, other) -> None:
    ticket = Ticket("tiny-0011", (HostPorts("127.0.0.1", 1, 2, 3),), b"0" * 16, "secret").text()
    assert "nobody could reach" in complaint(capsys, "join", ticket, "--dial-only", *other)


def test_a_ticket_that_came_in_pieces_is_put_together(capsys, tmp_path) -> None:
    """The last piece is wrong, so nobody is asked: the sentence shows that all of it was read."""
    whole = Ticket("tiny-0011", (HostPorts("127.0.0.1", 1, 2, 3),), b"0" * 16, "secret").text()
    text = complaint(
        capsys,
        "join",
        whole[:30],
        whole[30:60],
        whole[60:],
        "outer.codec=fp32",
        "--dir",
        tmp_path / "run",
    )
    assert "outer" in text


def test_a_host_without_a_relay_needs_no_port_for_one(capsys, tmp_path, recipe) -> None:
    place = ("--dir", tmp_path / "run", "--listen", "127.0.0.1:65534", "--no-relay")
    assert "atoll prepare" in complaint(capsys, "host", recipe, *place), "the ports are none of its faults"


def test_a_ticket_is_put_together_wherever_it_was_broken() -> None:
    """No piece begins with a dash, as an option does."""
    dashes = b"\xfb\xef\xbe" * 6  # in the usual base64, where they begin at a multiple of three bytes
    whole = Ticket("tiny-0011", (HostPorts("127.0.0.1", 1, 2, 3),), dashes[:16], "secret").text()
    for at in range(len("atoll-"), len(whole)):
        options = parse(cli.parser(), ["join", whole[:at], whole[at:], "--name", "bob"])
        assert "".join([options.ticket, *options.overrides]) == whole
        assert options.name == "bob"


@pytest.mark.parametrize("mark", [" ", "\n", "\r\n  ", "\u00a0", "\u200b", "\ufeff", "\u2028"])
def test_blanks_and_unseen_characters_in_a_ticket_do_no_harm(mark) -> None:
    ticket = Ticket("tiny-0011", (HostPorts("127.0.0.1", 1, 2, 3),), b"0" * 16, "secret")
    text = ticket.text()
    assert Ticket.parse(mark.join(["", text[:9], text[9:50], text[50:], ""])) == ticket


def test_a_malformed_ticket_is_refused(capsys) -> None:
    assert "not a ticket" in complaint(capsys, "join", "atoll-nonsense")
    whole = Ticket("tiny-0011", (HostPorts("127.0.0.1", 1, 2, 3),), b"0" * 16, "secret").text()
    assert "not a ticket" in complaint(capsys, "join", whole[:-3])


def test_a_joiner_may_set_only_its_own_table(capsys, tmp_path) -> None:
    ticket = Ticket("tiny-0011", (HostPorts("127.0.0.1", 1, 2, 3),), b"0" * 16, "secret").text()
    text = complaint(capsys, "join", ticket, "outer.codec=fp32", "--dir", tmp_path / "run")
    assert "outer" in text


@pytest.mark.parametrize(
    "words",
    [
        ["TICKET", "island.threads=1", "--name", "bob"],
        ["TICKET", "--name", "bob", "island.threads=1"],
        ["--name", "bob", "island.threads=1", "TICKET"],
        ["island.threads=1", "--name", "bob", "TICKET"],
    ],
)
def test_options_and_overrides_may_come_in_any_order(words) -> None:
    options = parse(cli.parser(), ["join", *words])
    assert (options.ticket, options.overrides, options.name) == ("TICKET", ["island.threads=1"], "bob")


@pytest.mark.parametrize(
    "words", [["status", "run", "--wide"], ["evict", "run", "ann", "bob"], ["join", "a=1"]]
)
def test_what_no_verb_takes_is_refused(words, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(cli.parser(), words)
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--uses", 0), ("--uses", -1), ("--uses", 10**6), *(("--hours", h) for h in (0, -1, "nan", "inf", 1e9))],
)
def test_the_limits_of_an_invitation_are_checked(capsys, tmp_path, option, value) -> None:
    assert f"{option} " in complaint(capsys, "invite", tmp_path, option, value)


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "x" * 81])
def test_a_contributor_is_a_name_on_one_line(capsys, name) -> None:
    ticket = Ticket("tiny-0011", "127.0.0.1:1", b"0" * 16, "secret").text()
    assert "--contributor: not a name on one line" in complaint(capsys, "join", ticket, "--contributor", name)


def test_no_run_in_a_directory(capsys, tmp_path) -> None:
    assert "no run here" in complaint(capsys, "status", tmp_path)
    assert "no island of a run here" in complaint(capsys, "export", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_generating_from_nothing_says_how_to_export(capsys, tmp_path) -> None:
    assert "atoll export" in complaint(capsys, "generate", tmp_path, "Hello")


def test_a_damaged_state_0_is_refused(capsys, tmp_path, recipe) -> None:
    import torch

    prepare_own(tmp_path / "run", str(recipe), {"w": torch.arange(9000.0)})
    path = next((tmp_path / "run" / "genesis").glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-40_000] ^= 1  # within the first tensor: what follows is padding
    path.write_bytes(data)
    text = complaint(
        capsys, "host", recipe, "--dir", tmp_path / "run", "--listen", "127.0.0.1:0", "--no-relay"
    )
    assert "damaged" in text


def test_a_reader_that_has_enough_is_no_failure_of_ours() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", TALKATIVE], stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


PRINTS = """
from atoll import cli
def evict(_): print("a … b")
cli.operate.evict = evict
raise SystemExit(cli.main(["evict", "run", "island"]))
"""


def test_a_character_that_the_terminal_lacks_is_a_question_mark() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a ? b\n", b"")


def test_closed_streams_are_no_failure() -> None:
    script = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(PRINTS)} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", script], timeout=60, close_fds=False).returncode == 0


def test_output_that_cannot_be_written_is_said_after_the_work_is_done() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINTS], stdout=full, stderr=subprocess.PIPE, env=environment, timeout=60
        )
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"done, but what it printed cannot be written" in done.stderr


def test_ctrl_c_ends_a_process_at_once_while_it_imports_and_is_left_ignored_where_it_was() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with nothing_to_clean_up():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with nothing_to_clean_up():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_next_line_is_quoted_so_that_a_shell_takes_it() -> None:
    assert shlex.split(command("export", "runs/it's mine", "a b")) == [
        "atoll",
        "export",
        "runs/it's mine",
        "a b",
    ]
