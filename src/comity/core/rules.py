"""The parts put together, and the rules that must hold before anything moves.

*Sum or each?* is the one question: no rule asks a part for its type, only for what it says of itself.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from comity.core.contribution import RANK
from comity.core.errors import ConfigError
from comity.core.parts import Channel, Combiner, Method, Select, Transform


@dataclass(frozen=True)
class Parts:
    """Everything that decides how contributions are asked for, protected, opened and combined.

    Attributes:
        method: what is learnt.
        combiner: many to one.
        transforms: on the way up in this order, undone in reverse.
        channel: how contributions become visible.
        select: who is asked and who hears whom.
        quorum: the share of the cohort that must be accepted for a round to close, in [0, 1].
        retries: how often a round is tried again before the run stops.
        deadline: seconds a cohort has; None waits for everybody.
        late: how many rounds old an answer may be and still count; 0: what comes late is lost.
        staleness: a of (1 + rounds late)^-a, by which a late change is multiplied.
    """

    method: Method
    combiner: Combiner
    transforms: tuple[Transform, ...]
    channel: Channel
    select: Select
    quorum: float = 0.5
    retries: int = 2
    deadline: float | None = None
    late: int = 0
    staleness: float = 0.5

    def needed(self, asked: int) -> int:
        """Accepted contributions that close a round in which so many were asked."""
        return math.ceil(self.quorum * asked)

    @property
    def hides_draw(self) -> bool:
        """Is it credited to privacy that nobody knows who is drawn? Then how many were drawn decides nothing.

        It is for noise that is added at the hub to a sum that is divided by what is expected.
        """
        drawn = getattr(self.select, "sampling", "none") != "none"
        central = any(getattr(t, "central", False) and hasattr(t, "spend") for t in self.transforms)
        return drawn and central and getattr(self.combiner, "denominator", "") == "expected"


Rule = Callable[[Parts], str | None]


def check(parts: Parts) -> None:
    """Refuse parts that do not fit together.

    Raises:
        ConfigError: names the parts, why they do not fit and what to use instead.
    """
    for broken in refusals(parts):
        raise ConfigError(broken)


def refusals(parts: Parts) -> Iterator[str]:
    """What is wrong with these parts, rule by rule."""
    for rule in RULES:
        if said := rule(parts):
            yield said


def _name(part: object) -> str:
    return type(part).__name__


def _numbers(p: Parts) -> str | None:
    if not (isinstance(p.quorum, float | int) and 0 <= p.quorum <= 1):
        return f"The 'quorum' must be a share from 0 to 1. Got {p.quorum!r}. Use 1.0 to ask for everybody."
    if not (isinstance(p.retries, int) and p.retries >= 0):
        return f"The 'retries' must be an int >= 0. Got {p.retries!r}."
    if p.deadline is not None and not (isinstance(p.deadline, float | int) and p.deadline > 0):
        return f"The 'deadline' must be seconds > 0, or None to wait for everybody. Got {p.deadline!r}."
    return None


def _combiner_sees_enough(p: Parts) -> str | None:
    if RANK[p.combiner.needs] <= RANK[p.channel.reveals]:
        return None
    seen = "only their sum" if p.channel.reveals == "sum" else "sums of groups"
    if p.combiner.needs == "each":
        return (
            f"{_name(p.combiner)} needs each contribution; {_name(p.channel)} reveals {seen}. "
            "Use combine=Mean(), or channel=Plain() if the hub may see each one."
        )
    return (
        f"{_name(p.combiner)} needs each contribution; {_name(p.channel)} reveals only their sum. "
        f"Use {_name(p.channel)}(groups=8): {_name(p.combiner)} then sees sums of 8."
    )


def _transforms_see_enough(p: Parts) -> str | None:
    for t in p.transforms:
        if t.decodes == "each" and p.channel.reveals != "each":
            return (
                f"{_name(t)} is decoded one by one; {_name(p.channel)} reveals only the sum. "
                f"Leave {_name(t)} out, or use channel=Plain() if the hub may see each one."
            )
    return None


def _sum_wants_a_summing_combiner(p: Parts) -> str | None:
    for t in p.transforms:
        apart = getattr(t, "integers", False) and not hasattr(t, "spend") and p.combiner.needs == "groups"
        if t.decodes == "sum" and p.combiner.needs != "sum" and not apart:
            return f"{_name(t)} acts on the sum; {_name(p.combiner)} makes no sum. Use combine=Mean()."
    return None


def _sum_before_each(p: Parts) -> str | None:
    last_each = None
    for t in p.transforms:
        if t.decodes == "each":
            last_each = t
        elif last_each is not None:
            return f"{_name(last_each)} is decoded one by one, {_name(t)} on the sum. Put {_name(t)} first."
    return None


def _bound_holds(p: Parts) -> str | None:
    bounded = None
    for t in p.transforms:
        if bounded is not None and not t.contracts:
            return f"{_name(t)} may raise the norm after {_name(bounded)} has bounded it. {_instead(t, bounded)}"
        if hasattr(t, "bounds"):
            bounded = t
    return None


def _instead(t: Transform, bounded: Transform) -> str:
    """What to do where a bound would not hold: a transform on the sum cannot come after one decoded one by one."""
    if t.decodes == "each" and bounded.decodes == "sum":
        return f"Leave {_name(t)} out, or use one that never raises the norm."
    return f"Put {_name(bounded)} after {_name(t)}, or use a {_name(t)} that never raises the norm."


def _ring_wants_integers(p: Parts) -> str | None:
    if not getattr(p.channel, "ring", False):
        return None
    if getattr(p.combiner, "denominator", None) == "weight" and not getattr(p.combiner, "cap", math.inf) < math.inf:
        use = "Use Mean(uniform=True), or Mean(cap=...)."
        return f"{_name(p.channel)} adds in a ring: a weight without a cap could overflow it. {use}"
    if not (p.transforms and getattr(p.transforms[-1], "integers", False)):
        return f"{_name(p.channel)} adds integers in a ring. Put FixedPoint(bound=...) last among the transforms."
    return None


def _integers_want_a_ring(p: Parts) -> str | None:
    for t in p.transforms:
        if getattr(t, "integers", False) and not getattr(p.channel, "ring", False):
            return f"{_name(t)} makes integers for a ring; {_name(p.channel)} is none. Leave it out, or use SecAgg()."
    return None


def _integers_come_last(p: Parts) -> str | None:
    for t, after in zip(p.transforms, p.transforms[1:], strict=False):
        if getattr(t, "integers", False):
            return f"{_name(t)} makes integers, and nothing may change them any more. Put it after {_name(after)}."
    return None


def _shares_of_noise_make_one(p: Parts) -> str | None:
    for t in p.transforms:
        if getattr(t, "hides", "") == "sum" and p.channel.reveals != "sum":
            return f"{_name(t)} puts a share of the noise into each; a group has too little. Use one sum of all."
        drops, name = getattr(t, "drops", 0.0), _name(p.channel)
        least = getattr(p.channel, "threshold", p.quorum)
        if hasattr(t, "drops") and least < 1 - drops - 1e-9:
            if not hasattr(p.channel, "threshold"):
                return (
                    f"{_name(t)} has noise enough where at most {drops:.0%} drop out; {name} opens a sum of the "
                    f"quorum, {least:.0%}. Use quorum={1 - drops:g}, or {_name(t)}(drops={1 - least:.2g})."
                )
            return (
                f"{_name(t)} has noise enough where at most {drops:.0%} drop out; {name} opens a sum of {least:.0%}. "
                f"Use {name}(threshold={1 - drops:g}), or {_name(t)}(drops={1 - least:.2g})."
            )
    return None


def _ring_wants_one_hub(p: Parts) -> str | None:
    if getattr(p.channel, "ring", False) and getattr(p.select, "peers", False):
        return f"{_name(p.channel)} adds in a ring of one cohort; here each peer is a hub. Use channel=Plain()."
    return None


def _noise_wants_a_public_denominator(p: Parts) -> str | None:
    for t in p.transforms:
        if hasattr(t, "spend") and getattr(p.combiner, "denominator", "weight") == "weight":
            return f"{_name(t)} with weights by data size: the total weight would be private. Use Mean(public=True)."
    return None


def _noise_at_hubs_wants_one_hub(p: Parts) -> str | None:
    for t in p.transforms:
        if hasattr(t, "spend") and hasattr(t, "bounds") and getattr(p.select, "peers", False):
            return (
                f"{_name(t)} noises one sum; here each peer is a hub, and each hub releases what one peer sends again. "
                "Use PrivateTrainer or Laplace, which add noise before anything is sent, or select=everyone()."
            )
    return None


def _gossip_sends_models(p: Parts) -> str | None:
    name, send = _name(p.method), getattr(p.method, "send", "model")
    if getattr(p.select, "peers", False) and send in ("delta", "gradient"):
        use = name if send == "delta" else "FedAvg"
        return f'{name} sends {send}s; peers mix whole models. Use {use}(..., send="model").'
    return None


def _late_answers_age(p: Parts) -> str | None:
    if not p.late:
        return None
    drop = 'late="drop"'
    if not getattr(p.channel, "transparent", False):
        return (
            f"{_name(p.channel)} seals for one cohort; what comes after the others can be in no sum of theirs. "
            f"Use channel=Plain() if the hub may see each one, or {drop}."
        )
    for t in p.transforms:
        if t.decodes != "each":
            said = f"{_name(t)} acts on the sum of one round; a late answer belongs to another."
            return f"{said} Leave it out, or use {drop}."
    if getattr(p.select, "peers", False) or getattr(p.select, "quorum", 0.0):
        return f"{_name(p.select)} needs everybody's answer before it goes on: nobody may be late. Use {drop}."
    if not getattr(p.method, "ages", False):
        return (
            f"{_name(p.method)} takes no change that could be added to a later state. "
            f"Use FedAvg(model), which sends deltas, or {drop}."
        )
    return None


RULES: tuple[Rule, ...] = (
    _numbers,
    _combiner_sees_enough,
    _transforms_see_enough,
    _sum_wants_a_summing_combiner,
    _sum_before_each,
    _bound_holds,
    _ring_wants_integers,
    _ring_wants_one_hub,
    _integers_want_a_ring,
    _integers_come_last,
    _shares_of_noise_make_one,
    _noise_wants_a_public_denominator,
    _noise_at_hubs_wants_one_hub,
    _gossip_sends_models,
    _late_answers_age,
)
