"""Scores of what is shared: asked one by one where the hub may see each, else sealed and opened like a contribution."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comity.core.contribution import Contribution
from comity.core.errors import ChannelError, ContributionError
from comity.core.round import Round
from comity.core.spec import Leaf, Spec, check
from comity.core.tree import frozen
from comity.core.wire import as_tree
from comity.loop.asking import Asking
from comity.loop.attempt import packed
from comity.loop.fold import Fold
from comity.loop.hub import Heard, HubState, add_metrics

SCORE = Spec(Leaf(), kind="score")


class Scoring:
    """Asks for scores."""

    def __init__(self, asking: Asking) -> None:
        """Args: parts and engine."""
        self.asking, self.parts = asking, asking.parts

    def of(self, hub: str, homes: Mapping[str, str], states: Mapping[str, HubState], turn: Round) -> Heard:
        """What one hub hears of members, each of whom is told what its home shares.

        Args:
            hub: who asks.
            homes: who is asked, and whose state each is told.
            states: by hub.
            turn: the round.
        """
        seen = self.parts.channel.reveals == "each"
        where = replace(turn, hub=hub if seen else f"{hub} (scores)", asked=len(homes))
        heard = Heard(where.hub, list(homes), turn=(turn.number, turn.attempt))

        packs = any(hasattr(t, "pack") for t in self.parts.transforms)

        def body(to: str) -> Contribution:
            state, home = states.get(homes[to]) or next(iter(states.values())), replace(where, hub=homes[to])
            shared = replace(self.parts.method.share(state.method, to, home), kind="score")
            return packed(self.parts, shared, state, to, home) if packs else shared

        def question(to: str) -> Contribution:
            shared = body(to)
            shared = replace(shared, value=frozen(shared.value))
            return Contribution("question", {"shared": as_tree(shared), "views": {}}) if packs else shared

        if seen:
            self._each(heard, where, question)
        else:
            try:
                self._sealed(heard, where, body)
            except (ChannelError, ContributionError) as error:
                heard.failed, heard.accepted = str(error), set()
        return replace(heard, hub=hub)

    def _each(self, heard: Heard, where: Round, body: Any) -> None:
        place, fold = {who: i for i, who in enumerate(heard.asked)}, Fold(len(heard.asked))
        for answer in self.asking.ask(where, heard.asked, heard, "score", body):
            if not self.asking.admitted(answer, heard, "score"):
                continue
            try:
                check(answer.body, SCORE)
            except ContributionError as error:
                heard.refused.append((answer.sender, f"{answer.sender}: {error}"))
                continue
            heard.accepted.add(answer.sender)
            fold.add(place[answer.sender], Contribution("score", {}, metrics=answer.body.metrics))
        total = fold.total()
        heard.metrics = total.metrics if total else {}

    def _sealed(self, heard: Heard, where: Round, body: Any) -> None:
        """By the channel: the hub sees sums of scores and no party's own.

        Its keys and masks are those of a hub of another name, so that none of them serves twice in a round.
        """
        ask, until = self.asking.phases(where, heard), self.asking.until(heard.asked)
        session = self.parts.channel.setup(heard.asked, ask, where)

        def question(to: str) -> Contribution:
            told = body(to)
            told = replace(told, value=frozen(told.value))
            return Contribution("question", {"shared": as_tree(told), "views": {where.hub: session.view(to)}})

        answers = self.asking.ask(where, heard.asked, heard, "score", question)
        total: dict[str, tuple[float, float]] = {}
        opened = self.parts.channel.open(self.asking.sealed(answers, heard, "score"), session, ask, until)
        for c in opened:
            add_metrics(total, c.metrics)
        self.asking.in_sums(session, heard)
        heard.metrics = {name: pair for name, pair in total.items() if pair[1]}
