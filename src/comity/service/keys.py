"""Keys in files, how people compare them, and the TLS certificate of a hub that has no authority's.

An identity is 32 bytes of OS entropy in a file of mode 0600: the root of a `SideSecret`, never shown. What others may
open is refused, not repaired: somebody may have read it.
"""

import os
import re
import ssl
import stat
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from comity.core.errors import ConfigError
from comity.ledger.folder import complaint, write
from comity.ledger.keys import SideSecret

ROOT, DAYS = 32, 825
SHOWN = "COMITY_CLIENT_CERT"
_PRIVATE = 0o600


def make_identity(path: str | Path) -> SideSecret:
    """An identity in a file; the one that is there, if one is.

    Raises:
        ConfigError: the file is there and is none (see `read_identity`), or cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = make_identity(Path(folder) / "ada.key")
        ...     made.public_key() == read_identity(Path(folder) / "ada.key").public_key()
        True
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(path):
            _put_new(path, os.urandom(ROOT))
    except OSError as error:
        raise ConfigError(complaint(path.parent, error)) from None
    return read_identity(path)


def read_identity(path: str | Path) -> SideSecret:
    """The identity in a file.

    Raises:
        ConfigError: there is no such file, others than its owner may open it, or it does not hold 32 bytes. Its
            content is not shown.
    """
    return SideSecret(_private(Path(path), ROOT))


def write_private(path: Path, data: bytes) -> None:
    """Write a file that its owner alone may open: whole, or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        write(path, data, _PRIVATE)
    except OSError as error:
        raise ConfigError(complaint(path.parent, error)) from None


def read_private(path: Path) -> bytes:
    """What a file holds that its owner alone may open.

    Raises:
        ConfigError: as `read_identity`.
    """
    return _private(path, None)


def fingerprint(data: bytes) -> str:
    """The sha256 of a key or a certificate, as people compare it: 16 groups of 4 hex digits.

    Example:
        >>> fingerprint(bytes(32))
        '6668 7aad f862 bd77 6c8f c18b 8e9f 8e20 0897 1485 6ee2 33b3 902a 591d 0d5f 2925'
    """
    return grouped(sha256(data).hexdigest())


def grouped(digits: str) -> str:
    """Hex digits in groups of 4."""
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


def same_fingerprint(text: str, data: bytes) -> bool:
    """Is this text the fingerprint of `data`? Blanks, colons, case and a leading "sha256:" do not count.

    Example:
        >>> same_fingerprint("SHA256:" + fingerprint(b"key").upper(), b"key"), same_fingerprint("ab12", b"key")
        (True, False)
    """
    plain = re.sub(r"[\s:]", "", text.lower().removeprefix("sha256:"))
    return plain == sha256(data).hexdigest()


def make_certificate(hosts: list[str], *, days: int = DAYS) -> tuple[bytes, bytes]:
    """A TLS certificate that signs itself, for clients that know it by its fingerprint.

    Args:
        hosts: names and addresses under which the hub is called; the first is its common name.
        days: until it expires.

    Returns:
        Its private key (P-256) and itself, both PEM.

    Raises:
        ConfigError: a host is none.
    """
    if not hosts or not all(re.fullmatch(r"[A-Za-z0-9.:*-]{1,253}", host) for host in hosts):
        raise ConfigError(
            f"A hub must be called by names or addresses. Got {hosts!r:.100}. Use --host hub.example.org."
        )
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_called(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, made.public_bytes(pem)


def certificate_der(pem: str) -> bytes:
    """The first certificate of a PEM file, as its fingerprint is taken.

    Raises:
        ConfigError: there is none.
    """
    try:
        return x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)
    except ValueError:
        raise ConfigError("A certificate must be PEM. Got something else. Name the file that holds it.") from None


def expires(pem: str) -> float:
    """When the first certificate of a PEM file expires, seconds since 1970.

    Raises:
        ConfigError: there is none.
    """
    return x509.load_der_x509_certificate(certificate_der(pem)).not_valid_after_utc.timestamp()


def trusting(certificate: str = "") -> ssl.SSLContext:
    """TLS for a client; where a hub asks for a certificate, that in the file named by COMITY_CLIENT_CERT is shown.

    Args:
        certificate: PEM of the one certificate that is trusted, its host name checked as ever; "" for those that the
            system trusts (or SSL_CERT_FILE).

    Raises:
        ConfigError: the file does not hold a certificate and its key, PEM.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if certificate else ssl.create_default_context()
    if certificate:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=certificate)
    if shown := os.environ.get(SHOWN):
        try:
            context.load_cert_chain(shown)
        except OSError:
            raise ConfigError(
                f"{SHOWN} must name a PEM file with a certificate and its key, open to this user. Got {shown!r:.100}."
            ) from None
    return context


def _called(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _put_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet; of two who do so at once, one wins, and both read its file."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    write(draft, data, _PRIVATE)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)


def _private(path: Path, size: int | None) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise ConfigError(f"{path} must be a file that holds a key. Got something else. Name another.")
            if about.st_mode & 0o077 or about.st_uid not in (os.geteuid(), 0):
                raise ConfigError(
                    f"{path} must be open to its owner alone (mode 0600). Got mode {about.st_mode & 0o777:04o}. "
                    "Others may have read the key: make a new one; or run chmod 600 if you know that nobody did."
                )
            data = file.read(2**20)
    except OSError as error:
        raise ConfigError(f"{path} must be a key file that can be read. Got: {error.strerror}. Name another.") from None
    if size is not None and len(data) != size:
        raise ConfigError(f"{path} must hold {size} bytes. Got {len(data)}. Restore it from a copy, or make a new one.")
    return data
