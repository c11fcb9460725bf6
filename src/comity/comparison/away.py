"""A comparison over a wall: the hub's side. The desks are at the parties, and each question to them is a run.

    FOLDER/comparison.json    what is compared, and the comparison's own name
    FOLDER/steps/             what came of each step: a hub that was restarted goes on after the last one
    FOLDER/repeat-0/...       the joint runs, as `compare(..., runs=...)` keeps them
    FOLDER/results.json       at its end, with the joint model (see `saved`)

What is computed, and in which order, is what `compare` does in one process, by the same code. Three things are
other: no rows are moved (pooled is not available), the models that a party keeps are not at the hub, and hashed words
want a salt of the parties. A party that is away is waited for; each question is asked TRIES times.
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from comity.adapters.threads import one_thread
from comity.collaboration import Run
from comity.comparison.compare import Comparison, Tell, repeated
from comity.comparison.desk import Desk
from comity.comparison.hub import Hub
from comity.comparison.jobs import RESULTS, Job
from comity.comparison.preparing import Preparing
from comity.comparison.results import Facts, results
from comity.comparison.saved import Outcome, holds_outcome, read_results, write
from comity.comparison.settings import Settings
from comity.comparison.terms import TITLE, Terms
from comity.core.contribution import Tree
from comity.core.errors import ComityError, ConfigError, LedgerError, TooFewParticipants, WireError
from comity.core.wire import decode_tree, encode_tree
from comity.data.vocabularies import source_of
from comity.ledger import folder as files
from comity.listeners.telling import Listener
from comity.loop.hub import Event

PATIENCE, TRIES = 3600.0, 3
"""Seconds that parties have for one answer, and how often a question is asked before the comparison ends."""
LAST = 600.0
"""Seconds that they have to take the results."""
TERMS, STEPS = "comparison.json", "steps"


class Gone(ComityError):
    """A party of a comparison is away. Nothing is lost: run the same again when it is back, and it goes on."""


def conduct(
    station: Any,
    settings: Settings | Terms,
    *,
    parties: Sequence[str] | None = None,
    minimum: int | None = None,
    folder: str | Path,
    tell: Tell | None = None,
) -> Comparison:
    """Compare learning alone with learning together where the data are; every party gets the results.

    Run again with the same folder, it goes on where it was. Seeds, splits, scores and verdict are those of `compare`
    on the same tables, to the bit, but for pooled (not available: the data stay), noise and times.

    Args:
        station: a hub that is open; `carrying(title=, about=, parties=, minimum=, folder=)` gives an engine.
        settings: how; with a dictionary, a title or a noun, as `Terms`.
        parties: who is invited; None for all that are approved.
        minimum: how many must have agreed for it to begin, >= 2; None for all that are invited.
        folder: of this comparison.
        tell: is told what is being done and how much of all is done, in [0, 1].

    Raises:
        ConfigError: the folder holds another comparison, fewer than two parties have at least 10 rows, or their
            columns do not fit.
        Gone: somebody stayed away, or an operator stopped it.
    """
    terms = settings if isinstance(settings, Terms) else Terms(settings)
    where = Path(folder)
    if minimum is not None and minimum < 2:
        raise ConfigError(f"The 'minimum' of a comparison must be at least 2. Got {minimum}. It takes two to compare.")
    away = Away(station, terms, where, parties=parties, minimum=minimum)
    if holds_outcome(where):
        return Comparison(read_results(where))
    away.clear()
    try:
        with one_thread():
            return _compared(away, terms, tell)
    except ConfigError as error:
        away.fail(str(error))
        raise


def _compared(away: "Away", terms: Terms, tell: Tell | None) -> Comparison:
    begun, settings = (time.perf_counter(), time.process_time()), terms.settings
    source = source_of(settings.words_from, terms.dictionary)
    hub = Hub(away, settings.seed, preparing=Preparing(source, settings.fill, terms.dictionary))
    try:
        schema, rows, described = hub.describe(settings.target)
    finally:
        away.names = hub.everybody

    def told(what: str, done: float) -> None:
        away.done = done
        if tell is not None:
            tell(what, done)

    done = repeated(hub, schema, settings, told, away.folder)
    spent = (time.perf_counter() - begun[0], time.process_time() - begun[1])
    named = (terms.title or settings.target, terms.called or "party")
    facts = Facts(*named, schema, rows, 0, described, spent, hub.preparing.revealed(schema), terms.command)
    made = done[0].outcome

    def ends() -> Tree:
        return {"results": json.dumps(results(facts, settings, done), ensure_ascii=False, allow_nan=False)}

    said = away.kept({"step": "end"}, ends)["results"]  # the same to all, whatever becomes of this process
    answer = Comparison(json.loads(said))
    away.deliver(hub, {"results": said, "preparation": made["preparation"], "joint": made["joint"], "failed": ""})
    write(away.folder, Outcome(answer.results, made["preparation"], made["joint"]))
    return answer


class Away:
    """Desks at parties beyond a wall.

    Args:
        station: carries.
        terms: of the comparison.
        folder: of it.
        parties: who is invited; None for all.
        minimum: how many must agree; None for all.
        patience: seconds that parties have for one answer.
    """

    def __init__(
        self,
        station: Any,
        terms: Terms,
        folder: Path,
        *,
        parties: Sequence[str] | None = None,
        minimum: int | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """Nothing is asked yet.

        Raises:
            ConfigError: the folder holds another comparison.
        """
        self.station, self.terms, self.folder = station, terms, folder
        self.parties, self.minimum, self.patience = parties, minimum, patience
        self.names: list[str] = []
        self.done, self._count = 0.0, 0
        self.id = _named(folder, terms)

    def clear(self) -> None:
        """Steps that a killed hub left open are asked anew, under other names: nobody is to wait for the old ones."""
        if (runs := getattr(self.station, "runs", None)) is None:
            return
        for row in runs.all():
            if row.live and not row.folder and row.about.get("id") == self.id:
                runs.become(row.run, "failed", "The hub was restarted. The step is asked anew.")

    @property
    def desks(self) -> Mapping[str, Desk]:
        """They are not here."""
        return {}

    def models(self, repeat: int) -> Mapping[str, Mapping[str, Any]]:
        """They stay where they are."""
        return {}

    def run(self, job: Job, names: Sequence[str], *, folder: Path | None = None, listen: Listener | None = None) -> Run:
        """Run a job with some parties: asked again where somebody was silent.

        Raises:
            TooFewParticipants: what somebody sent was refused: of a training, it diverged.
            Gone: somebody stayed away, could not answer, or an operator stopped it.
        """
        fed = job.build({}).replace(deadline=self._patience(job))
        for tried in range(TRIES):
            heard = _Heard(listen)
            try:
                run = fed.run(job.rounds, folder=folder, engine=self._engine(job, names, folder), listen=heard)
            except TooFewParticipants as error:
                if heard.refused and not heard.dropped:
                    raise
                if heard.dropped or tried == TRIES - 1:
                    step = job.what["step"]
                    raise Gone(f"The step '{step}' of the comparison could not be ended. {error}") from error
                continue
            if run.ledger.rounds < job.rounds and not (job.early and fed.stop and fed.stop(run.ledger, [])):
                raise Gone("The comparison was stopped. Run the same again: it goes on from there.")
            return run
        raise AssertionError("the last try returns or raises")

    def _patience(self, job: Job) -> float:
        return min(self.patience, LAST) if job.what["step"] == RESULTS else self.patience

    def _engine(self, job: Job, names: Sequence[str], folder: Path | None) -> Any:
        """What carries: to those who are named, or at the beginning to whoever agrees."""
        about = {
            "comparison": self.terms.plain,
            "id": self.id,
            "done": round(self.done, 4),
            "patience": self._patience(job),
            **job.what,
        }
        first = not names
        return self.station.carrying(
            title=f"{TITLE} of {self.terms.settings.target}: {job.what['step']}",
            about=about,
            folder=str(folder or ""),
            parties=self.parties if first else list(names),
            minimum=self.minimum if first else len(names),
        )

    def kept(self, what: Mapping[str, Any], make: Callable[[], Tree]) -> Any:
        """What came of a step, made now or before the hub was restarted."""
        path = self.folder / STEPS / f"{self._count:05}.tree"
        self._count += 1
        named = json.dumps(what, sort_keys=True)
        if path.exists():
            try:
                found: Any = decode_tree(path.read_bytes())
                if found["what"] == named:
                    return found["value"]
            except (WireError, KeyError, TypeError) as error:
                raise LedgerError(f"{path} must be what a step gave. It is damaged. Restore it from a copy.") from error
            raise ConfigError(f"{self.folder} must hold this comparison. {path.name} is of another step. Use another.")
        data = encode_tree({"what": named, "value": make()})
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, data, 0o600)
        kept: Any = decode_tree(data)
        return kept["value"]

    def deliver(self, hub: Hub, said: Mapping[str, Any]) -> None:
        """Give everybody who said what it has the results; who does not come for them goes without."""
        try:
            hub.deliver(self.names, said)
        except (Gone, TooFewParticipants):
            return

    def fail(self, why: str) -> None:
        """Tell everybody that there will be no results."""
        if self.names:
            none = {"results": "", "preparation": None, "joint": None}
            self.deliver(Hub(self, self.terms.settings.seed), {**none, "failed": why})


class _Heard:
    """Who was refused, and who said that it cannot answer, in the last round that did not close."""

    def __init__(self, listen: Listener | None) -> None:
        self.refused, self.dropped, self._listen = False, False, listen

    def __call__(self, event: Event) -> None:
        if event.kind == "round":
            self.refused = any(h.refused for h in event.heard.values())
            self.dropped = any(h.dropped for h in event.heard.values())
        if callable(self._listen):
            self._listen(event)


def _named(folder: Path, terms: Terms) -> str:
    """The comparison's own name, made when its folder is."""
    path = folder / TERMS
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            named, theirs = str(known["id"]), known["terms"]
        except (ValueError, KeyError, TypeError):
            raise LedgerError(f"{path} must say what is compared. It is damaged. Restore it from a copy.") from None
        if theirs != terms.plain:
            raise ConfigError(f"{folder} must hold this comparison. It holds one with other settings. Use another.")
        return named
    folder.mkdir(parents=True, exist_ok=True)
    named = secrets.token_hex(8)
    files.put(path, json.dumps({"id": named, "terms": terms.plain}, ensure_ascii=False).encode())
    return named
