"""Tickets are whole or refused, certificates are named by their keys, and a run's keys are complete."""

import base64
import datetime
import stat
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import UserError
from atoll.swarm.address import HostPorts
from atoll.swarm.identity import (
    COORDINATOR,
    OPERATOR,
    Credentials,
    RunKeys,
    Ticket,
    check_clock,
    common_name,
    fingerprint,
    is_expired,
    island_id,
    island_key,
    needs_renewal,
    new_secret,
    record_key_of,
    role_of,
    verify_record,
)
from atoll.swarm.layout import digest

TICKET = Ticket(
    "test-12345678",
    (HostPorts("host.example", 7700, 7701, 7702),),
    b"0123456789abcdef",
    "a-secret_of-20-chars",
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> RunKeys:
    return RunKeys(tmp_path_factory.mktemp("keys"), "test")


# ---------------------------------------------------------------------------------------------------- tickets
def test_a_ticket_round_trips() -> None:
    assert Ticket.parse(TICKET.text()) == TICKET


def test_a_ticket_is_one_word() -> None:
    assert set(TICKET.text()) <= set(LETTERS)


def test_the_name_of_a_run_is_its_id_without_the_random_digits() -> None:
    assert Ticket("my-own-run-12345678", "", b"", "").run_name == "my-own-run"


def test_no_changed_character_gives_another_ticket() -> None:
    text = TICKET.text()
    for at in range(len(text)):
        for letter in LETTERS:
            try:
                assert Ticket.parse(text[:at] + letter + text[at + 1 :]) == TICKET
            except UserError:
                continue


def test_every_changed_character_is_refused() -> None:
    for secret in ("s", "se", "sec", "secret?>~"):
        text = Ticket("test-12345678", "h:1", b"\xfb\xff\xbe" * 5, secret).text()
        for at, old in enumerate(text):
            for letter in LETTERS + "+/= ":
                if letter != old:
                    with pytest.raises(UserError):
                        Ticket.parse(text[:at] + letter + text[at + 1 :])


def test_every_truncation_is_refused() -> None:
    text = TICKET.text()
    for length in range(len(text)):
        with pytest.raises(UserError, match="not a ticket"):
            Ticket.parse(text[:length])


@settings(max_examples=50)
@given(st.text() | st.text(LETTERS).map("atoll-".__add__) | st.binary().map(lambda raw: "atoll-" + raw.hex()))
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="not a ticket"):
        Ticket.parse(text)


@pytest.mark.parametrize("run_id", ["../../x-1", "/etc-1", ""])
def test_a_ticket_whose_run_is_a_path_is_refused(run_id: str) -> None:
    with pytest.raises(UserError):
        Ticket.parse(Ticket(run_id, (HostPorts("h", 1, 2, 3),), b"0123456789abcdef", "secret").text())


@pytest.mark.parametrize(
    "hosts",
    [[], [["h", 0, 1, 2]], [["h", 1, 0, 2]], [["h", 1, 65536, 2]], [["", 1, 2, 3]], [["a b", 1, 2, 3]]],
)
def test_a_ticket_without_a_usable_host_and_ports_is_refused(hosts: list) -> None:
    body = msgspec.msgpack.encode(["t-1", hosts, b"0123456789abcdef", "secret"])
    text = "atoll-" + base64.b64encode(digest(body)[:4] + body, b"._").decode().rstrip("=")
    with pytest.raises(UserError):
        Ticket.parse(text)


def test_the_line_breaks_that_a_ticket_was_pasted_with_do_no_harm() -> None:
    text = TICKET.text()
    assert Ticket.parse(f"  {text[:40]}\n   {text[40:60]}\r\n{text[60:]} \n") == TICKET


def test_no_piece_of_a_ticket_can_be_taken_for_an_option() -> None:
    for secret in map(chr, range(32, 127)):
        ticket = Ticket("test-12345678", TICKET.hosts, b"\xfb\xef\xbe\xff" * 4, secret * 12)
        assert "-" not in ticket.text().removeprefix("atoll-")


