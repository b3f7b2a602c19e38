"""Who is who: a certificate authority per run, one certificate per member, tickets that turn strangers into
members.

TLS keys are P-256 (BoringSSL, inside gRPC, does not offer Ed25519 by default); commit records are signed with
Ed25519, whose signatures are a pure function of key and bytes, so that the coordinator stays deterministic.
"""

import base64
import datetime
import os
import re
import secrets
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from atoll.errors import UserError
from atoll.files import atomic_dir, write_atomic
from atoll.swarm.layout import digest

COORDINATOR = "coordinator"
OPERATOR = "operator"
TICKET_PREFIX = "atoll-"
MAX_PORT = 65_534  # of a coordinator: enrolment takes the next one
_AUTHORITY_KEY, _AUTHORITY, _RECORD_KEY = "authority.key", "authority.pem", "record.key"
_YEARS_VALID = 10
_PEM = serialization.Encoding.PEM
_Key = TypeVar("_Key", ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)


class Ticket(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What an operator hands to a contributor: where to enrol, whom to believe there, and a secret."""

    run_id: str
    address: str  # of the coordinator, host:port; enrolment is on the next port
    fingerprint: bytes  # of the run's certificate
    secret: str

    def text(self) -> str:
        body = msgspec.msgpack.encode(self)
        return TICKET_PREFIX + base64.urlsafe_b64encode(digest(body)[:4] + body).decode().rstrip("=")

    @property
    def run_name(self) -> str:
        """The name in the run's recipe: a run's id is its name and eight random digits."""
        return self.run_id.rsplit("-", 1)[0]

    @staticmethod
    def parse(text: str) -> "Ticket":
        """Raises UserError for a text that is not a whole ticket."""
        wrong = UserError(
            f"{text[:24]}…: not a ticket, or not all of one; copy the whole line that `atoll host` printed"
        )
        if not text.startswith(TICKET_PREFIX):
            raise wrong
        try:
            body = text.removeprefix(TICKET_PREFIX)
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            ticket = msgspec.msgpack.decode(raw[4:], type=Ticket)
        except (ValueError, msgspec.DecodeError):
            raise wrong from None
        if ticket.text() != text:  # also where only the checksum, or letters that decode alike, differ
            raise wrong
        host, _, port = ticket.address.rpartition(":")
        # The run's name becomes a directory, and enrolment is on the port after the one named.
        named = re.fullmatch(r"[A-Za-z0-9_-]+", ticket.run_id) and host and re.fullmatch(r"[0-9]{1,5}", port)
        if not named or not 1 <= int(port) <= MAX_PORT:
            raise UserError(
                f"{text[:24]}…: this ticket's run or address cannot be true; ask for a new ticket"
            )
        return ticket


class Credentials(msgspec.Struct, frozen=True):
    """What a process needs to speak mutual TLS; all PEM."""

    key: bytes
    certificate: bytes
    authority: bytes

    @property
    def name(self) -> str:
        return common_name(self.certificate)


class RunKeys:
    """The run's own keys, beside the coordinator's database. Whoever has them is the run."""

    def __init__(self, directory: Path, name: str) -> None:
        """Load the keys in `directory`, or make them for a run called `name`.

        Raises UserError when only some of them are there.
        """
        made = directory / "keys.new"
        paths = [directory / name for name in (_AUTHORITY_KEY, _AUTHORITY, _RECORD_KEY)]
        if not made.exists() and not any(path.exists() for path in paths):
            _create_run_keys(name, made)
        _move_into_place(made, directory)
        if missing := ", ".join(path.name for path in paths if not path.exists()):
            raise UserError(
                f"{directory}: the run's keys are incomplete ({missing} missing); restore them from a backup"
            )
        self._key = _load_key(paths[0], ec.EllipticCurvePrivateKey)
        self._record_key = _load_key(paths[2], ed25519.Ed25519PrivateKey)
        self.authority = paths[1].read_bytes()
        try:
            self._certificate = x509.load_pem_x509_certificate(self.authority)
        except ValueError as error:
            raise UserError(f"{paths[1]}: not a readable certificate; restore it from a backup") from error

    @property
    def record_key(self) -> bytes:
        """The public half of the key that signs commit records."""
        return self._record_key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        return self._record_key.sign(data)

    def issue(self, csr: bytes) -> bytes:
        """A certificate for the key in a signing request; its name is the key's fingerprint, whatever was
        asked.
        """
        try:
            request = x509.load_pem_x509_csr(csr)
        except ValueError as error:
            raise UserError(f"not a certificate signing request: {error}") from error
        public = request.public_key()
        if not request.is_signature_valid or not isinstance(public, ec.EllipticCurvePublicKey):
            raise UserError("the signing request is not self-signed with an elliptic-curve key")
        return self._sign_certificate(public, island_id(public))

    def member(self, name: str) -> Credentials:
        """Fresh credentials under a reserved name (the coordinator, an operator)."""
        key = ec.generate_private_key(ec.SECP256R1())
        return Credentials(_private_pem(key), self._sign_certificate(key.public_key(), name), self.authority)

    def own(self) -> Credentials:
        """The run's certificate itself, as shown to strangers on the enrolment port."""
        return Credentials(_private_pem(self._key), self.authority, self.authority)

    def _sign_certificate(self, public: ec.EllipticCurvePublicKey, name: str) -> bytes:
        return (
            _builder(name, public, self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
            .public_bytes(_PEM)
        )


def fingerprint(certificate: bytes) -> bytes:
    """16 bytes that a ticket carries to recognise the run's certificate (PEM) by."""
    return digest(x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER))[:16]


def common_name(certificate: bytes) -> str:
    name = (
        x509.load_pem_x509_certificate(certificate)
        .subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0]
        .value
    )
    return name if isinstance(name, str) else name.decode()


