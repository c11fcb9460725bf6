"""The words of a report: what each one means, and where a text uses it."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from comity.report import numbers, view
from comity.report.view import Results

MEANING: Mapping[str, str] = {
    "accuracy": "The share of records whose class the model names rightly. 1 is perfect.",
    "balanced_accuracy": "Accuracy with every class counted equally, however rare. 1 is perfect.",
    "roc_auc": "How often the model ranks a record of the second class above one of the first. "
    "0.5 is a coin flip, 1 is perfect.",
    "pr_auc": "Precision averaged over recall; a guess scores the share of the second class. 1 is perfect.",
    "log_loss": "How far the model's probabilities are from what happened, in nats. 0 is perfect.",
    "brier": "The squared distance of the model's probabilities from what happened. 0 is perfect.",
    "rmse": "The typical error in the target's own units, large errors counted more. 0 is perfect.",
    "mae": "The mean error in the target's own units. 0 is perfect.",
    "r2": "The share of the target's variance that the model explains. 0 is guessing the mean, 1 is perfect.",
}
FIGURE = r"[+−]?\d[\d.,]*(?: %)? (?:± [\d.,]*\d|\([+−]?[\d.,]+ to [+−]?[\d.,]+\))"


class Piece(NamedTuple):
    """A part of a text: plain, a term that has a tip, or a figure with its interval."""

    text: str
    term: str = ""
    figure: bool = False


def words(results: Results) -> dict[str, str]:
    """What each word of this report means, in the order of the glossary."""
    one, many, metric = view.noun(results, 1), view.noun(results), results["metric"]
    points = "Hundredths of the score: from 0.800 to 0.841 is 4.1 points."
    interval = "95 % interval over repeats with other splits of the records; every way sees the same splits."
    found = {
        numbers.metric_name(metric): MEANING.get(metric, "The score that is judged."),
        "points": points,
        "alone": f"Each {one} trains on its own records only. What you have today.",
        "ensemble": f"Each {one}’s own model votes; the answers are averaged. No training together.",
        "joint": "One model trained together. Records stay where they are; only model changes travel.",
        "personal": f"The joint model, then tuned at home on the {one}’s own records.",
        **_private(results, one),
        "pooled": "All records in one place. A ceiling to compare with: it would need moving data.",
        "interval": str(results.get("interval_note") or "") or interval,
        "within noise": "The interval includes zero: with these records the difference cannot be told from chance.",
        "hub": f"The service that asks the {many} in each round and combines what they send.",
        "round": f"The hub shares the model, each {one} trains a little, the changes are added up.",
        "recipe": "The exact, hashed description of what was agreed to run.",
    }
    if results.get("groups") or results.get("fair"):
        found["gap"] = "Best-served group minus worst-served group. Smaller is fairer."
    return found


def _private(results: Results, one: str) -> dict[str, str]:
    """What is said of the private way, under the name that it has in this report."""
    if not results.get("private"):
        return {}
    said = f"A joint model trained with noise at each {one} (DP-SGD): it hides whether any one record was there."
    epsilon = "How much a model may tell of one record, at most. 0 is nothing; smaller is more private."
    return {view.head(results, "private"): said, "ε": epsilon}


def pieces(text: str, terms: Iterable[str]) -> list[Piece]:
    """A text cut so that the first use of each term can have its tip, and no figure is torn from its interval.

    Example:
        >>> [p.text for p in pieces("Bern gains +1.9 ± 0.8 points.", ["points"])]
        ['Bern gains ', '+1.9 ± 0.8', ' ', 'points', '.']
    """
    left = sorted(set(terms), key=len, reverse=True)
    found = "|".join([FIGURE, *(rf"(?<!\w){re.escape(term)}(?!\w)" for term in left)])
    out = []
    for part in re.split(f"({found})", text):
        if part in left:
            left.remove(part)
            out.append(Piece(part, term=part))
        elif part:
            out.append(Piece(part, figure=re.fullmatch(FIGURE, part) is not None))
    return out