def test_a_clock_outside_the_certificates_years_is_named(keys) -> None:
    check_clock(keys.authority)
    found = x509.load_pem_x509_certificate(keys.authority)
    day = datetime.timedelta(days=1)
    for wrong in (found.not_valid_before_utc - day, found.not_valid_after_utc + day):
        with pytest.raises(UserError, match="clock"):
            check_clock(keys.authority, wrong)


def test_secrets_differ() -> None:
    assert len({new_secret() for _ in range(100)}) == 100


# ----------------------------------------------------------------------------------------------- certificates
def test_the_name_in_a_certificate_is_the_keys_fingerprint(keys, tmp_path) -> None:
    name, _, request = island_key(tmp_path)
    certificate = keys.issue(request)
    public = x509.load_pem_x509_certificate(certificate).public_key()
    assert common_name(certificate) == name == island_id(public)


def test_a_certificate_does_not_take_the_name_that_was_asked_for(keys, tmp_path, monkeypatch) -> None:
    from atoll.swarm import identity

    monkeypatch.setattr(identity, "island_id", lambda _: "coordinator")
    _, _, request = island_key(tmp_path)
    monkeypatch.undo()
    assert x509.load_pem_x509_csr(request).subject.rfc4514_string() == "CN=coordinator"
    assert common_name(keys.issue(request)) != "coordinator"


def test_an_islands_key_is_made_once_and_only_its_owner_can_read_it(tmp_path) -> None:
    assert island_key(tmp_path)[:2] == island_key(tmp_path)[:2]
    assert stat.S_IMODE((tmp_path / "island.key").stat().st_mode) == 0o600


def test_a_members_certificate_cannot_sign_others(keys, tmp_path) -> None:
    certificate = x509.load_pem_x509_certificate(keys.issue(island_key(tmp_path)[2]))
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(keys.authority))


def test_a_certificate_is_valid_for_clocks_that_are_a_day_behind(keys) -> None:
    certificate = x509.load_pem_x509_certificate(keys.new_credentials("coordinator").certificate)
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    assert certificate.not_valid_before_utc < now - day
    assert certificate.not_valid_after_utc > now + 365 * day


HOLLOW = b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"


@pytest.mark.parametrize("request_", [b"", b"garbage", HOLLOW])
def test_what_is_no_signing_request_is_refused(keys, request_) -> None:
    with pytest.raises(UserError, match="signing request"):
        keys.issue(request_)


def test_a_signing_request_with_a_foreign_signature_is_refused(keys, tmp_path) -> None:
    _, _, request = island_key(tmp_path)
    lines = request.decode().splitlines()
    letter = "A" if lines[-2][5] != "A" else "B"
    lines[-2] = lines[-2][:5] + letter + lines[-2][6:]  # inside the signature
    with pytest.raises(UserError, match="signing request"):
        keys.issue("\n".join(lines).encode())


def test_two_runs_of_one_name_have_different_ids_and_fingerprints(keys, tmp_path) -> None:
    other = RunKeys(tmp_path, "test")
    assert common_name(other.authority) != common_name(keys.authority)
    assert fingerprint(other.authority) != fingerprint(keys.authority)


# --------------------------------------------------------------------------------------------------- run keys
def test_run_keys_are_made_once_and_only_their_owner_can_read_them(tmp_path) -> None:
    first, second = RunKeys(tmp_path, "test"), RunKeys(tmp_path, "another name")
    assert (first.authority, first.record_key) == (second.authority, second.record_key)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.glob("*.key"))


