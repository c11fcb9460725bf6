"""The command `comity serve`: a hub that answers parties, shows its pages, and carries studies one after the other."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comity.cli import FAILED

if TYPE_CHECKING:
    from comity.service.conducting import Job, Stop
    from comity.service.logs import Log
    from comity.service.settings import HubSettings
    from comity.service.station import Station

LOOK = 0.5


def _whole(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise typer.BadParameter(f"It must be a whole number >= 1. Got '{text}'.")
    return number


def serve(
    hub: Annotated[Path, typer.Argument(help="The hub's folder, or its hub.toml.")],
    study: Annotated[list[Path] | None, typer.Argument(help="Studies to carry, after those in hub.toml.")] = None,
    compare: Annotated[
        list[str] | None, typer.Option(metavar="TARGET", help="Is it worth joining? By [compare] of hub.toml.")
    ] = None,
    minimum: Annotated[
        int | None, typer.Option(parser=_whole, metavar="N", help="Parties that must have agreed; else all invited.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when all is carried.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Take up what an operator stopped.")] = False,
) -> None:
    """Run a hub: it answers parties, shows its pages, and carries studies one after the other."""
    from comity.service.conducting import Stop
    from comity.service.logs import Log
    from comity.service.opening import jobs_of
    from comity.service.settings import HubSettings

    settings = HubSettings.read(hub)
    jobs = jobs_of(settings, study or (), compare or (), minimum=minimum)
    log = Log(settings.log)
    stop = Stop(lambda: log("stopping", "Stopping after this round. Press Ctrl-C again to stop now."))
    failed = 0
    with _stoppable(stop):
        failed = _served(settings, jobs, log, stop, once=once, again=again)
    if failed:
        raise typer.Exit(FAILED)


def _served(
    settings: "HubSettings", jobs: Sequence["Job"], log: "Log", stop: "Stop", *, once: bool, again: bool
) -> int:
    """Until all is carried, or somebody ends it: how many failed."""
    from comity.service.conducting import Conductor
    from comity.service.opening import opened, wanted
    from comity.service.posting import Halted, surely

    def planned() -> Sequence["Job"]:
        return [replace(job, minimum=wanted(job, station.registry)) for job in jobs]  # type: ignore[type-var, arg-type]

    with opened(settings, log) as station:
        stop.station = station
        jobs = surely(station, planned)
        surely(station, _head, settings, station, jobs)
        try:
            failed = Conductor(station, log, again).carry(jobs)
            while not once and not station.ending:
                station.check()
                time.sleep(LOOK)
            station.farewell()
        except Halted:
            failed = 0
            log("stopped", "Stopped after the round. The same command goes on.")
        finally:
            station.ending = True
    return failed


def _head(settings: "HubSettings", station: "Station", jobs: Sequence["Job"]) -> None:
    """What an operator tells the parties."""
    from comity.service.conducting import Training
    from comity.service.keys import fingerprint

    here = station.registry.parties("approved") if station.registry is not None else []
    tls = settings.certificate_der()
    none = "certificate of an authority" if settings.certificate is not None else "TLS ends before it"
    _say("hub", f"{settings.url}   {f'certificate {fingerprint(tls)}' if tls else none}")
    _say("page", f"{settings.url}/   log in by: comity hub login {settings.folder} NAME")
    for job in jobs:
        if isinstance(job, Training):
            _say("recipe", f"sha256:{job.study.hash}   {job.name}: each party approves it before joining")
        else:
            _say("compare", f"{job.name}   each party runs: comity compare TABLE --hub {settings.url} ...")
    names = ", ".join(party.name for party in here) or "nobody yet: comity hub invite, then approve"
    _say("parties", f"{len(here)} approved: {names}")
    for job in jobs:
        _say("begins", f"{job.name} by itself, once {getattr(job, 'minimum', None) or 'all invited'} have agreed")
    if not jobs:
        _say("carries", "nothing: add [[study]] to hub.toml, or name a study")


@contextmanager
def _stoppable(stop: "Stop") -> Iterator[None]:
    """The first Ctrl-C or SIGTERM waits for the round, the second does not; then the command ends as ever."""
    numbers, came = (signal.SIGINT, signal.SIGTERM), []
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}

    def ask(number: int, frame: FrameType | None) -> None:
        came.append(number)
        stop.ask()

    for number in numbers:
        signal.signal(number, ask)
    try:
        yield
    except KeyboardInterrupt:
        if not came:
            raise
    finally:
        for number in numbers:
            signal.signal(number, before[number])
    if came and callable(before[came[0]]):
        before[came[0]](came[0], None)  # says how to go on, and with which status it ends


def _say(label: str, text: str) -> None:
    """At once: somebody may wait for it in a pipe."""
    import sys

    typer.echo(f"{label:<11}{text}")
    sys.stdout.flush()
