"""The commands by which a hub is kept: comity hub backup, restore, migrate, prune."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comity.cli import FAILED

if TYPE_CHECKING:
    from comity.service.keeping import Kept

_FOLDER = Annotated[Path, typer.Argument(help="The hub's folder.")]


def _days(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"It must be a number. Got '{text}'.") from None


def backup(
    folder: _FOLDER, file: Annotated[Path, typer.Argument(help="Where the backup goes; it holds the hub's key.")]
) -> None:
    """Write a hub's folder into one file, while the hub is at work."""
    from comity.service.keeping import backup as written
    from comity.service.settings import HubSettings

    if url := HubSettings.read(folder).database:
        _dump_first(url)
    kept = written(folder, file)
    _say("backup", f"{kept.file}   {_shown(kept)}")
    for place in kept.elsewhere:
        _say("not in it", place)
    _say("keep it", "like the folder itself: it holds the hub's key and the secrets of its runs")
    _faults(kept.faults)


def restore(
    file: Annotated[Path, typer.Argument(help="What comity hub backup wrote.")],
    folder: Annotated[Path, typer.Argument(help="Where the hub is to live: empty, or not there.")],
) -> None:
    """Put a backup back, and audit every run in it."""
    from comity.service.keeping import restore as restored

    kept, faults = restored(file, folder)
    when = datetime.fromtimestamp(kept.made, UTC).strftime("%F %R UTC")
    _say("restored", f"{folder}   {_shown(kept)}, made {when}")
    for run in kept.runs:
        _say("audit", f"{folder / run}   {_found(folder / run)}")
    for place in kept.elsewhere:
        _say("not in it", place)
    _say("next", f"comity serve {folder / 'hub.toml'}   once the other hub of this name has ended for good")
    _faults(faults)


def migrate(folder: _FOLDER) -> None:
    """Bring a hub's database to this version. Stop the hub first."""
    from comity.ledger import folder as files
    from comity.service import versions
    from comity.service.database import NAME
    from comity.service.keeping import snapshot
    from comity.service.settings import HubSettings

    found = HubSettings.read(folder)
    lock = files.take(found.folder)
    try:
        db = versions.opened(found.folder, found.database)
        try:
            had = versions.version(db)
            if not found.database:
                copy = found.folder / f"{NAME}.schema-{had}"
                snapshot(found.folder / NAME, copy)
                copy.chmod(0o600)
            done = versions.migrate(db)
        finally:
            db.close()
    finally:
        os.close(lock)
    if not found.database:
        _say("kept", f"{copy}   as it was; remove it once the hub runs")
    for line in done:
        _say("migrated", line)
    _say("schema", f"{had} → {versions.SCHEMA}" if done else f"{versions.SCHEMA}, nothing to do")


def prune(
    folder: _FOLDER,
    days: Annotated[float, typer.Option(parser=_days, metavar="N", help="Since the run ended.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove models, states and secrets of runs that ended long ago; their ledgers stay."""
    from comity.service import versions
    from comity.service.retention import prune as pruned
    from comity.service.settings import HubSettings

    found = HubSettings.read(folder)
    db = versions.opened(found.folder, found.database)
    try:
        versions.check(db)
        gone = pruned(db, days, dry=dry_run)
    finally:
        db.close()
    for run in gone:
        when = datetime.fromtimestamp(run.ended, UTC).strftime("%F")
        _say("would go" if dry_run else "pruned", f"{run.folder}   ended {when}, {_bytes(run.freed)}")
    if not gone:
        _say("pruned", f"nothing: no run ended more than {days:g} days ago that still holds a model")


def _dump_first(url: str) -> None:
    from comity.service.keeping import dumped

    typer.echo(
        f"{'database':<11}PostgreSQL keeps its own: before this command, run\n"
        f"{'':<11}pg_dump --format=custom --file=hub.dump '{dumped(url)}'",
        err=True,
    )


def _found(run: Path) -> str:
    from comity.core.errors import ComityError
    from comity.ledger.audit import audit

    try:
        found = audit(run)
    except ComityError as error:
        return str(error)
    return f"{found.rounds} rounds, {'chain intact' if found.ok else found.faults[0]}, head {found.head[:8]}"


def _faults(faults: tuple[str, ...]) -> None:
    for fault in faults:
        typer.echo(f"{'error':<11}{fault}", err=True)
    if faults:
        raise typer.Exit(FAILED)


def _shown(kept: "Kept") -> str:
    runs = f"{len(kept.runs)} run{'' if len(kept.runs) == 1 else 's'}"
    return f"{kept.files} files, {_bytes(kept.size)}, {runs}"


def _bytes(n: int) -> str:
    from comity.report.numbers import size

    return size(n)


def _say(label: str, text: str) -> None:
    typer.echo(f"{label:<11}{text}")
