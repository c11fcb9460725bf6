"""The laws of methods and their participants."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from comity.core.checks import part, shown, whole
from comity.core.contribution import Contribution
from comity.core.errors import ConfigError, ContributionError
from comity.core.parts import Method, Participant
from comity.core.round import Round
from comity.core.spec import Leaf, Spec, check
from comity.core.tree import frozen, tree_map
from comity.core.wire import decode_tree, encode, encode_tree
from comity.testing.common import bits, broken, said, summed, title
from comity.testing.secret import fixed_secret

_SCORE = Spec(Leaf(), kind="score")


Members = Mapping[str, Participant] | Callable[[], Mapping[str, Participant]]


def check_method(method: Method, participants: Members, *, rounds: int = 3, seed: int = 0) -> None:
    """Hold a method and its participants to their laws.

    The state is a Tree that survives the wire and works as well after it; `update` does not change the
    old state; every contribution fits `expect`; a participant changes neither what is shared nor the
    drawer that it is given; a score has the kind "score" and metrics; one seed gives the same bits twice. One that
    `tells` all the same shares and expects the same, whoever is asked.

    Args:
        method: what to check.
        participants: name to participant, or a function that makes such a mapping (it is called for each
            of two runs, which shows whether participants keep anything that they should not).
        rounds: how many rounds to run, >= 1.
        seed: of all public randomness.

    Raises:
        AssertionError: names the part, the law and what was found.

    Example:
        >>> import numpy as np, comity as co
        >>> model = co.Linear(inputs=2, classes=2)
        >>> data = np.eye(2, dtype="float32"), np.array([0, 1])
        >>> co.testing.check_method(co.FedAvg(model), {"a": co.Trainer(model, data), "b": co.Trainer(model, data)})
    """
    part(
        "method", "check_method", method, ("combiner", "init()", "share()", "expect()", "update()"), "co.FedAvg(model)"
    )
    rounds = whole("rounds", "check_method", rounds, 1)
    make = participants if callable(participants) else lambda: participants
    runs = [_Walk(method, make(), seed).through(rounds) for _ in range(2)]
    if runs[0] != runs[1]:
        broken(method, "repeat", "The same seed must give the same bits.")


class _Walk:
    """A few rounds by hand: no engine, no ledger, every step looked at."""

    def __init__(self, method: Method, members: Mapping[str, Participant], seed: int) -> None:
        if not members or not isinstance(members, Mapping):
            got = shown(members) if members else "none"
            raise ConfigError(f"A method needs participants to be checked with. Got {got}. Give {{name: participant}}.")
        self.method, self.members = method, members
        n = len(members)
        self.base = Round("check", seed, roster=n, asked=n, expected=float(n))
        self.locals: dict[str, Any] = {name: {} for name in members}

    def through(self, rounds: int) -> bytes:
        m = self.method
        state, memory = said(m, "init", lambda: m.init(self.base)), m.combiner.init()
        for number in range(rounds):
            turn = replace(self.base, number=number)
            lifted = [m.combiner.lift(self._one(name, state, turn)) for name in self.members]
            gathered = summed(lifted) if m.combiner.needs == "sum" else lifted
            here = replace(turn, answered=len(lifted))
            combined, memory = m.combiner.lower(gathered, memory, here)
            state = self._updated(state, combined, here)
        for name in self.members:
            self._score(name, state, replace(self.base, number=rounds))
        return encode_tree(state)

    def _tells(self, shared: Contribution, state: Any, turn: Round) -> None:
        """Does one that tells all the same do so?"""
        m, other = self.method, next(iter(self.members))
        if getattr(m, "tells", "each") != "all":
            return
        if bits(m.share(state, other, turn)) != bits(shared) or m.expect(state, other, turn) != m.expect(
            state, "nobody", turn
        ):
            broken(m, "tells", '`tells = "all"`: it must share the same with everybody, and expect the same.')

    def _one(self, name: str, state: Any, turn: Round) -> Contribution:
        who, here = self.members[name], replace(turn, me=name)
        shared = self.method.share(state, name, turn)
        self._tells(shared, state, turn)
        c: Contribution
        c, local = self._asked(name, replace(shared, value=frozen(shared.value)), here)
        self.locals[name] = said(who, "drawer", lambda: decode_tree(encode_tree(local)))
        try:
            check(c, self.method.expect(state, name, turn))
        except ContributionError as error:
            broken(who, "expect", f"Its contribution must fit what {title(self.method)} expects. {error}")
        said(who, "wire", lambda: encode(c))
        if c.sender not in ("", name):
            broken(who, "sender", f"A contribution's sender must be '' or '{name}'. Got '{c.sender}'.")
        return replace(c, sender=name)

    def _asked(self, name: str, shared: Contribution, here: Round) -> Any:
        who, local = self.members[name], self.locals[name]
        before = bits(shared), encode_tree(local)
        given = tree_map(lambda x: x, local)
        out = said(who, "contribute", lambda: who.contribute(shared, given, here, fixed_secret().side(name)))
        if (bits(shared), encode_tree(local)) != before:
            broken(who, "inputs", "`contribute` must change neither what is shared nor the drawer that it is given.")
        return out

    def _updated(self, state: Any, combined: Contribution, turn: Round) -> Any:
        m = self.method
        held = said(m, "state", lambda: encode_tree(state))
        after = said(m, "update", lambda: m.update(state, combined, turn))
        if encode_tree(state) != held:
            broken(m, "inputs", "`update` must not change the old state.")
        stored = said(m, "state", lambda: encode_tree(m.update(decode_tree(held), combined, turn)))
        if stored != said(m, "state", lambda: encode_tree(after)):
            broken(m, "state", "A state that was kept on disk must work like the state itself.")
        return after

    def _score(self, name: str, state: Any, turn: Round) -> None:
        who = self.members[name]
        shared = self.method.share(state, name, turn)
        asked = replace(shared, kind="score", value=frozen(shared.value))
        c, _ = self._asked(name, asked, replace(turn, me=name))
        if c.kind != "score" or not c.metrics:
            broken(who, "score", f"Asked for a score, it must answer with metrics. Got kind '{c.kind}'.")
        try:
            check(c, _SCORE)
        except ContributionError as error:
            broken(who, "score", str(error))
