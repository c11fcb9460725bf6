"""The answer in plain words, which respects the uncertainty."""

from collections.abc import Mapping, Sequence
from typing import Any

from comity.comparison.intervals import Interval
from comity.report.numbers import metric_name, percent, plural, points, word

HARMFUL = 0.95
"""A party harms the others if their loss without it is at most this share of that with it."""
MIN_OTHERS = 2
MOST = 0.75
"""The share of the others that must be better off without it."""
SLIGHT = 0.005
"""A mean of less than half a point, though told from noise, is no reason to join or not to: with enough rows
every difference can be told from noise."""
NOUNS = frozenset(
    {"bank", "branch", "centre", "center", "city", "clinic", "company", "country", "employer", "farm", "hospital"}
    | {"lab", "office", "party", "phone", "practice", "region", "school", "shop", "site", "state", "store", "team"}
    | {"user", "ward", "writer"}
)


def noun(party: str | None) -> str:
    """What to call a party: the column's name where that is a word for one."""
    name = (party or "").strip().lower()
    return name if name in NOUNS else "party"


def judged(gain: Interval | None) -> str:
    """ "gains", "loses", "within noise", or "undefined" where the score or its interval is."""
    if gain is None or gain.low is None or gain.high is None:
        return "undefined"
    return "gains" if gain.low > 0 else "loses" if gain.high < 0 else "within noise"


def verdict(gains: Mapping[str, Interval | None], mean: Interval | None, *, metric: str, called: str) -> str:
    """One or two sentences on who gains, who loses, and for whom one cannot tell.

    Args:
        gains: party to its gain from joining, in units of the metric.
        mean: of all parties' gains.
        metric: the key of the headline metric.
        called: the noun for a party.
    """
    by_word: dict[str, list[str]] = {"gains": [], "loses": [], "slight": [], "within noise": [], "undefined": []}
    for party, gain in gains.items():
        by_word[_weighed(gain)].append(party)
    named = metric_name(metric)
    if judged(mean) == "undefined":
        seen = "The gain" if mean is None else f"A gain of {points(mean.to_json())} points of {named}"
        return f"It cannot be told. {seen} has no interval: use more repeats, or more rows."
    if not by_word["gains"] and not by_word["loses"]:
        return " ".join([_together(mean, named, by_word, called), *_untold(by_word)])
    said = [_headline(by_word, len(gains), called)]
    if by_word["gains"]:
        best = max(by_word["gains"], key=lambda p: gains[p].mean)  # type: ignore[union-attr]
        most = "most, " if len(by_word["gains"]) > 1 else ""
        said.append(f"{best} gains {most}{_points(gains[best])} points of {named}.")
    for party in sorted(by_word["loses"], key=lambda p: gains[p].mean):  # type: ignore[union-attr]
        said.append(f"{party} loses {_points(gains[party], flip=True)} points of {named}.")
    if by_word["within noise"]:
        said.append(f"For {_list(by_word['within noise'])} the difference is within noise.")
    return " ".join([*said, *_small(by_word), *_untold(by_word)])


def costs(joint: Mapping[str, Interval | None], gains: Mapping[str, Interval | None], metric: str) -> list[str]:
    """A sentence for each party that the joint model as it is would cost something, though not its best way of joining.

    Args:
        joint: party to what the joint model gains over its own, in units of the metric.
        gains: party to what its best way of joining gains.
        metric: the key of the headline metric.
    """
    hit = [p for p in joint if _weighed(joint[p]) == "loses" and judged(gains[p]) != "loses"]
    return [
        f"The joint model as it is would cost {p} {_points(joint[p], flip=True)} points of {metric_name(metric)}; "
        "its best way of joining does not."
        for p in hit
    ]


def harms(influence: Mapping[str, Mapping[str, Any]], joint: Mapping[str, Interval | None]) -> list[str]:
    """A sentence for each party without which the joint model fits most others better, by a twentieth or more.

    On few rows that happens by chance on one split, so a party is named only if over all splits the joint
    model is beyond noise worse at it than its own: what it teaches and what the others teach do not agree.

    Args:
        influence: party to what becomes of the others without it, as in the results.
        joint: party to what the joint model gains over its own, in units of the metric.
    """
    said = []
    for party, one in influence.items():
        if _weighed(joint.get(party)) != "loses":
            continue
        with_, without = one["loss"]["with"], one["loss"]["without"]
        if one["others"] >= MIN_OTHERS and one["better"] >= MOST * one["others"] and without <= HARMFUL * with_:
            whom = "all others" if one["better"] == one["others"] else "most others"
            said.append(
                f"Without {party} the joint model fits {whom} better (the others' loss falls by "
                f"{percent(1 - without / with_)}): look at its data."
            )
    return said


def _weighed(gain: Interval | None) -> str:
    """As `judged`; "slight" where it is told from noise, and next to nothing."""
    found = judged(gain)
    return "slight" if gain is not None and found in ("gains", "loses") and abs(gain.mean) < SLIGHT else found


def _small(by_word: Mapping[str, Sequence[str]]) -> list[str]:
    """For whom it makes no difference worth the name."""
    return [f"For {_list(by_word['slight'])} the difference is less than half a point."] if by_word["slight"] else []


def _untold(by_word: Mapping[str, Sequence[str]]) -> list[str]:
    """Of whom nothing can be said."""
    return [f"For {_list(by_word['undefined'])} it cannot be told."] if by_word["undefined"] else []


def _headline(by_word: Mapping[str, Sequence[str]], n: int, called: str) -> str:
    winners, losers = len(by_word["gains"]), len(by_word["loses"])
    if winners == n:
        return f"Worth joining for {_all(n)} {plural(called, n)}."
    if winners:
        return f"Worth joining for {word(winners)} of {word(n)} {plural(called, n)}."
    return f"Joining does not pay: {word(losers)} of {word(n)} {plural(called, n)} would lose, none gains."


def _all(n: int) -> str:
    return "both" if n == 2 else f"all {word(n)}"


def _together(mean: Interval | None, named: str, by_word: Mapping[str, Sequence[str]], called: str) -> str:
    """No single party stands out of the noise: what can be said of all together."""
    assert mean is not None
    n = sum(map(len, by_word.values()))
    told = n - len(by_word["undefined"])
    all_ = f"{word(n)} {plural(called, n)}"
    whom = f"{_all(n)} {plural(called, n)}" if told == n else f"{word(told)} of {all_}"
    alone = (_small(by_word) or [f"For no single {called} can it be told from noise."])[0]
    if _weighed(mean) == "slight":
        return f"No gain from joining that matters. The mean is {_points(mean)} points of {named}. {alone}"
    if judged(mean) == "gains":
        return f"Worth joining for the {all_} together. The mean gain is {_points(mean)} points of {named}. {alone}"
    if judged(mean) == "loses":
        lost = _points(mean, flip=True)
        return f"Joining does not pay for the {all_} together. The mean loss is {lost} points of {named}. {alone}"
    noise = "within noise or less than half a point" if by_word["slight"] else "within noise"
    return (
        f"No gain from joining that these data can show. For {whom} the difference is {noise}; "
        f"the mean is {_points(mean)} points of {named}."
    )


def _points(gain: Interval | None, *, flip: bool = False) -> str:
    assert gain is not None
    if not flip:
        return points(gain.to_json())
    low, high = gain.low, gain.high
    turned = Interval(-gain.mean, None if high is None else -high, None if low is None else -low)
    return points(turned.to_json()).lstrip("+")


def _list(names: Sequence[str]) -> str:
    shown = list(names[:4]) + ([f"{len(names) - 4} more"] if len(names) > 4 else [])
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]
