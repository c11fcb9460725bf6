"""Questions to one cohort, of which only sums are opened."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comity.collaboration import Collaboration
from comity.combine.collect import Collect
from comity.compress.fixedpoint import FixedPoint
from comity.core.checks import refusal
from comity.core.contribution import Array
from comity.core.errors import ChannelError, ConfigError, TooFewParticipants
from comity.core.parts import Channel
from comity.core.rng import digest
from comity.data.schema import Schema
from comity.methods.query import Query
from comity.secure_stats.party import Teller, Total


class Asking:
    """Questions to one and the same cohort, of which only sums are opened, and what they cost."""

    def __init__(self, tables: Mapping[str, Any], channel: Channel, seed: int) -> None:
        """Args: the parties' tables, a channel and the seed."""
        self.channel, self.seed, self.up, self.down = _checked(channel, len(tables)), seed, 0, 0
        self.tellers = {name: Teller(table, digest(seed, "salt")) for name, table in tables.items()}
        self._run, self._asked, self._fixed = secrets.token_hex(16), 0, False

    def names(self) -> list[str]:
        """The names of everybody's columns: told openly, and nothing else is."""
        query = Query({"step": "names", "turn": self._turn()}, combiner=Collect())
        run = Collaboration(query, self.tellers, evaluate=False, seed=self.seed).run(1)
        said = run.shared
        self._count(run)
        self.tellers = {name: self.tellers[name] for name in self.tellers if name in said}
        return sorted({name for own in said.values() for name in own})

    def sum(self, question: Mapping[str, Any], schema: Schema | None = None) -> Any:
        """The sum of the answers, {"value": a Tree of int64, "metrics": name to sum}.

        The first may lack parties that dropped out; later ones are opened only if everybody who answered it answers.

        Raises:
            TooFewParticipants: somebody dropped out later on, or too few answered.
        """
        more = {} if schema is None else {"schema": schema.to_tree()}
        names = tuple(f"{i}.{what}" for i in range(len(schema.numbers)) for what in ("sum", "square")) if schema else ()
        metrics = names if question["step"] == "sums" else ()
        channel = _complete(self.channel) if self._fixed else self.channel
        fed = Collaboration(
            Total({**question, **more, "turn": self._turn()}),
            self.tellers,
            transforms=(FixedPoint(1.0, metrics=metrics),) if getattr(channel, "ring", False) else (),
            channel=channel,
            evaluate=False,
            quorum=1.0 if self._fixed else 0.5,
            seed=self.seed,
        )
        try:
            run = fed.run(1)
        except TooFewParticipants as error:
            if not self._fixed:
                raise
            raise TooFewParticipants(
                f"The same {len(self.tellers)} parties must answer every question of stats, as sums over others would "
                f"tell of the one that is missing. {error}"
            ) from None
        self._count(run)
        self._keep(run)
        return run.state

    def counts(self, edges: Mapping[str, Array], schema: Schema) -> Mapping[str, Array]:
        """How many values of all parties lie below, in and above bins."""
        counts: Mapping[str, Array] = self.sum({"step": "counts", "edges": edges}, schema)["value"]
        return counts

    def _turn(self) -> str:
        self._asked += 1
        return f"{self._run}.{self._asked}"

    def _count(self, run: Any) -> None:
        self.up, self.down = self.up + run.ledger.bytes_up, self.down + run.ledger.bytes_down

    def _keep(self, run: Any) -> None:
        """Who is in the first sum is in all that follow."""
        facts = next(e.facts for e in reversed(run.ledger) if e.kind == "round")
        here = [n for n, yes in zip(facts["asked"].split("\n"), facts["accepted"].tolist(), strict=True) if yes]
        if round(run.state["parties"]) != len(here):
            raise ChannelError(f"A sum must be of those who answered, {len(here)}. Got {run.state['parties']:g}.")
        self.tellers = {name: self.tellers[name] for name in here}
        self._fixed = True


def _checked(channel: Any, parties: int) -> Any:
    """A channel that adds whole numbers exactly, or shows each, and has parties enough."""
    name = type(channel).__name__
    if channel.reveals == "groups":
        raise refusal("channel", "stats", "one that reveals one sum", f"{name}(groups=...)", "Leave 'groups' out.")
    if channel.reveals == "sum" and not getattr(channel, "ring", False):
        raise refusal("channel", "stats", "one that adds whole numbers exactly", name, "Use co.SecAgg().")
    least = getattr(channel, "minimum", 3) if channel.reveals == "sum" else 1
    if parties < least:
        raise ConfigError(
            f"{name} hides each party in a sum of at least {least}; of fewer, a sum less one's own is somebody else's. "
            f"Got {parties}. Ask more parties, or use channel=None where the hub may see each."
        )
    return channel


def _complete(channel: Any) -> Any:
    """The channel, such that it opens nothing unless all are there; one without a threshold knows it by the quorum."""
    return replace(channel, threshold=1.0) if hasattr(channel, "threshold") else channel
