"""Relay: agents that hand on a table, step after step (clean, features, train), or along a graph of steps.

participant  is given the tables of the steps before its own, does its work, and sends what it made, kind "table"
hub          keeps what each step made until all that need it are done, and gives it to those that come next
never leaves what an agent uses besides the table it was given
bytes        each table up once, and down once for each step after it

The hub never looks into a table: it may be bytes (Arrow), arrays, a text or a model's parameters.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np

from comity.combine.collect import Collect
from comity.core.checks import is_number, number, part, refusal, text
from comity.core.contribution import Contribution, Tree
from comity.core.errors import ComityError, ConfigError
from comity.core.journal import Journal
from comity.core.parts import Combiner, Secret
from comity.core.round import Round
from comity.core.spec import Leaf, Spec
from comity.core.tree import leaves
from comity.core.wire import decode_tree, encode_tree, size

START = "start"
PAUSE = 0.02
"""How many seconds a worker waits who finds nothing to claim."""


@dataclass(frozen=True)
class Relay:
    """A table that agents hand on.

    With `select=turns(...)` each turn is given what the turn before it made. With `select=ready(steps)` and
    `before=ready(steps).before` each step is given what the steps before it made, and each is done once. Both ask for
    all answers: an agent that fails is asked again (`retries`), then the run stops; run again in the same folder, it
    goes on at that step. Use `evaluate=False`: there is nothing to score, and who is scored is given the table.

    `run.shared` is what came last: the table of the one last step, or `{step: table}` of several.

    The ledger holds for each step, as metrics: `rows.<step>` and `rows_in.<step>`, and `digest.<step>` and
    `digest_in.<step>`, the first 48 bits of the sha256 of what it made and was given, as a number. Where one step
    follows another, `digest_in` of the later is `digest` of the earlier.

    Attributes:
        table: what the first agents are given, a Tree: arrays by column, or `to_arrow(frame)`.
        before: step to the steps before it; None hands on from turn to turn.

    Raises:
        ConfigError: `before` is no such mapping, or the table holds what cannot travel.

    Example:
        >>> import numpy as np, comity as co
        >>> flow = co.turns("clean", "sum")
        >>> agents = {
        ...     "clean": co.Agent(lambda t: {"x": t["x"][t["x"] >= 0]}),
        ...     "sum": co.Agent(lambda t: {"sum": t["x"].sum(keepdims=True)}),
        ... }
        >>> relay = co.Relay({"x": np.array([1.0, -1.0, 4.0])})
        >>> run = co.Collaboration(relay, agents, select=flow, evaluate=False).run(rounds=len(flow))
        >>> run.shared["sum"], run.ledger.metric("rows.clean")
        (array([5.]), [2.0])
    """

    table: Tree = field(metadata={"data": True}, repr=False)
    before: Mapping[str, Sequence[str]] | None = None

    def __post_init__(self) -> None:
        known = self.before
        plain = isinstance(known, Mapping) and all(map(_are_names, known.values()))
        if known is not None and not (plain and all(f in known for b in known.values() for f in b)):
            raise refusal("before", "Relay", "step to the steps before it", known, "Use ready(...).before.")
        _travels("The 'table' of Relay", self.table)

    @property
    def combiner(self) -> Combiner:
        """Side by side."""
        return Collect()

    def init(self, round: Round) -> Any:
        """Nothing is made."""
        return {"made": {}, "done": ""}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """To a step: `{step before it: table}`. To all: the result so far.

        Raises:
            ConfigError: a step is asked before those that it waits for.
        """
        made = state["made"]
        if not to:
            ends = {step: made[step] for step in self._ends(made)}
            return Contribution("table", next(iter(ends.values())) if len(ends) == 1 else ends or self.table)
        first = () if self.before is None else self.before.get(to, ())
        given = made if self.before is None else {step: made[step] for step in first if step in made}
        if len(given) < len(first) and to not in _lines(state["done"]):
            raise ConfigError(
                f"'{to}' must wait for {', '.join(first)}. Got {', '.join(given) or 'nothing'} so far. "
                "Use select=ready(...) with the same steps."
            )
        return Contribution("table", given or {START: self.table})

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """Anything finite."""
        return Spec(Leaf(), kind="table")

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Keep what was made, and of the earlier only what somebody still waits for.

        Raises:
            ConfigError: a step was done twice.
        """
        new: Any = combined.value
        done = _lines(state["done"])
        if self.before is None:
            return {"made": dict(new) or state["made"], "done": ""}
        for step in new:
            if step in done:
                raise ConfigError(f"Each step must be done once. '{step}' was done before. Use select=ready(...).")
        done = [*done, *new]
        made = {**state["made"], **new}
        kept = {s: t for s, t in made.items() if s in self._ends(made) or any(a not in done for a in self._after(s))}
        return {"made": kept, "done": "\n".join(done)}

    def _after(self, step: str) -> list[str]:
        return [later for later, first in (self.before or {}).items() if step in first]

    def _ends(self, made: Mapping[str, Any]) -> list[str]:
        """Steps whose table nobody has used yet, in the order in which they were given."""
        used = {first for step in made for first in (self.before or {}).get(step, ())}
        return [step for step in (self.before or made) if step in made and step not in used]


