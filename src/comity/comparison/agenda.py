"""A comparison over a wall: a party's side. It takes part in what its own settings ask for, and in nothing else.

    FOLDER/comparison.json   what is compared, and the comparison's name at its hub: another one is refused
    FOLDER/desk/             what the party was asked to prepare, and its models (see `remembered`)
    FOLDER/asked.jsonl       what it was asked
    FOLDER/outcome/          at the end: results, the joint model, and this party's own ones

Each step is built here, from this party's own code, table and settings; what the hub says chooses among them. No step
gives rows. What a party keeps never leaves, but for its own model, which the ensemble needs.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from comity.comparison.compare import MOST_UNSEEN, Comparison, Tell, own_table
from comity.comparison.desk import Desk
from comity.comparison.families import families
from comity.comparison.jobs import PRIVATE, RESULTS, TRAIN, Job, query, told, training
from comity.comparison.private import job_of as private_job
from comity.comparison.remembered import OFTEN, Allowance, Remembered
from comity.comparison.saved import Outcome, holds_outcome, read_results, write
from comity.comparison.settings import Settings
from comity.comparison.terms import Terms
from comity.comparison.trials import trials
from comity.core.contribution import Contribution, Tree
from comity.core.errors import ConfigError, ContributionError, LedgerError
from comity.core.parts import Participant, Secret
from comity.core.recipe import canonical
from comity.core.round import Round
from comity.core.wire import encode_tree
from comity.ledger import folder as files

QUESTIONS: Final = frozenset(
    {"describe", "moments", "spread", "prepare", "alone", "model", "ensemble", "score", "personal", "seconds", RESULTS}
)
"""What a party always answers. "rows" is not among them: they stay."""
WORDS: Final = {"open": {"vocabulary"}, "hashed": {"hashed", "reveal"}, "dictionary": set[str]()}
MEDIAN, FAIR = {"bounds", "counts"}, {"groups"}
"""What it answers where the settings ask for it."""
WITHOUT: Final = frozenset(
    {"moments", "spread", "vocabulary", "hashed", "reveal", "bounds", "counts", "prepare", "score", TRAIN}
)
"""And what of it where one party takes no part."""
SALT = (16, 64)
"""Bytes of a salt, least and most."""
OUTCOME, TERMS = "outcome", "comparison.json"
Take = Callable[..., Any]
"""take(fed, participant, rounds=, epsilon=, delta=) -> how a site takes part in a run."""


class Agenda:
    """In which runs of a hub a party of a comparison takes part.

    Args:
        name: the party's, at the hub.
        table: its own: a frame or a path.
        terms: of the comparison, its own.
        folder: its own, of this comparison.
        take: makes of a collaboration, a participant and limits what the site wants.
        salt: of hashed words, 16 to 64 bytes that all parties have and the hub has not; b"" for other words.
        tell: is told what is being done and how much of all is done, in [0, 1].

    Raises:
        ConfigError: no such column, hashed words without a salt, or the folder is of another comparison.
    """

    def __init__(
        self,
        name: str,
        table: Any,
        terms: Terms,
        folder: str | Path,
        *,
        take: Take,
        salt: bytes = b"",
        tell: Tell | None = None,
    ) -> None:
        """Read the table, and what was kept."""
        settings = terms.settings
        if settings.words_from == "hashed" and not SALT[0] <= len(salt) <= SALT[1]:
            raise ConfigError(
                f"Hashed words over a network want a salt of {SALT[0]} to {SALT[1]} bytes, the same at all parties and "
                f"unknown to the hub. Got {len(salt)} bytes. Exchange one among the parties: --salt FILE; or use open "
                "words, or a dictionary."
            )
        self.name, self.terms, self.folder = name, terms, Path(folder)
        self._take, self._tell, self._taken = take, tell, {}  # type: Take, Tell | None, dict[str, Any]
        own = own_table(table, name, settings)
        self.desk = Desk(name, own, settings.target, settings.seed, settings.groups, settings.fair, salt)
        self.failed, self._steps = "", _steps(settings)
        self._id = self._known()
        self.memory, self.allowed = Remembered(self.folder), Allowance(self.folder)
        self.memory.restore(self.desk)

    @property
    def stay(self) -> bool:
        """After a run's end: is there more to come?"""
        return not (self.failed or holds_outcome(self.folder / OUTCOME))

    def answer(self) -> Comparison:
        """What came of it.

        Raises:
            ConfigError: the hub said that it failed; or it is not over.
        """
        if self.failed:
            raise ConfigError(f"The comparison ended without results. The hub says: {self.failed}")
        return Comparison(read_results(self.folder / OUTCOME))

    def find(self, offer: Any) -> Any:
        """What to take part with; None for a run that is no comparison.

        Raises:
            ConfigError: the hub compares something else, or asks for what is not given.
        """
        about = offer.about
        if "comparison" not in about:
            return None
        if offer.run not in self._taken:
            self.terms.check(about["comparison"])
            self._same(about.get("id"))
            self._taken = {offer.run: self._made(about, offer.run)}
            self._show(about)
        return self._taken[offer.run]

    def _made(self, about: Mapping[str, Any], run: str) -> Any:
        """The step that the hub names, from what is here."""
        job, patience = self._job(about), about.get("patience")
        if type(patience) not in (int, float) or not 0 < patience < 1e9:  # type: ignore[operator]
            raise ConfigError(f"A comparison must say how long it waits for an answer. Got {patience!r:.40}.")
        fed = job.build({}).replace(deadline=float(patience))  # type: ignore[arg-type]
        seat: Participant = job.seat(self.desk)
        if job.what["step"] in (TRAIN, PRIVATE):
            fair = job.what.get("weights") is not None  # whatever they are: once
            self._once({**job.what, "weights": fair}, run)
        else:
            seat = Clerk(self, job.what)
        private = self.terms.settings.private if job.what["step"] == PRIVATE else None
        spent: dict[str, float] = {} if private is None else {"epsilon": private.epsilon, "delta": private.delta}
        return self._take(fed, seat, rounds=job.rounds, **spent)

    def _once(self, slot: Mapping[str, Any], what: str, most: int = 1) -> None:
        try:
            self.allowed.ask(slot, what, most)
        except ContributionError as error:
            raise ConfigError(str(error)) from None

    def _left_out(self, step: Any, repeat: int, without: str) -> None:
        """Without whom: of so many parties, and in what the comparison does without them."""
        if not (self.terms.settings.unseen and repeat == 0 and step in WITHOUT):
            raise ConfigError("A step without a party must be one that was agreed to. It is not, and is refused.")
        self._once({"step": "without"}, sha256(without.encode()).hexdigest(), MOST_UNSEEN)

    def _job(self, about: Mapping[str, Any]) -> Job:
        settings, step, repeat = self.terms.settings, about.get("step"), about.get("repeat")
        without = about.get("without")
        if type(repeat) is not int or not 0 <= repeat < settings.repeats or not isinstance(without, str):
            raise ConfigError(f"A step of a comparison must be of one of {settings.repeats} splits. Got another.")
        if not isinstance(step, str) or step not in self._steps:
            raise _unknown(step)
        if without:
            self._left_out(step, repeat, without)
        if step not in (TRAIN, PRIVATE):
            return query(step, {"repeat": repeat, "without": without}, seed=settings.seed)
        try:
            preparation = self.desk.prepared(repeat, without)
        except ContributionError as error:
            raise ConfigError(f"{error} Was {self.folder} changed? Begin another comparison.") from None
        if step == PRIVATE:
            return private_job(settings, preparation, repeat)
        known = trials(families(settings.model), preparation)
        trial = next((t for t in known if told(t) == about.get("trial")), None)
        if trial is None:
            raise ConfigError(f"A joint training must be one of {len(known)} that are tried. Got another, and refuses.")
        weights = _weights(about.get("weights"), settings.fair)
        return training(trial, repeat, rounds=settings.rounds, seed=settings.seed, without=without, weights=weights)

    def _known(self) -> str:
        """The comparison's name at the hub, where it is known already."""
        path = self.folder / TERMS
        if not path.exists():
            return ""
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            named, terms = str(known["id"]), known["terms"]
        except (ValueError, KeyError, TypeError):
            raise LedgerError(f"{path} must say what is compared. It is damaged. Restore it from a copy.") from None
        if terms != self.terms.plain:
            raise ConfigError(f"{self.folder} is of a comparison with other settings. Use another folder.")
        return named

    def _same(self, named: Any) -> None:
        """One folder, one comparison: the first that came."""
        if not isinstance(named, str) or not 0 < len(named) <= 64:
            raise ConfigError("A comparison must have a name of its own. It has none. Update the hub.")
        if not self._id:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.put(self.folder / TERMS, json.dumps({"id": named, "terms": self.terms.plain}).encode())
            self._id = named
        if named != self._id:
            raise ConfigError(
                f"{self.folder} is of another comparison at this hub. A hub that compares anew is answered from "
                "another folder, and so with your knowledge. Name one: --runs FOLDER."
            )

    def _show(self, about: Mapping[str, Any]) -> None:
        done = about.get("done")
        if self._tell is not None and isinstance(done, int | float) and 0 <= done <= 1:
            n = self.terms.settings.repeats
            self._tell(f"repeat {about['repeat'] + 1}/{n}   {about['step']}", float(done))

    def end(self, said: Mapping[str, Any]) -> None:
        """The results came: keep them, with the models that are here.

        Raises:
            ContributionError: they are none.
        """
        if why := said.get("failed"):
            self.failed = str(why)[:1000]
            return
        try:
            results = json.loads(said["results"])
            if not isinstance(results, dict) or results.get("version") != 1:
                raise ValueError
            own, personal = self.memory.model("own"), self.memory.model("personal")
            mine: Any = {"personal": {self.name: personal}} if personal is not None and said["joint"] else {}
            alone: Any = {self.name: own} if own is not None else {}
            outcome = Outcome(results, said["preparation"], said["joint"], alone=alone, **mine)
            write(self.folder / OUTCOME, outcome)
        except (KeyError, TypeError, ValueError) as error:
            raise ContributionError("What the hub gives as results must be some. It is not.") from error


