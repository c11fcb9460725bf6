"""`/healthz` for a load balancer and `/metrics` for Prometheus.

`/healthz` says 200 or 503 and which of database, disk and object store is at fault, to anybody. `/metrics` names
parties and runs: it is for whoever brings the token in `metrics.token` of the hub's folder; and for this machine, where
the hub itself ends TLS, so that no server before it makes a stranger look like this machine.
"""

import asyncio
import hmac
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from comity import __version__
from comity.core.errors import ComityError
from comity.service.keys import expires, read_private
from comity.service.logs import caller
from comity.service.pages.reading import Readings
from comity.service.registry import Registry
from comity.service.runs import RunRow, Runs
from comity.service.settings import HubSettings

TOKEN = "metrics.token"
LEAST = 2**28
"""Bytes of the disk below which the hub is not well."""
PATIENCE, AGAIN, DAY = 5.0, 1.0, 86400.0
"""Seconds to wait for the database; for which an answer counts; for which an ended run is shown."""
TYPE = "text/plain; version=0.0.4; charset=utf-8"
_STATUSES = ("invited", "waiting", "approved", "suspended", "removed")
_STATES = ("gathering", "running", "paused", "over", "stopped", "failed")
_HERE = ("127.0.0.1", "::1")


@dataclass
class Watched:
    """A hub as it is measured.

    Attributes:
        settings: of the hub.
        registry: who belongs to it.
        runs: what it carries.
        asked: run to its open questions, each with `state` and `since`; None where nobody counts them.
        polls: how many parties are on the line.
        store: does the object store answer? None where there is none.
        clock: seconds since 1970.
    """

    settings: HubSettings
    registry: Registry
    runs: Runs
    asked: Callable[[str], Iterable[Any]] | None = None
    polls: Callable[[], int] = lambda: 0
    store: Callable[[], bool] | None = None
    clock: Callable[[], float] = time.time
    _readings: Readings = field(default_factory=Readings, repr=False)
    _last: tuple[float, Mapping[str, str]] = field(default=(-AGAIN, {}), repr=False)

    def health(self) -> Mapping[str, str]:
        """ "ok", or what is wrong, of "database", "disk" and "store"; looked at once a second at most."""
        at, said = self._last
        if not 0 <= time.monotonic() - at < AGAIN:
            said = {"database": "ok" if _answers(self.registry) is not None else "away", "disk": self._disk()}
            if self.store is not None:
                said["store"] = "ok" if self.store() else "away"
            self._last = (time.monotonic(), said)
        return said

    def measured(self) -> str:
        """All measurements, as Prometheus reads them."""
        return "".join(f"{line}\n" for line in self._lines())

    def _disk(self) -> str:
        return "ok" if shutil.disk_usage(self.settings.folder).free >= LEAST else "full"

    def _lines(self) -> Iterator[str]:
        yield from _gauge("comity_info", "The hub.", [({"version": __version__, "hub": self.settings.name}, 1)])
        disk = shutil.disk_usage(self.settings.folder)
        yield from _gauge("comity_disk_free_bytes", "Left on the disk of the folder.", [({}, disk.free)])
        yield from _gauge("comity_disk_size_bytes", "Size of that disk.", [({}, disk.total)])
        yield from _gauge("comity_polls_open", "Parties on the line to this process.", [({}, self.polls())])
        yield from _process()
        if self.settings.certificate is not None and (until := _until(self.settings.certificate)) is not None:
            text = "When the certificate expires."
            yield from _gauge("comity_certificate_expires_timestamp_seconds", text, [({}, until)])
        took = _answers(self.registry)
        yield from _gauge("comity_database_up", "Does the database answer?", [({}, int(took is not None))])
        if took is None:
            return
        yield from _gauge("comity_database_seconds", "How long it took to answer.", [({}, took)])
        try:
            found = [*self._parties(), *self._carried()]
        except ComityError:  # it went away meanwhile: the next look says so
            return
        yield from found

    def _parties(self) -> Iterator[str]:
        parties = self.registry.parties()
        counts = [({"status": s}, sum(p.status == s for p in parties)) for s in _STATUSES]
        yield from _gauge("comity_parties", "Parties by status.", counts)
        seen = [({"party": p.name}, p.last_seen) for p in parties if p.status == "approved" and p.last_seen]
        yield from _gauge("comity_party_last_seen_timestamp_seconds", "When a party was last heard.", seen)

    def _carried(self) -> Iterator[str]:
        rows = self.runs.all()
        counts = [({"state": s}, sum(r.state == s for r in rows)) for s in _STATES]
        yield from _gauge("comity_runs", "Runs by state.", counts)
        shown = [r for r in rows if r.live or (r.ended or 0) > self.clock() - DAY]
        states = [({**_run(r), "title": r.title, "state": r.state}, 1) for r in shown]
        yield from _gauge("comity_run_state", "The state of a run.", states)
        agreed = [(_run(r), len(self.runs.agreements(r.run))) for r in shown if r.state == "gathering"]
        yield from _gauge("comity_run_agreements", "Parties that agreed to a run that waits.", agreed)
        needed = [(_run(r), r.minimum) for r in shown if r.state == "gathering"]
        yield from _gauge("comity_run_minimum", "Agreements for which it waits.", needed)
        yield from self._ledgers(shown)
        yield from self._questions([r for r in shown if r.live])

    def _ledgers(self, shown: Iterable[RunRow]) -> Iterator[str]:
        read = [(r, self._readings.of(r.folder)) for r in shown]
        rounds = [(_run(r), len(x.closes)) for r, x in read]
        yield from _gauge("comity_run_rounds_total", "Closed rounds.", rounds, "counter")
        closed = [(_run(r), x.closes[-1][1]) for r, x in read if x.closes]
        yield from _gauge("comity_run_last_round_timestamp_seconds", "When a round last closed.", closed)
        intact = [(_run(r), int(not x.fault)) for r, x in read]
        yield from _gauge("comity_run_ledger_intact", "Is its chain of hashes whole?", intact)
        heard = [({**_run(r), "party": name}, h) for r, x in read for name, h in x.heard.items()]
        up = [({**who, "direction": "up"}, h.up) for who, h in heard]
        down = [({**who, "direction": "down"}, h.down) for who, h in heard]
        yield from _gauge("comity_run_bytes_total", "Bytes that travelled.", [*up, *down], "counter")
        asked = [(who, h.asked) for who, h in heard]
        yield from _gauge("comity_run_asked_total", "How often a party was asked.", asked, "counter")
        took = [(who, h.answered) for who, h in heard]
        yield from _gauge("comity_run_answered_total", "How often its answer was accepted.", took, "counter")

    def _questions(self, live: Iterable[RunRow]) -> Iterator[str]:
        if self.asked is None:
            return
        waits = [(r, [q for q in self.asked(r.run) if q.state == "open"]) for r in live]
        counts = [(_run(r), len(found)) for r, found in waits]
        yield from _gauge("comity_run_open_questions", "Parties whose answer is waited for.", counts)
        since = [(_run(r), min(q.since for q in found)) for r, found in waits if found and found[0].since]
        yield from _gauge("comity_run_oldest_question_timestamp_seconds", "Since when the longest is.", since)


