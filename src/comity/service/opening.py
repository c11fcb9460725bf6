"""A hub as `comity serve` runs it: its station with pages, measurements and a log; and what it is to carry."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from comity.core.errors import ConfigError, nearest
from comity.ledger.blobs import StoreAway
from comity.ledger.mailbox import Mailbox
from comity.service import metrics, versions
from comity.service.conducting import Comparing, Job, Training
from comity.service.database import awaited
from comity.service.logs import Log, taken_over
from comity.service.noticing import Noticed
from comity.service.pages import pages
from comity.service.registry import Registry
from comity.service.runs import Runs
from comity.service.settings import HubSettings
from comity.service.station import Station
from comity.service.studies import Study

LEAST = 2
"""Parties for which a run waits at least, where nobody says otherwise."""
_APART = {"target", "minimum", "parties", "title", "called", "schema", "private", "words", "groups", "fair"}


@dataclass
class Front:
    """What pages and measurements look at: the database, and the process that serves."""

    registry: Registry
    runs: Runs
    box: Mailbox
    url: str
    station: Station | None = None

    @property
    def closing(self) -> bool:
        """Is the hub about to end?"""
        return self.station is not None and self.station.hub.closing

    def polls(self) -> int:
        """Parties on the line."""
        return 0 if self.station is None else len(self.station.hub.polls)

    def stored(self) -> bool:
        """Does the store of large bodies answer?"""
        try:
            if self.station is not None:
                self.station.blobs.size("", "0" * 64)
        except StoreAway:
            return False
        return True


@contextmanager
def opened(settings: HubSettings, log: Log, tell: Callable[[str], None] | None = None) -> Iterator[Station]:
    """A hub that answers, until the block ends.

    Args:
        settings: of the hub.
        log: is told what happens.
        tell: is given the address once questions are taken.

    Raises:
        Away: the database did not answer in time.
        ConfigError: the folder is in use, the port is taken, or the database must be migrated.
    """

    def waiting(why: str) -> None:
        log("waiting", why)

    registry = awaited(lambda: _registry(settings), waiting)
    with closing(registry.db):
        front = Front(registry, Runs(registry.db), Mailbox(registry.db), settings.url)
        store = front.stored if settings.blobs else None
        watched = metrics.Watched(settings, registry, front.runs, front.box.progress, front.polls, store)
        routes = [*pages(front), *metrics.routes(watched)]
        with ExitStack() as stack:
            front.station = station = awaited(lambda: Station.open(settings, routes, tell=tell), waiting)
            stack.callback(station.close)
            registry.db.hear(station.db.tell)  # what is done on a page
            stack.enter_context(taken_over(log))
            stack.callback(station.close)  # while what it says is still taken over
            noticed = stack.enter_context(closing(Noticed(registry, front.runs, log)))
            noticed.start()
            yield station


def _registry(settings: HubSettings) -> Registry:
    """Of a database that this version can carry on with."""
    registry = Registry.open(settings.database or settings.folder)
    try:
        versions.check(registry.db)
    except BaseException:
        registry.close()
        raise
    return registry


def jobs_of(
    settings: HubSettings,
    files: Sequence[Path] = (),
    targets: Sequence[str] = (),
    *,
    minimum: int | None = None,
) -> list[Job]:
    """What a hub is to carry: the studies of its settings, those that are named here, and comparisons.

    Args:
        settings: of the hub.
        files: of more studies.
        targets: of comparisons, each by the settings of `[compare]`.
        minimum: parties that must have agreed before a run begins; instead of all that were invited to the hub.

    Raises:
        ConfigError: a study or a setting that does not fit, or two of one name.
    """
    jobs: list[Job] = []
    for plan in settings.studies:
        jobs.append(Training(Study.load(plan.file), plan.rounds, plan.minimum or minimum, plan.parties))
    jobs += [Training(Study.load(file), minimum=minimum) for file in files]
    if settings.compare and not targets:
        targets = [settings.compare.get("target", "")]
    jobs += [_comparing(settings, target, minimum) for target in targets]
    names = [job.name for job in jobs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"What a hub carries must have names of its own. Got {name} twice. Rename one file.")
    return jobs


def wanted(job: Job, registry: Registry) -> int | None:
    """For how many parties a run waits: those that it names, or else all that were invited, and two at least."""
    if isinstance(job, Training | Comparing) and (job.minimum is not None or job.parties is not None):
        return job.minimum
    statuses: Any = ("invited", "waiting", "approved")
    return max(LEAST, sum("party" in party.roles for party in registry.parties(*statuses)))


def _comparing(settings: HubSettings, target: str, minimum: int | None) -> Comparing:
    """A comparison by the settings of `[compare]`."""
    from comity.comparison.private import asked
    from comity.comparison.settings import Settings, listed
    from comity.comparison.terms import Terms
    from comity.data.dictionary import Dictionary

    rows, file = settings.compare, settings.folder / "hub.toml"
    known = {f.name for f in fields(Settings)} - {"party", "pooled", "words_from"}
    _check(rows, known | _APART, file)
    groups, fair = listed(rows.get("groups", []), rows.get("fair") or None)
    plain: dict[str, Any] = {name: value for name, value in rows.items() if name in known - _APART}
    private = asked(rows["private"]) if rows.get("private") else None
    made = Settings(target, groups=groups, fair=fair, private=private, words_from=rows.get("words", "open"), **plain)
    schema = settings.folder / rows["schema"] if rows.get("schema") else None
    dictionary = None if schema is None else Dictionary.load(schema)
    said = (rows.get("title", ""), rows.get("called", ""), f"comity serve {file} --compare {target}")
    named = rows.get("parties")
    return Comparing(Terms(made, dictionary, *said), rows.get("minimum") or minimum, named and tuple(named))


def _check(rows: Mapping[str, Any], known: set[str], file: Path) -> None:
    for name in rows:
        if name not in known:
            hint = nearest(name, known) or f" It may have {', '.join(sorted(known))}."
            raise ConfigError(f"[compare] in {file} must have settings that are known. Got {name!r:.60}.{hint}")
