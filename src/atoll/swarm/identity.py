"""Who is who: each run has a certificate authority, each member a certificate, and strangers need a ticket.

TLS keys are P-256, since BoringSSL, which gRPC uses, does not offer Ed25519 by default. Commit records are
signed with Ed25519, whose signatures are a pure function of key and bytes, so that the coordinator stays
deterministic.
"""

import base64
import datetime
import re
import secrets
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from atoll.errors import UserError
from atoll.files import atomic_dir, write_atomic, write_private
from atoll.swarm.address import HostPorts
from atoll.swarm.layout import digest

COORDINATOR = "coordinator"
OPERATOR = "operator"
ISLAND, RELAY = "island", "relay"  # roles of members; the two above are roles and names
TICKET_PREFIX = "atoll-"
# Base64 without "-": a piece of a ticket that was pasted with its line breaks is no option.
TICKET_SIGNS = b"._"
_AUTHORITY_KEY, _AUTHORITY, _RECORD_KEY = "authority.key", "authority.pem", "record.key"
_YEARS_VALID = 10  # of the run's certificate
_WEEKS_VALID = 4  # of a member's; it is renewed once half of that is over
_ROLE_SUFFIX = ".role.atoll"  # after a role, as one of the names in a certificate
# Where secrets come from; a simulated process has a source of its own.
RANDOM_BYTES: ContextVar[Callable[[int], bytes]] = ContextVar("random_bytes", default=secrets.token_bytes)
# Of the certificate's extension that holds the record key: an arc for private use, made from a random UUID.
_RECORD_KEY_OID = x509.ObjectIdentifier("2.25.236742806185936458209213470591366871295")
_PEM = serialization.Encoding.PEM
_Key = TypeVar("_Key", ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)