def island_id(public: ec.EllipticCurvePublicKey) -> str:
    """The fingerprint of a public key, 16 hex digits."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return digest(der)[:8].hex()


def island_key(directory: Path) -> tuple[str, bytes, bytes]:
    """This island's (id, private key PEM, signing request PEM); the key is made once and kept."""
    path = directory / "island.key"
    if not path.exists():
        _write_private(path, _private_pem(ec.generate_private_key(ec.SECP256R1())))
    key = _load_key(path, ec.EllipticCurvePrivateKey)
    name = island_id(key.public_key())
    request = x509.CertificateSigningRequestBuilder().subject_name(_subject(name)).sign(key, hashes.SHA256())
    return name, path.read_bytes(), request.public_bytes(_PEM)


def verify_record(record_key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether the run's key signed `data`."""
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(record_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def new_secret() -> str:
    return secrets.token_urlsafe(15)


def _create_run_keys(run_name: str, directory: Path) -> None:
    """Make `directory` with all of a run's keys in it: whole or not at all."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"{run_name}-{secrets.token_hex(4)}"
    usage = x509.KeyUsage(
        True, False, False, False, False, True, False, False, False
    )  # sign data, sign certificates
    certificate = (
        _builder(name, key.public_key(), _subject(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    with atomic_dir(directory) as made:
        _write_private(made / _AUTHORITY_KEY, _private_pem(key))
        _write_private(made / _RECORD_KEY, _private_pem(ed25519.Ed25519PrivateKey.generate()))
        write_atomic(made / _AUTHORITY, certificate.public_bytes(_PEM))


def _move_into_place(made: Path, directory: Path) -> None:
    """Also what a start that was killed half-way has left to move."""
    if made.exists():
        for path in made.iterdir():
            path.replace(directory / path.name)
        made.rmdir()


def _builder(name: str, public: ec.EllipticCurvePublicKey, issuer: x509.Name) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))  # clocks of strangers differ
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS_VALID))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _private_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _load_key(path: Path, kind: type[_Key]) -> _Key:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path}: not a readable private key; restore it from a backup") from error
    if not isinstance(key, kind):
        raise UserError(
            f"{path}: a private key of another kind than {kind.__name__}; restore it from a backup"
        )
    return key


def _write_private(path: Path, data: bytes) -> None:
    old = os.umask(0o077)
    try:
        write_atomic(path, data)
    finally:
        os.umask(old)
