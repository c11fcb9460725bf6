"""The commands that let somebody see a hub's pages: comity hub login, comity hub logout, comity page."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comity.core.errors import ConfigError

if TYPE_CHECKING:
    from comity.service.registry import Registry

SECONDS = 30.0
"""How long to wait for the hub."""
_FOLDER = Annotated[Path, typer.Argument(help="The hub's folder.")]
_MADE = "It works once, within ten minutes; whoever has it is logged in."


def login(
    folder: _FOLDER,
    name: Annotated[str, typer.Argument(help="Who: actions are written down under this name.")],
    role: Annotated[str, typer.Option(help="operator, auditor or party.")] = "operator",
) -> None:
    """Print a link that logs in to the hub's pages, once."""
    from comity.service.pages.sessions import Sessions
    from comity.service.settings import HubSettings

    url = HubSettings.read(folder).url
    with _registry(folder) as registry:
        secret = Sessions(registry).link(name, role)
    typer.echo(f"{url}/login/{secret}")
    typer.echo(f"For {name}, as {role}. {_MADE}", err=True)


def logout(folder: _FOLDER, name: Annotated[str, typer.Argument(help="Whose sessions and links end.")]) -> None:
    """End all sessions of somebody in the hub's pages."""
    from comity.service.pages.sessions import Sessions

    with _registry(folder) as registry:
        count = Sessions(registry).end_all(name)
    typer.echo(f"{name}: {count} {'session or link' if count == 1 else 'sessions and links'} ended")


def page(
    identity: Annotated[Path, typer.Option(help="The party's key file; mode 0600.")],
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser.")] = False,
) -> None:
    """Print a link to this party's page at its hub."""
    from comity.service.client import Client, Stopped
    from comity.service.joining import Pinned
    from comity.service.keys import read_identity

    pinned = Pinned.read(identity)
    client = Client(pinned.url, pinned.name, read_identity(identity), pinned.certificate, pause=2.0)
    late = threading.Timer(SECONDS, client.stop.set)
    late.start()
    try:
        got = client.ask("POST", "/v1/login")
    except Stopped:
        raise ConfigError(
            f"The hub at {pinned.url} must answer. It did not. Try again later, or check the line."
        ) from None
    finally:
        late.cancel()
        client.close()
    path = str(got.told.get("path", ""))
    if got.status != 200 or not path.startswith("/login/"):
        raise ConfigError(
            f"The hub {pinned.hub} must give a link to its pages. It said: {got.status} "
            f"{str(got.told.get('reason', ''))[:200]}. Ask its operator whether {pinned.name} is approved."
        )
    typer.echo(pinned.url + path)
    typer.echo(f"For {pinned.name}, as {got.told.get('role', 'party')}. {_MADE}", err=True)
    if show:
        typer.launch(pinned.url + path)


def _registry(folder: Path) -> "Registry":
    from comity.service.registry import Registry
    from comity.service.settings import HubSettings

    found = HubSettings.read(folder)
    return Registry.open(found.database or found.folder)