@pytest.mark.parametrize("name", ["authority.key", "authority.pem", "record.key"])
def test_run_keys_of_which_one_is_missing_are_refused(tmp_path, name) -> None:
    RunKeys(tmp_path, "test")
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=name):
        RunKeys(tmp_path, "test")
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("moves", range(5))
def test_keys_that_a_killed_start_left_half_made_are_completed(tmp_path, monkeypatch, moves) -> None:
    class Killed(BaseException):
        pass

    real_replace, num_left = Path.replace, moves

    def replace(self: Path, to: Path) -> Path:
        nonlocal num_left
        if self.suffix in (".key", ".pem") or to.name == "keys.new":
            if not num_left:
                raise Killed
            num_left -= 1
        return real_replace(self, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        try:
            RunKeys(tmp_path, "test")
        except Killed:
            assert moves < 4
    keys = RunKeys(tmp_path, "test")
    assert RunKeys(tmp_path, "test").record_key == keys.record_key
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["authority.key", "authority.pem", "record.key"]


@pytest.mark.parametrize("name", ["authority.key", "authority.pem", "record.key"])
def test_damaged_run_keys_are_refused_by_name(tmp_path, name) -> None:
    RunKeys(tmp_path, "test")
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(UserError, match=name):
        RunKeys(tmp_path, "test")


def test_a_signature_counts_only_for_its_bytes_and_its_key(keys, tmp_path) -> None:
    signature = keys.sign(b"record")
    assert verify_record(keys.record_key, b"record", signature)
    assert not verify_record(keys.record_key, b"Record", signature)
    assert not verify_record(keys.record_key, b"record", signature[:-1] + b"x")
    assert not verify_record(keys.record_key, b"record", b"")
    assert not verify_record(RunKeys(tmp_path, "test").record_key, b"record", signature)
    assert not verify_record(b"no key", b"record", signature)


def test_credentials_have_the_name_in_their_certificate(keys) -> None:
    assert keys.new_credentials("operator").name == "operator"
    assert isinstance(keys.authority_credentials(), Credentials)
    assert keys.authority_credentials().name == common_name(keys.authority)


# ------------------------------------------------------------------------------------- the run's certificate
def test_the_certificate_of_a_run_names_the_key_that_signs_its_records(keys: RunKeys) -> None:
    assert record_key_of(keys.authority) == keys.record_key


def test_a_certificate_that_is_not_of_a_run_names_no_record_key(keys: RunKeys) -> None:
    of_a_member = keys.new_credentials("operator").certificate
    for certificate in (b"", b"certificate", of_a_member):
        with pytest.raises(UserError, match="not the certificate of a run"):
            record_key_of(certificate)


def test_no_changed_bit_of_a_certificate_names_another_record_key(keys: RunKeys) -> None:
    der = x509.load_pem_x509_certificate(keys.authority).public_bytes(serialization.Encoding.DER)
    at = der.index(keys.record_key)
    changed = bytearray(der)
    changed[at] ^= 1
    pem = x509.load_der_x509_certificate(bytes(changed)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(UserError, match="not the certificate of a run"):
        record_key_of(pem)


# -------------------------------------------------------------------------------------- roles and lifetimes
def test_a_members_certificate_says_its_role_and_lasts_weeks(tmp_path) -> None:
    keys, csr = RunKeys(tmp_path / "keys", "reef"), island_key(tmp_path / "island")[2]
    for role in ("island", "relay"):
        certificate = keys.issue(csr, role)
        assert role_of(certificate) == role
        assert not needs_renewal(certificate)
        now = datetime.datetime.now(datetime.UTC)
        assert needs_renewal(certificate, now + datetime.timedelta(days=15))
        assert not is_expired(certificate, now + datetime.timedelta(days=27))
        assert is_expired(certificate, now + datetime.timedelta(days=29))
    assert role_of(keys.new_credentials(COORDINATOR).certificate) == COORDINATOR
    assert role_of(keys.new_credentials(OPERATOR).certificate) == OPERATOR
    assert role_of(keys.authority) == role_of(b"") == ""
    assert needs_renewal(keys.authority), "one without a role is of an older atoll"
