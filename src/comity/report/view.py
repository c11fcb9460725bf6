"""What page and terminal both say about a comparison, taken from its results."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from comity.core.errors import ConfigError
from comity.report import numbers
from comity.report.numbers import Interval

Results: TypeAlias = Mapping[str, Any]
"""The results of a comparison, version 1: see `docs/reference/compare-json.md`."""

VERSION = 1
WAYS = ("alone", "ensemble", "joint", "personal", "private", "pooled")
NEEDED = ("question", "metric", "ways", "parties_mean", "parties", "gain", "bytes", "revealed", "verdict", "settings")
NO_SKILL: Mapping[str, tuple[float, str]] = {"roc_auc": (0.5, ", a coin flip"), "r2": (0.0, ", the mean of the target")}


def check(results: Results) -> Results:
    """The results themselves, when this version of comity can report them.

    Raises:
        ConfigError: another version, or keys that are missing.
    """
    if results.get("version") != VERSION:
        raise ConfigError(
            f"Results must be of version {VERSION}. Got {results.get('version')!r}. Run the comparison again."
        )
    if missing := [key for key in NEEDED if key not in results]:
        raise ConfigError(f"Results must hold {', '.join(NEEDED)}. Missing: {', '.join(missing)}. Run compare again.")
    return results


def verdict(results: Results) -> tuple[str, str]:
    """The verdict's first sentence, and the rest.

    A full stop inside the name of a party (`St. Gallen`) ends no sentence.
    """
    text = str(results["verdict"]).strip()
    names = [m.span() for p in results["parties"] if p for m in re.finditer(re.escape(str(p)), text)]
    for stop in re.finditer(r"(?<=[.?])\s+", text):
        if not any(start < stop.start() and stop.end() <= end for start, end in names):
            return text[: stop.start()], text[stop.end() :]
    return text, ""


def noun(results: Results, n: int = 2) -> str:
    """What a party is called here, for n of them."""
    return numbers.plural(str(results["question"].get("noun") or "party"), n)


def ordered(results: Results) -> list[str]:
    """The parties by gain, largest first; those without one last, by name."""

    def key(name: str) -> tuple[bool, float, str]:
        got = numbers.known(results["parties"][name]["gain"])
        return (got is None, -got[0] if got else 0.0, str(name))

    return sorted(results["parties"], key=key)


def shown(results: Results) -> list[str]:
    """The ways that were run, in the order that is the same everywhere."""
    parties = results["parties"].values()
    return [way for way in WAYS if way in results["ways"] or any(way in p["ways"] for p in parties)]


def head(results: Results, way: str) -> str:
    """What a way is called where there is room: the private one with the epsilon that was asked for.

    Example:
        >>> head({"private": {"epsilon": 8.0}}, "private"), head({}, "joint")
        ('private (ε 8)', 'joint')
    """
    asked = numbers.number((results.get("private") or {}).get("epsilon")) if way == "private" else None
    return way if asked is None else f"{way} (ε {asked:g})"


def at(ways: Mapping[str, Any], way: str, metric: str) -> Interval:
    """One way's interval of one metric; None where it is undefined or was not run."""
    return (ways.get(way) or {}).get(metric)


def judged(gain: Interval) -> str:
    """What an interval of a gain says: gains, loses, within noise or undefined; nothing when there is no interval."""
    got = numbers.known(gain)
    if got is None:
        return "undefined"
    _, low, high = got
    if low is None or high is None:
        return ""
    return "gains" if low > 0 else "loses" if high < 0 else "within noise"


def way_of(gain: Interval) -> str:
    """The way that a gain was measured for."""
    return str((gain or {}).get("way") or "joint")


def why(party: Mapping[str, Any]) -> str:
    """Why a party's score is undefined, in words; nothing when every headline score is there."""
    return str(party.get("why") or "")


def reason(party: Mapping[str, Any]) -> str:
    """Why a party's gain is undefined: the reason given, or that none was."""
    return why(party) or "the score is not defined on its test rows"


def metrics(results: Results) -> list[str]:
    """The metrics that were measured, the headline first, then in the fixed order."""
    found = {m for p in results["parties"].values() for way in p["ways"].values() for m in way or ()}
    found |= {m for way in results["ways"].values() for m in way or ()}
    rest = [m for m in numbers.METRICS if m in found and m != results["metric"]]
    return [str(results["metric"]), *rest]


