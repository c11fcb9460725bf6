"""The commands of a party: comity inspect, what a run would ask of it; comity site, take part."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comity.cli import FAILED
from comity.cli.hub import _IDENTITY, _say, _whole
from comity.core.errors import ConfigError

if TYPE_CHECKING:
    from comity.service.inspecting import Inspected
    from comity.service.joining import Pinned
    from comity.service.offers import Offer, Taken
    from comity.service.studies import Study


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"It must be a number. Got '{text}'.") from None


_STUDY = "A Python file of this party's own: fed, rounds, participant(data)."
_DATA = Annotated[str | None, typer.Option(help="What the study's participant is given: a path.")]
_DELTA = Annotated[float, typer.Option(parser=_real, metavar="D", help="At which epsilon is given.")]
_REAL: dict[str, Any] = {"parser": _real, "metavar": "X"}
_WHOLE: dict[str, Any] = {"parser": _whole, "metavar": "N"}


def inspect(
    url: Annotated[str, typer.Argument(help="The hub's, https://HOST:PORT.")],
    run: Annotated[str, typer.Argument(help="The run; - for the one that waits for this party.")],
    identity: _IDENTITY,
    study: Annotated[Path | None, typer.Option(help=_STUDY)] = None,
    data: _DATA = None,
    delta: _DELTA = 1e-5,
) -> None:
    """What a run would ask of this party: what leaves, how it is protected, what it costs. Nothing is agreed to."""
    from comity.service.inspecting import inspected
    from comity.service.joining import Pinned

    to = Pinned.read(identity)
    if to.url.rstrip("/") != url.rstrip("/"):
        raise ConfigError(f"The hub must be the one that {identity} joined, {to.url}. Got {url!r:.80}. Name that one.")
    found = _offered(to, identity)
    if found is None or run not in ("-", found.run):
        raise ConfigError(f"The hub must have the run {run!r:.70} for {to.name}. It offers {_named(found)}.")
    own = _study(study) if study is not None else None
    person = own.participant(data) if own is not None and data is not None else None
    rounds = own.rounds if own is not None else 0
    shown = inspected(found, own.fed if own is not None else None, person, name=to.name, rounds=rounds, delta=delta)
    _print(to, shown)
    if shown.differences:
        raise typer.Exit(FAILED)


def site(
    study: Annotated[Path, typer.Argument(help=_STUDY)],
    identity: _IDENTITY,
    data: _DATA = None,
    folder: Annotated[
        Path | None, typer.Option(help="What this site must not forget; beside the key by default.")
    ] = None,
    approve: Annotated[str | None, typer.Option(help="The hash that was approved: sha256:...")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Approve this copy without being asked.")] = False,
    epsilon: Annotated[float | None, typer.Option(help="Spend at most.", **_REAL)] = None,
    delta: _DELTA = 1e-5,
    cohort: Annotated[int, typer.Option(help="Answer only with so many others or more.", **_WHOLE)] = 1,
    rounds: Annotated[int | None, typer.Option(help="Answer in so many rounds at most.", **_WHOLE)] = None,
    bytes: Annotated[int | None, typer.Option("--bytes", help="Send and receive at most.", **_WHOLE)] = None,
    hours: Annotated[float | None, typer.Option(help="Answer for so long at most.", **_REAL)] = None,
    stay: Annotated[bool, typer.Option("--stay", help="After a run's end, wait for the next.")] = False,
) -> None:
    """Take part in a hub's run with data that stay here: dial out, answer what was approved, until it is over."""
    from comity.service.joining import Pinned
    from comity.service.keys import read_identity
    from comity.service.limits import Limits
    from comity.service.offers import Taken
    from comity.service.site import take_part

    to, own = Pinned.read(identity), _study(study)
    limits = Limits(approve or "", cohort, rounds, epsilon, delta, bytes, hours)
    where = folder or identity.with_suffix(".site")
    taken = Taken(own.fed, own.participant(data), limits)
    agenda = Standing(to, own, taken, where, approved=yes or approve is not None, stay=stay)
    _say("site", f"{to.name} at {to.url}; {where}")
    take_part(agenda, to, identity=read_identity(identity), folder=where)
    _say("over", f"comity audit {where / agenda.runs[-1]}" if agenda.runs else "nothing was asked")


@dataclass(frozen=True)
class Standing:
    """What a party takes part in by the command: the runs of one study, once approved.

    Attributes:
        to: the hub.
        study: the party's own.
        taken: with what it takes part.
        folder: of the site.
        approved: by its hash, or whatever it is.
        stay: for the next run.
        runs: those that were taken part in.
    """

    to: "Pinned"
    study: "Study"
    taken: "Taken"
    folder: Path
    approved: bool
    stay: bool
    runs: list[str] = field(default_factory=list)

    def find(self, offer: "Offer") -> "Taken | None":
        """Take part, where it is approved; another study's run is left to others.

        Raises:
            ConfigError: it is not approved, or another one where there is nothing to stay for.
        """
        from comity.service.offers import own, same

        own(self.taken)
        try:
            same(self.taken, offer)
        except ConfigError as error:
            if not self.stay:
                raise
            sys.stderr.write(f"{self.to.name}: {offer.run} is not taken part in. {error}\n")
            return None
        agreed = (self.folder / offer.run / "agreed.json").exists()
        if not (self.approved or agreed):
            self._ask(offer)
        if offer.run not in self.runs:
            self.runs.append(offer.run)
            _say("run", f"{offer.run}   {offer.title}".rstrip())
        return self.taken

    def _ask(self, offer: "Offer") -> None:
        """Show what would leave, and ask."""
        from comity.service.inspecting import inspected

        if not sys.stdin.isatty():
            raise ConfigError(
                f"The recipe must be approved. It is sha256:{self.study.hash}. Read what comity inspect says of it, "
                "and use --approve with this hash, or --yes."
            )
        rounds, delta = self.study.rounds, self.taken.limits.delta
        shown = inspected(offer, self.study.fed, self.taken.participant, name=self.to.name, rounds=rounds, delta=delta)
        _print(self.to, shown)
        if not typer.confirm("Take part?"):
            raise ConfigError("The recipe must be approved. It was not. Nothing was sent.")


def _study(file: Path) -> "Study":
    from comity.service.studies import Study

    return Study.load(file)


def _offered(to: "Pinned", identity: Path) -> "Offer | None":
    """The run that waits for this party."""
    from comity.service.client import Client
    from comity.service.keys import read_identity
    from comity.service.offers import Offer

    client = Client(to.url.rstrip("/"), to.name, read_identity(identity), to.certificate)
    try:
        got = client.ask("GET", "/v1/run?wait=0")
    finally:
        client.close()
    return Offer.read(got.told) if got.status == 200 else None


def _named(offer: "Offer | None") -> str:
    return "none now" if offer is None else offer.run


def _print(to: "Pinned", shown: "Inspected") -> None:
    from comity.service.keys import fingerprint

    _say("hub", f"{to.hub} at {to.url}, its key {fingerprint(to.key)}")
    for label, text in shown.lines:
        _say(label, text)
    _say("approve", f"sha256:{shown.hash}")