@dataclass(frozen=True)
class Agent:
    """Does one step: a table to a table.

    Its score is the rows of what it is given.

    Attributes:
        work: is given the table of the step before it, or `{step: table}` where there are several, and gives its own.
            For data frames use `framed(work)`.
        measure: what was given and what was made to `{name: number}`; each is a metric `<name>.<agent>`, by which
            `one_of` chooses. What hangs on the clock makes a run that is done again differ in its ledger.

    Raises:
        ConfigError: either is no function.

    Example:
        >>> import comity as co
        >>> co.Agent(lambda text: text.strip()).work("  clean  ")
        'clean'
    """

    work: Callable[[Any], Any]
    measure: Callable[[Any, Any], Mapping[str, float]] | None = None

    def __post_init__(self) -> None:
        for name in ("work", "measure"):
            f = getattr(self, name)
            if not callable(f) and not (f is None and name == "measure"):
                raise refusal(name, "Agent", "a function", f)

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """What it made of what it was given; or the rows of that, when asked for scores."""
        told: Any = shared.value
        given, came = alone(told), sum(map(_rows, told.values()))
        if shared.kind == "score":
            return Contribution("score", None, metrics={"rows": (came, 1.0)}), local
        made = self.work(given)
        _travels("What the 'work' of Agent makes", made)
        measured = {} if self.measure is None else _numbers(self.measure(given, made))
        facts = {"rows_in": came, "rows": _rows(made), "digest_in": _digest(given), "digest": _digest(made)}
        metrics = {f"{name}.{round.me}": (float(x), 1.0) for name, x in {**measured, **facts}.items()}
        return Contribution("table", made, metrics=metrics), local


def carry_out(
    journal: Journal, relay: Relay, agents: Mapping[str, Agent], *, run: str, who: str, lease: float = 60.0
) -> dict[str, Any]:
    """Do the steps of a relay together with other workers: each step counts once, whoever is killed.

    Every worker process calls this with the same relay, its own name and a journal in the same place. Steps are
    claimed under a lease and committed once: a step may be begun several times, its result is accepted once, and all
    workers go on with the accepted one.

    Args:
        journal: such as `ledger.journal.SqlJournal`.
        relay: with `before`.
        agents: step to its agent.
        run: names this pass; steps that were committed under it are not done again.
        who: names this worker.
        lease: seconds after which a step is taken from a worker that is silent; longer than a step takes.

    Returns:
        Step to what it made, of the last steps; the same for every worker.

    Raises:
        ConfigError: no `before`, a step without an agent, or something else that does not fit.
        LedgerError: the run was begun with other steps.
    """
    part("journal", "carry_out", journal, ("offer()", "claim()", "commit()", "read()"), "a SqlJournal")
    part("relay", "carry_out", relay, ("table", "share()", "update()"), "co.Relay(table, before)")
    if not isinstance(agents, Mapping) or not all(isinstance(agent, Agent) for agent in agents.values()):
        raise refusal("agents", "carry_out", "{step: co.Agent(...)}", agents)
    text("run", "carry_out", run)
    text("who", "carry_out", who)
    lease = float(number("lease", "carry_out", lease, "(0, inf)"))
    before = relay.before
    if before is None or not before.keys() <= agents.keys():
        need = "`before`" if before is None else ", ".join(sorted(before.keys() - agents.keys()))
        raise ConfigError(f"Every step must be known and have an agent. Got none for {need}. Use ready(...).before.")
    done: dict[str, Any] = {}
    while len(done) < len(before):
        found = len(done)
        for step in [s for s in before if s not in done and all(first in done for first in before[s])]:
            given = alone({first: done[first] for first in before[step]} or {START: relay.table})
            data = _once(journal, (run, 0, 0, "step", step), partial(agents[step].work, given), (who, lease))
            if data is not None:
                done[step] = decode_tree(data)
        if len(done) == found:
            time.sleep(PAUSE)
    return {step: done[step] for step in relay._ends(done)}


def _travels(what: str, table: Any) -> None:
    try:
        size(Contribution("table", table))
    except (ComityError, TypeError, ValueError) as error:
        raise ConfigError(f"{what} must travel, frames by to_arrow or framed: {error}") from error


def _are_names(before: Any) -> bool:
    several = isinstance(before, Sequence) and not isinstance(before, str | bytes)
    return several and all(isinstance(step, str) for step in before)


def _numbers(measured: Any) -> dict[str, float]:
    if not isinstance(measured, Mapping) or not all(isinstance(n, str) and is_number(x) for n, x in measured.items()):
        raise refusal("measure", "Agent", "a function that gives {name: number}", measured)
    return {name: float(x) for name, x in measured.items()}


def _once(journal: Journal, key: Any, work: Callable[[], Any], hold: tuple[str, float]) -> bytes | None:
    """The committed bytes of a step, done here if it is free; None while somebody else has it."""
    if (found := journal.read(key)) is not None:
        return found
    journal.offer(key, {"step": key[-1]})
    token = journal.claim(key, *hold)
    if token is None:
        return None
    journal.commit(key, token, encode_tree(work()))
    return journal.read(key)


def alone(given: Any) -> Any:
    """The one table, or all by name."""
    return next(iter(given.values())) if len(given) == 1 else given


def _rows(table: Any) -> float:
    """Rows of a table: as it says itself, else of its first array; 1 of anything else."""
    if isinstance(table, Mapping) and isinstance(table.get("rows"), int):
        return float(table["rows"])
    sizes = [len(x) for _, x in leaves(table) if isinstance(x, np.ndarray) and x.ndim]
    return float(sizes[0]) if sizes else 1.0


def _digest(table: Any) -> float:
    return float(int(sha256(encode_tree(table)).hexdigest()[:12], 16))


def _lines(text: str) -> list[str]:
    return text.split("\n") if text else []
