"""A hub's folder: what `comity hub init` makes and every later command reads.

hub.toml    name and public URL; where to listen; files of the certificate; what is carried
hub.key     the hub's identity, mode 0600
tls.crt     its certificate, and tls.key, mode 0600
hub.db      parties, invitations, tasks (see `registry` and `hub`)
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from comity.core.errors import ConfigError, nearest
from comity.ledger.folder import complaint, put
from comity.ledger.keys import SideSecret
from comity.service.keys import certificate_der, make_certificate, make_identity, read_identity, write_private

TOML, KEY = "hub.toml", "hub.key"
_NEEDED = {"name": str, "url": str, "host": str, "port": int}
_MORE: dict[str, Any] = {
    "certificate": "",
    "certificate_key": "",
    "pin": True,
    "database": "",
    "blobs": "",
    "log": "text",
    "mutual_tls": "",
    "trusted_proxies": [],
    "study": [],
    "compare": {},
}
_KNOWN = {**_NEEDED, **{name: type(value) for name, value in _MORE.items()}}
_STUDY = {"file": str, "rounds": int, "minimum": int, "parties": list}
LOGS = ("text", "json")


@dataclass(frozen=True, slots=True)
class Planned:
    """A study that a hub is to carry.

    Attributes:
        file: of the study, see `studies`.
        rounds: instead of those that it names itself; None for those.
        minimum: parties that must have agreed before it begins; None for all that are invited.
        parties: who is invited; None for everybody who is approved.
    """

    file: Path
    rounds: int | None = None
    minimum: int | None = None
    parties: tuple[str, ...] | None = None


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
        pin: do parties trust this very certificate, by its fingerprint in their invitation? False where an authority
            vouches for it: it can then be renewed.
        database: URL of its database, which may hold a password; "" for `hub.db` in the folder.
        blobs: URL of an object store for large bodies, which may hold a key; "" for the folder.
        log: how it logs: "text" or "json".
        mutual_tls: file of certificates, PEM; only clients with a certificate of theirs may connect. None for all.
        trusted_proxies: addresses or networks whose X-Forwarded-For is believed; a party's identity never is.
        studies: what it carries, one after the other (`[[study]]`).
        compare: what a comparison is about (`[compare]`), empty for none.
    """

    folder: Path
    name: str
    url: str
    host: str
    port: int
    certificate: Path | None
    certificate_key: Path | None
    pin: bool = True
    database: str = field(default="", repr=False)
    blobs: str = field(default="", repr=False)
    log: str = "text"
    mutual_tls: Path | None = None
    trusted_proxies: tuple[str, ...] = ()
    studies: tuple[Planned, ...] = ()
    compare: Mapping[str, Any] = field(default_factory=dict)

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
        rows: dict[str, Any] = {**_MORE, **_rows(file)}
        _fits(file, rows, _KNOWN)
        if not re.fullmatch(r"https?://[^/?#\s]+", rows["url"]) or bool(rows["certificate"]) != bool(
            rows["certificate_key"]
        ):
            raise ConfigError(
                f"{file} must have a url without a path, and both or neither file of a certificate. "
                f"Got {rows['url']!r:.80}. Correct it."
            )
        _check_gates(file, rows)
        places = ("certificate", "certificate_key", "mutual_tls")
        rows |= {k: file.parent / rows[k] if rows[k] else None for k in places}
        rows["trusted_proxies"] = tuple(rows["trusted_proxies"])
        return cls(file.parent, studies=tuple(_planned(file, row) for row in rows.pop("study")), **rows)

    def secret(self) -> SideSecret:
        """The hub's identity.

        Raises:
            ConfigError: its file is missing, damaged, or open to others.
        """
        return read_identity(self.folder / KEY)

    def certificate_der(self) -> bytes:
        """Its certificate as parties pin it; b"" where it has none of its own, or an authority vouches for it.

        Raises:
            ConfigError: its file cannot be read.
        """
        if self.certificate is None or not self.pin:
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


def _fits(file: Path, rows: Mapping[str, Any], known: Mapping[str, type]) -> None:
    """Are the settings those that are known, each of its kind?"""
    for name in rows:
        if name not in known:
            hint = nearest(name, known) or f" It may have {', '.join(known)}."
            raise ConfigError(f"{file} must have settings that are known. Got {name!r:.60}.{hint}")
    for name, kind in known.items():
        if name in rows and type(rows[name]) is not kind:
            raise ConfigError(f"{name!r} in {file} must be {_SORTS[kind]}. Got {rows[name]!r:.60}. Correct it.")
    for name in _NEEDED.keys() & known.keys():
        if name not in rows:
            raise ConfigError(f"{file} must have the settings {', '.join(_NEEDED)}. Got no {name!r}. Add it.")


_SORTS = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}


def _check_gates(file: Path, rows: Mapping[str, Any]) -> None:
    """What is asked of whoever connects, and how it is logged."""
    if rows["log"] not in LOGS:
        raise ConfigError(f"'log' in {file} must be 'text' or 'json'. Got {rows['log']!r:.40}. Correct it.")
    if rows["mutual_tls"] and not rows["certificate"]:
        raise ConfigError(
            f"'mutual_tls' in {file} must go with a certificate: the hub itself must end TLS. Got none. "
            "Ask for certificates at the server before it instead."
        )
    for text in rows["trusted_proxies"]:
        try:
            ip_network(text)
        except (ValueError, TypeError):
            raise ConfigError(
                f"'trusted_proxies' in {file} must be addresses or networks. Got {text!r:.50}. Use "
                '"10.0.0.7", for one.'
            ) from None


def _planned(file: Path, row: Any) -> Planned:
    """A study of `[[study]]`."""
    if not isinstance(row, dict) or "file" not in row:
        raise ConfigError(f'Each [[study]] in {file} must have a file. Got none. Add file = "study.py".')
    _fits(file, row, _STUDY)
    for name in ("rounds", "minimum"):
        if row.get(name, 1) < 1:
            raise ConfigError(f"{name!r} of a study in {file} must be >= 1. Got {row[name]}. Correct it.")
    named = row.get("parties")
    if named is not None and not (named and all(isinstance(n, str) for n in named)):
        raise ConfigError(f"'parties' of a study in {file} must be names. Got {named!r:.60}. Leave it out for all.")
    parties = None if named is None else tuple(named)
    return Planned(file.parent / row["file"], row.get("rounds"), row.get("minimum"), parties)


def _check(name: str, host: str, port: int) -> None:
    if not 0 < len(name) <= 255 or not name.isprintable():
        raise ConfigError(f"The name of a hub must be 1 to 255 characters that can be printed. Got {name!r:.60}.")
    if not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", host):
        raise ConfigError(f"--host must be a name or an address. Got {host!r:.60}. Use hub.example.org, for one.")
    if not 0 < port < 65536:
        raise ConfigError(f"--port must be 1 to 65535. Got {port}. Use 8443, for one.")