class Ticket(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What an operator gives a contributor: where to enrol, how to know the coordinator, and a secret."""

    run_id: str
    hosts: tuple[HostPorts, ...]  # where the run's host is: from outside, then from its own network
    fingerprint: bytes  # of the run's certificate
    secret: str

    def text(self) -> str:
        """The ticket as one line, with a checksum."""
        body = msgspec.msgpack.encode(self)
        return TICKET_PREFIX + base64.b64encode(digest(body)[:4] + body, TICKET_SIGNS).decode().rstrip("=")

    @property
    def run_name(self) -> str:
        """The name in the run's recipe; a run's id is this name and eight random hex digits."""
        return self.run_id.rsplit("-", 1)[0]

    @staticmethod
    def parse(text: str) -> "Ticket":
        """The ticket in a text that `text` made, whatever blanks and unseen characters came into it.

        Raises UserError for any other text.
        """
        text = "".join(letter for letter in text if letter.isprintable() and not letter.isspace())
        wrong = UserError(
            f"{text[:24]}…: not a ticket, or not all of one; copy the whole line that `atoll host` printed"
        )
        if not text.startswith(TICKET_PREFIX):
            raise wrong
        try:
            body = text.removeprefix(TICKET_PREFIX)
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=TICKET_SIGNS, validate=True)
            ticket = msgspec.msgpack.decode(raw[4:], type=Ticket)
        except (ValueError, msgspec.DecodeError):
            raise wrong from None
        if ticket.text() != text:  # a wrong checksum, or other letters that base64 decodes alike
            raise wrong
        # The run's name becomes a directory.
        named = re.fullmatch(r"[A-Za-z0-9_-]+", ticket.run_id)
        if not named or not ticket.hosts or not all(h.members and h.enrolment for h in ticket.hosts):
            raise UserError(
                f"{text[:24]}…: this ticket names an impossible run or address; ask for a new ticket"
            )
        return ticket


class Credentials(msgspec.Struct, frozen=True):
    """What a process needs to speak mutual TLS, all as PEM."""

    key: bytes
    certificate: bytes
    authority: bytes  # the run's certificate

    @property
    def name(self) -> str:
        """The name in the certificate: an island's id, or a reserved name."""
        return common_name(self.certificate)


class RunKeys:
    """The run's keys, kept beside the coordinator's database. Whoever has them can act as the run."""

    def __init__(self, directory: Path, name: str) -> None:
        """Load the keys in `directory`; make them, for a run called `name`, if there are none.

        Raises UserError if some are missing or damaged.
        """
        new_dir = directory / "keys.new"
        paths = [directory / name for name in (_AUTHORITY_KEY, _AUTHORITY, _RECORD_KEY)]
        if not new_dir.exists() and not any(path.exists() for path in paths):
            _create_run_keys(name, new_dir)
        _move_into_place(new_dir, directory)  # also what a start that was killed half-way has left to move
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
        check_clock(self.authority)

    @property
    def record_key(self) -> bytes:
        """The public half of the key that signs commit records."""
        return self._record_key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """The signature of the run's record key under `data`: Ed25519, 64 bytes."""
        return self._record_key.sign(data)

    def issue(self, csr: bytes, role: str = ISLAND) -> bytes:
        """A certificate (PEM) for the key in a signing request (PEM), good for some weeks.

        It names the key's fingerprint, whatever name was asked for. Raises UserError for a bad request.
        """
        try:
            request = x509.load_pem_x509_csr(csr)
        except ValueError as error:
            raise UserError(f"not a certificate signing request: {error}") from error
        public = request.public_key()
        if not request.is_signature_valid or not isinstance(public, ec.EllipticCurvePublicKey):
            raise UserError("the signing request is not self-signed with an elliptic-curve key")
        return self._sign_certificate(public, island_id(public), role, 7 * _WEEKS_VALID)

    def new_credentials(self, name: str) -> Credentials:
        """Credentials with a new key under a reserved name: COORDINATOR or OPERATOR.

        They last as long as the run, and their key is never written down.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        role = name if name in (COORDINATOR, OPERATOR) else ISLAND
        certificate = self._sign_certificate(key.public_key(), name, role, 365 * _YEARS_VALID)
        return Credentials(_private_pem(key), certificate, self.authority)

    def authority_credentials(self) -> Credentials:
        """The run's own certificate and key, which the coordinator shows to strangers when they enrol."""
        return Credentials(_private_pem(self._key), self.authority, self.authority)

    def _sign_certificate(self, public: ec.EllipticCurvePublicKey, name: str, role: str, days: int) -> bytes:
        return (
            _builder(name, public, self._certificate.subject, days)
            .add_extension(_names(name, role + _ROLE_SUFFIX), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
            .public_bytes(_PEM)
        )


def fingerprint(certificate: bytes) -> bytes:
    """The 16 bytes by which a ticket's holder recognises the run's certificate (PEM)."""
    return digest(x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER))[:16]


def record_key_of(certificate: bytes) -> bytes:
    """The public half of the key that signs a run's records, which the run's certificate (PEM) names.

    Raises UserError for a certificate that is none, or not of a run, or whose own signature is false.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate)
        found.verify_directly_issued_by(found)
        extension = found.extensions.get_extension_for_oid(_RECORD_KEY_OID).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise UserError(
            "not the certificate of a run; it is coordinator/authority.pem in the directory of the run's host"
        ) from error
    assert isinstance(extension, x509.UnrecognizedExtension)
    return extension.value


def check_clock(certificate: bytes, now: datetime.datetime | None = None) -> None:
    """Raise UserError if a certificate (PEM) is not valid now: this clock is wrong, or its maker's was."""
    found = x509.load_pem_x509_certificate(certificate)
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    now = now or datetime.datetime.now(datetime.UTC)
    if not begins <= now <= ends:
        raise UserError(
            f"by this machine's clock it is {now:%Y-%m-%d %H:%M} UTC, but the run's certificates are valid "
            f"from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}; set this machine's clock, or that of the run's host"
        )


def needs_renewal(certificate: bytes, now: datetime.datetime | None = None) -> bool:
    """Whether half of a certificate's (PEM) life is over, or it has no role, as one of an older atoll."""
    found = x509.load_pem_x509_certificate(certificate)
    middle = found.not_valid_before_utc + (found.not_valid_after_utc - found.not_valid_before_utc) / 2
    return not role_of(certificate) or (now or datetime.datetime.now(datetime.UTC)) > middle


def is_expired(certificate: bytes, now: datetime.datetime | None = None) -> bool:
    """Whether a certificate's (PEM) life is over."""
    found = x509.load_pem_x509_certificate(certificate)
    return (now or datetime.datetime.now(datetime.UTC)) > found.not_valid_after_utc


def role_of(certificate: bytes) -> str:
    """The role that a certificate (PEM) gives; "" if none, or where there is no certificate."""
    if not certificate:
        return ""
    found = x509.load_pem_x509_certificate(certificate)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    return role_among(names.get_values_for_type(x509.DNSName))


def role_among(names: Iterable[str]) -> str:
    """The role among the names of a verified certificate; "" if there is none."""
    return next((name.removesuffix(_ROLE_SUFFIX) for name in names if name.endswith(_ROLE_SUFFIX)), "")


def common_name(certificate: bytes) -> str:
    """The name that a certificate (PEM) is made out to."""
    subject = x509.load_pem_x509_certificate(certificate).subject
    name = subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    return name if isinstance(name, str) else name.decode()


def island_id(public: ec.EllipticCurvePublicKey) -> str:
    """An island's id: 16 hex digits of the digest of its public key."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return digest(der)[:8].hex()


def island_key(directory: Path) -> tuple[str, bytes, bytes]:
    """(id, private key, signing request) of the island in `directory`; both as PEM.

    The key is made at the first call and kept. Raises UserError if the one that is kept cannot be read.
    """
    path = directory / "island.key"
    if not path.exists():
        write_private(path, _private_pem(ec.generate_private_key(ec.SECP256R1())))
    key = _load_key(path, ec.EllipticCurvePrivateKey)
    name = island_id(key.public_key())
    request = x509.CertificateSigningRequestBuilder().subject_name(_subject(name)).sign(key, hashes.SHA256())
    return name, path.read_bytes(), request.public_bytes(_PEM)


def verify_record(record_key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether `signature` under `data` is of the run's record key, whose public half is `record_key`."""
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(record_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def new_secret() -> str:
    """120 random bits, as 20 characters."""
    return base64.urlsafe_b64encode(RANDOM_BYTES.get()(15)).decode()


def _create_run_keys(run_name: str, directory: Path) -> None:
    """Make `directory` with all of a run's keys in it, whole or not at all."""
    key, record_key = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    name = f"{run_name}-{secrets.token_hex(4)}"
    named = x509.UnrecognizedExtension(_RECORD_KEY_OID, record_key.public_key().public_bytes_raw())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, key.public_key(), _subject(name), 365 * _YEARS_VALID)
        .add_extension(_names(name), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(named, critical=False)
        .sign(key, hashes.SHA256())
    )
    with atomic_dir(directory) as made:
        write_private(made / _AUTHORITY_KEY, _private_pem(key))
        write_private(made / _RECORD_KEY, _private_pem(record_key))
        write_atomic(made / _AUTHORITY, certificate.public_bytes(_PEM))


def _move_into_place(new_dir: Path, directory: Path) -> None:
    if new_dir.exists():
        for path in new_dir.iterdir():
            path.replace(directory / path.name)
        new_dir.rmdir()


def _names(*names: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(name) for name in names])


def _builder(
    name: str, public: ec.EllipticCurvePublicKey, issuer: x509.Name, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))  # the clocks of members may be wrong
        .not_valid_after(now + datetime.timedelta(days=days))
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
        raise UserError(f"{path}: the private key is no {kind.__name__}; restore it from a backup")
    return key
