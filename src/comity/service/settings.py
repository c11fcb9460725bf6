"""A hub's folder: what `comity hub init` makes and every later command reads.

hub.toml    name and public URL; where to listen; files of the certificate
hub.key     the hub's identity, mode 0600
tls.crt     its certificate, and tls.key, mode 0600
hub.db      parties, invitations, tasks (see `registry` and `hub`)
"""

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comity.core.errors import ConfigError
from comity.ledger.folder import complaint, put
from comity.ledger.keys import SideSecret
from comity.service.keys import certificate_der, make_certificate, make_identity, read_identity, write_private

TOML, KEY = "hub.toml", "hub.key"
_KNOWN = {
    "name": str,
    "url": str,
    "host": str,
    "port": int,
    "certificate": str,
    "certificate_key": str,
    "database": str,
}


@dataclass(frozen=True, slots=True)
class HubSettings:
    """What a hub is told once.

    Attributes:
        folder: where it lives.
        name: the hub's.
        url: under which parties call it, what they sign: never taken from a request.
        host: where to listen.
        port: likewise.
        certificate: file of its certificate, PEM; None where another server ends TLS.
        certificate_key: file of its private key.
        database: URL of its database, which may hold a password; "" for `hub.db` in the folder.
    """

    folder: Path
    name: str
    url: str
    host: str
    port: int
    certificate: Path | None
    certificate_key: Path | None
    database: str = field(default="", repr=False)

    @classmethod
    def make(cls, folder: str | Path, *, name: str, host: str, port: int) -> "HubSettings":
        """Make the folder of a hub; what is there already stays, so that it may be repeated.

        Args:
            folder: where it is to live.
            name: the hub's, 1 to 255 characters.
            host: the name or address under which parties call it.
            port: 1 to 65535.

        Raises:
            ConfigError: another hub lives there, or an argument does not fit.
        """
        where = Path(folder)
        _check(name, host, port)
        called = f"[{host}]" if ":" in host else host
        rows = {"name": name, "url": f"https://{called}:{port}", "host": "0.0.0.0", "port": port}
        rows |= {"certificate": "tls.crt", "certificate_key": "tls.key"}
        if (where / TOML).exists():
            found = cls.read(where)
            if (found.name, found.url) != (name, rows["url"]):
                raise ConfigError(
                    f"{where} must be the folder of a new hub. {found.name} at {found.url} lives there. "
                    f"Choose another folder, or change {TOML}."
                )
            return found
        _private_folder(where)
        make_identity(where / KEY)
        hosts = list(dict.fromkeys((host, "localhost", "127.0.0.1")))
        private, certificate = make_certificate(hosts)
        write_private(where / "tls.key", private)
        put(where / "tls.crt", certificate)
        put(
            where / TOML,
            "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in rows.items()).encode(),
        )
        return cls.read(where)

    @classmethod
    def read(cls, folder: str | Path) -> "HubSettings":
        """From a hub's folder, or its `hub.toml`.

        Raises:
            ConfigError: no hub lives there, or a setting does not fit.
        """
        file = Path(folder) if Path(folder).suffix == ".toml" else Path(folder) / TOML
        rows: dict[str, Any] = {"certificate": "", "certificate_key": "", "database": "", **_rows(file)}
        if set(rows) != set(_KNOWN) or any(type(rows[key]) is not kind for key, kind in _KNOWN.items()):
            wrong = sorted(set(rows) ^ set(_KNOWN)) or [k for k, kind in _KNOWN.items() if type(rows[k]) is not kind]
            raise ConfigError(
                f"{file} must have the settings {', '.join(_KNOWN)}. Got a wrong {wrong[0]!r}. Correct it."
            )
        if not re.fullmatch(r"https?://[^/?#\s]+", rows["url"]) or bool(rows["certificate"]) != bool(
            rows["certificate_key"]
        ):
            raise ConfigError(
                f"{file} must have a url without a path, and both or neither file of a certificate. "
                f"Got {rows['url']!r:.80}. Correct it."
            )
        files = {k: file.parent / rows[k] if rows[k] else None for k in ("certificate", "certificate_key")}
        return cls(file.parent, **{**rows, **files})

    def secret(self) -> SideSecret:
        """The hub's identity.

        Raises:
            ConfigError: its file is missing, damaged, or open to others.
        """
        return read_identity(self.folder / KEY)

    def certificate_der(self) -> bytes:
        """Its certificate as parties pin it; b"" where it has none of its own.

        Raises:
            ConfigError: its file cannot be read.
        """
        if self.certificate is None:
            return b""
        try:
            return certificate_der(self.certificate.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            raise ConfigError(
                f"{self.certificate} must be a certificate that can be read. Got: {error.strerror}. Correct {TOML}."
            ) from None


def _private_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(complaint(folder, error)) from None


def _rows(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(
            f"{file.parent} must be the folder of a hub. It has no {TOML}. Run: comity hub init."
        ) from None
    except ValueError as error:
        raise ConfigError(f"{file} must be TOML. Got: {error!s:.100}. Correct it.") from None


def _check(name: str, host: str, port: int) -> None:
    if not 0 < len(name) <= 255 or not name.isprintable():
        raise ConfigError(f"The name of a hub must be 1 to 255 characters that can be printed. Got {name!r:.60}.")
    if not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", host):
        raise ConfigError(f"--host must be a name or an address. Got {host!r:.60}. Use hub.example.org, for one.")
    if not 0 < port < 65536:
        raise ConfigError(f"--port must be 1 to 65535. Got {port}. Use 8443, for one.")
