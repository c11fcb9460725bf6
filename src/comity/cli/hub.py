"""The commands of a hub and its parties: comity hub init, invite, parties, approve, suspend, remove; join, rotate."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comity.core.errors import ConfigError

if TYPE_CHECKING:
    from comity.service.parties import Party
    from comity.service.registry import Registry

hub = typer.Typer(name="hub", help="Run a hub: who takes part.", no_args_is_help=True)
_FOLDER = Annotated[Path, typer.Argument(help="The hub's folder.")]
_NAME = Annotated[str, typer.Argument(help="The party's name.")]
_IDENTITY = Annotated[Path, typer.Option(help="The party's key file; mode 0600.")]


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"It must be a whole number. Got '{text}'.") from None


@hub.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where the hub is to live.")],
    host: Annotated[str, typer.Option(help="The name or address under which parties call it.")],
    name: Annotated[str, typer.Option(help="What it is called.")],
    port: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Where it listens.")] = 8443,
) -> None:
    """Make a hub: its key, a certificate that signs itself, and its settings."""
    from comity.service.keys import fingerprint
    from comity.service.settings import TOML, HubSettings

    made = HubSettings.make(folder, name=name, host=host, port=port)
    _registry(made.folder).close()
    _say("hub", f"{made.name}   {made.url}")
    _say("key", fingerprint(made.secret().public_key()))
    _say("settings", f"{made.folder / TOML}")


@hub.command()
def invite(
    folder: _FOLDER,
    name: _NAME,
    hours: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Until the token expires.")] = 24,
    role: Annotated[str, typer.Option(help="party, auditor or operator.")] = "party",
) -> None:
    """Print, once, what a party needs to join."""
    from comity.service.settings import HubSettings

    found = HubSettings.read(folder)
    key, certificate = found.secret().public_key(), found.certificate_der()
    with _registry(folder) as registry:
        token = registry.invite(name, key, certificate=certificate, hours=hours, role=role)
    _say("for", f"{name}, once, within {hours} hours; whoever has it can join as {name}")
    typer.echo(shlex.join(["comity", "join", found.url, token, "--identity", f"{_plain(name)}.key"]))


@hub.command()
def parties(folder: _FOLDER) -> None:
    """Who takes part, and who waits."""
    with _registry(folder) as registry:
        for party in registry.parties():
            typer.echo(_line(party))


@hub.command()
def approve(
    folder: _FOLDER,
    name: _NAME,
    key: Annotated[str | None, typer.Option(help="Refuse unless this is the fingerprint of its key.")] = None,
) -> None:
    """Let a party take part: one that waits, or was suspended."""
    from comity.service.keys import same_fingerprint

    with _registry(folder) as registry:
        party = registry.party(name)
        if key is not None and party is not None and (party.key is None or not same_fingerprint(key, party.key)):
            raise ConfigError(f"The key of {name} must be the one named. It is another. Ask {name}, by telephone.")
        typer.echo(_line(registry.approve(name, party.key if party is not None else None)))


@hub.command()
def suspend(folder: _FOLDER, name: _NAME) -> None:
    """Refuse a party until it is approved again."""
    _changed(folder, lambda registry: registry.suspend(name))


@hub.command()
def remove(folder: _FOLDER, name: _NAME) -> None:
    """Take a party out; its key never counts again."""
    _changed(folder, lambda registry: registry.remove(name))


def join(
    url: Annotated[str, typer.Argument(help="The hub's, https://HOST:PORT.")],
    token: Annotated[str, typer.Argument(help="What comity hub invite printed; - reads it from standard input.")],
    identity: _IDENTITY,
    certificate: Annotated[
        Path | None, typer.Option(help="The hub's certificate, PEM, where it cannot be fetched.")
    ] = None,
) -> None:
    """Register this party's key at a hub; the key never leaves."""
    from comity.service.joining import join as joined

    given = sys.stdin.readline() if token == "-" else token  # arguments are seen by all users of a machine
    came = joined(url, given, identity, certificate=certificate)
    _say("joined", f"{came.pinned.hub} as {came.pinned.name}: {came.status}")
    _say("key", came.fingerprint)
    if came.status == "waiting":
        typer.echo("Tell the operator this fingerprint, not by this network: comity hub approve --key ...")


def rotate(identity: _IDENTITY) -> None:
    """Put a new key in the place of this party's, at the hub and here."""
    from comity.service.joining import rotate as rotated

    _say("key", rotated(identity))


def _registry(folder: Path) -> "Registry":
    from comity.service.registry import Registry
    from comity.service.settings import HubSettings

    found = HubSettings.read(folder)
    return Registry.open(found.database or found.folder)


def _changed(folder: Path, change: "Callable[[Registry], Party]") -> None:
    with _registry(folder) as registry:
        typer.echo(_line(change(registry)))


def _line(party: "Party") -> str:
    """A party in one line."""
    from datetime import UTC, datetime

    from comity.service.keys import fingerprint

    when = "never" if party.last_seen is None else datetime.fromtimestamp(party.last_seen, UTC).strftime("%F %R UTC")
    key = "no key" if party.key is None else fingerprint(party.key)
    return f"{party.name:<24} {party.status:<10} {','.join(party.roles):<8} {when:<21} {key}"


def _plain(name: str) -> str:
    """A name as a file."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).lstrip(".-") or "party"


def _say(label: str, text: str) -> None:
    typer.echo(f"{label:<11}{text}")