def routes(watched: Watched) -> list[Any]:
    """`/healthz` and `/metrics`, for Starlette."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    token = _token(watched.settings.folder)

    async def health(request: Any) -> Any:
        try:
            said = dict(await asyncio.wait_for(run_in_threadpool(watched.health), PATIENCE))
        except (TimeoutError, ComityError, OSError):
            said = {"hub": "slow"}
        return JSONResponse(said, 200 if set(said.values()) == {"ok"} else 503, {"cache-control": "no-store"})

    async def metrics(request: Any) -> Any:
        if not _may(request, token, watched.settings):
            return PlainTextResponse(f"Bring the token in {TOKEN} of the hub's folder as a bearer.\n", 401)
        return Response(await run_in_threadpool(watched.measured), media_type=TYPE)

    return [Route("/healthz", health, methods=["GET"]), Route("/metrics", metrics, methods=["GET"])]


def _token(folder: Path) -> str:
    """What Prometheus brings; "" where there is none."""
    path = folder / TOKEN
    return read_private(path).decode(errors="replace").strip() if path.exists() else ""


def _may(request: Any, token: str, settings: HubSettings) -> bool:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if token and kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
        return True
    at = caller(request, settings.trusted_proxies)
    forwarded = any(name in request.headers for name in ("x-forwarded-for", "forwarded", "x-real-ip", "via"))
    direct = settings.certificate is not None and not forwarded
    return direct and at in _HERE and ip_address(at).is_loopback


def _gauge(name: str, help: str, samples: Iterable[tuple[Mapping[str, str], float]], kind: str = "gauge") -> list[str]:
    """A measurement with its values; nothing where there is none."""
    rows = [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return [f"# HELP {name} {help}", f"# TYPE {name} {kind}", *rows] if rows else []


def _labels(labels: Mapping[str, str]) -> str:
    said = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return f"{{{said}}}" if said else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else str(int(value))


def _run(row: RunRow) -> dict[str, str]:
    return {"run": row.run}


def _process() -> Iterator[str]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    yield from _gauge("comity_process_cpu_seconds_total", "Of this process.", [({}, cpu)], "counter")
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files = len(os.listdir("/proc/self/fd"))
    except (OSError, ValueError, IndexError):
        return
    size = pages * os.sysconf("SC_PAGE_SIZE")
    yield from _gauge("comity_process_resident_bytes", "Memory of this process.", [({}, size)])
    yield from _gauge("comity_process_open_files", "Files and connections of this process.", [({}, files)])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield from _gauge("comity_process_max_files", "How many it may have.", [({}, most)])


def _answers(registry: Registry) -> float | None:
    """Seconds that the database took to answer; None where it does not."""
    began = time.perf_counter()
    try:
        with registry.db.reading() as db:
            db.execute(sa.text("SELECT 1"))
    except ComityError:
        return None
    return time.perf_counter() - began


def _until(certificate: Path) -> float | None:
    try:
        return expires(certificate.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ComityError):
        return None
