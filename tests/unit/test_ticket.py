"""A ticket need not stand on a command line, which everybody on the machine can read."""

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import UserError
from atoll.run.ticket import given_ticket
from atoll.swarm.address import HostPorts
from atoll.swarm.identity import Ticket

TICKET = Ticket("reef-12345678", (HostPorts("203.0.113.5", 1, 2, 3),), b"f" * 16, "secret").text()


def test_a_ticket_may_stand_on_the_command_line() -> None:
    assert given_ticket(TICKET) == TICKET


@pytest.mark.parametrize(
    "text", [TICKET, f"{TICKET}\n", f"atoll join {TICKET}\n", f" {TICKET[:40]}\n{TICKET[40:]}"]
)
def test_a_ticket_may_come_from_a_file(tmp_path, text: str) -> None:
    path = tmp_path / "ticket"
    path.write_text(text)
    assert given_ticket(str(path)) == TICKET


def test_a_ticket_may_come_from_standard_input(monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{TICKET}\nmore\n"))
    assert given_ticket("-") == TICKET


def test_a_ticket_may_come_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("ATOLL_TICKET", TICKET)
    assert given_ticket("env") == TICKET


def test_where_there_is_no_ticket_is_said(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    monkeypatch.delenv("ATOLL_TICKET", raising=False)
    (tmp_path / "empty").write_text("\n")
    for where, said in (("-", "standard input"), ("env", "ATOLL_TICKET"), (str(tmp_path / "empty"), "empty")):
        with pytest.raises(UserError, match=f"{said}: no ticket there"):
            given_ticket(where)


@given(st.text(max_size=300) | st.text("atol-ABCdef0123_= \n", max_size=300))
def test_a_text_is_a_ticket_or_a_users_mistake(text: str) -> None:
    with contextlib.suppress(UserError):
        assert Ticket.parse(text).text() == "".join(text.split())