def per_party(results: Results) -> tuple[float, float]:
    """Mean bytes up and down of one party in one joint training."""
    n = max(1, len(results["bytes"].get("parties") or results["parties"]))
    return results["bytes"]["up"] / n, results["bytes"]["down"] / n


def unsaid_losers(results: Results) -> list[tuple[str, str]]:
    """The parties that lose and that the verdict does not name, each with what it loses in points."""
    parties, text = results["parties"], str(results["verdict"])
    said = [n for n in parties if re.search(rf"(?<!\w){re.escape(n)}(?!\w)", text) and "lose" in text]
    names = [n for n in ordered(results) if parties[n]["verdict"] == "loses" and n not in said]
    return [(n, numbers.points(parties[n]["gain"]).removeprefix(numbers.MINUS)) for n in names]


def finding(results: Results) -> str:
    """What the gains show, in one sentence: who gains, who is within noise, who loses."""
    groups: dict[str, list[str]] = {}
    for name in ordered(results):
        party = results["parties"][name]
        text = numbers.points(party["gain"])
        groups.setdefault(str(party["verdict"]), []).append(name if text == numbers.DASH else f"{name} {text}")
    parts = [f"{label}: {', '.join(groups[label])}" for label in groups]
    return f"Gain in points of {numbers.metric_name(results['metric'])} over training alone. " + "; ".join(parts) + "."


def no_skill(results: Results) -> tuple[float, str]:
    """Where bars start: the score of a guess, and what that is in words (", a coin flip", or nothing)."""
    given = numbers.number(results["question"].get("no_skill"))
    return (given, ", no skill") if given is not None else NO_SKILL.get(results["metric"], (0.0, ""))


def intervals(results: Results) -> Iterator[tuple[float, float | None, float | None]]:
    """Every defined headline interval, of parties, their mean and all records together."""
    tables: Sequence[Mapping[str, Any]] = [
        results["ways"],
        results["parties_mean"],
        *(p["ways"] for p in results["parties"].values()),
    ]
    for ways in tables:
        for way in WAYS:
            if got := numbers.known(at(ways, way, results["metric"])):
                yield got


def interval_words(results: Results) -> str:
    """What the intervals are, in a sentence: the comparison's own words, or how many repeats they stand on."""
    if note := str(results.get("interval_note") or "").strip():
        return note
    if all(low is None for _, low, _ in intervals(results)):
        return "No intervals."
    return f"Intervals: 95 % over {results['settings'].get('repeats') or 'all'} repeats, same splits for every way."


def share(results: Results, name: str) -> str:
    """How many of a party's records are of the positive class, `22 % yes`; nothing where that is not known."""
    found = numbers.number(results["parties"][name].get("share"))
    classes: Sequence[Any] = results["question"].get("classes") or ()
    return f"{numbers.percent(found)} {classes[1]}" if found is not None and len(classes) == 2 else ""


def joined(results: Results, ways: Iterable[str]) -> str:
    """The way of joining to speak of among those that were measured; nothing when there is none."""
    found = list(ways)
    return next((w for w in (way_of(results["gain"]), "joint", "personal", "ensemble") if w in found), "")


def watched(results: Results, side: str) -> list[tuple[str, list[str]]]:
    """What one side (`hub` or `parties`) would see, by how much of it: each one's first, nothing last."""
    groups: dict[str, list[str]] = {key: [] for key in ("each", "union", "sum", "nothing")}
    for entry in results["revealed"]:
        groups.setdefault(str(entry[side]), []).append(str(entry["what"]))
    told = {"each": "each one’s", "sum": "only the sum of", "union": "only the union of", "nothing": "nothing of"}
    return [(told.get(key, key), found) for key, found in groups.items() if found]


def seen(entry: Mapping[str, Any], side: str) -> str:
    """What the hub or the other parties see of something, in words."""
    told = {"each": "each one’s", "sum": "only the sum", "union": "only the union", "nothing": "nothing"}
    return told.get(str(entry[side]), str(entry[side]))