@dataclass(frozen=True)
class Clerk:
    """Answers one question of a comparison, the one that was agreed to.

    Attributes:
        agenda: whose.
        what: step, repeat and without.
    """

    agenda: Agenda = field(repr=False, metadata={"data": True})
    what: Mapping[str, Any] = field(metadata={"data": True})

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Answer it.

        Raises:
            ContributionError: it is another question.
        """
        asked, agenda, step = shared.value, self.agenda, str(self.what["step"])
        if not isinstance(asked, Mapping):
            raise ContributionError("A question of a comparison must be a Tree. Got something else.")
        named = {"step": asked.get("step"), "repeat": asked.get("repeat", 0), "without": asked.get("without", "")}
        if canonical(named) != canonical(dict(self.what)):
            raise ContributionError(f"This site agreed to the step '{step}'. It is asked another, and refuses.")
        agenda.allowed.ask(self.what, sha256(encode_tree(dict(asked))).hexdigest(), OFTEN.get(step, 1))
        if step == RESULTS:
            agenda.end(asked)
            return Contribution("statistics", {"taken": 1.0}), local
        said, local = agenda.desk.contribute(shared, local, round, secret)
        agenda.memory.keep(agenda.desk, step, int(self.what["repeat"]), str(self.what["without"]))
        return said, local


def _steps(settings: Settings) -> frozenset[str]:
    """What a party takes part in, under these settings."""
    steps = {*QUESTIONS, TRAIN, *WORDS[settings.words_from], *(MEDIAN if settings.fill == "median" else ())}
    return frozenset(steps | (FAIR if settings.fair else set()) | ({PRIVATE} if settings.private else set()))


def _unknown(step: Any) -> ConfigError:
    return ConfigError(
        f"A party answers steps of its own comparison. Got {step!r:.40}, and refuses. Rows never leave; for "
        "other steps, hub and parties must have one version of comity."
    )


def _weights(said: Any, fair: str) -> Mapping[str, float] | None:
    """How much a row of each group counts."""
    if said is None:
        return None
    fits = isinstance(said, Mapping) and all(type(w) in (int, float) and 0 < w < 1e9 for w in said.values())
    if not fits or not fair:
        raise ConfigError("Weights of groups must be numbers > 0, where a fair model is asked for. Got others.")
    return {str(group): float(w) for group, w in said.items()}
