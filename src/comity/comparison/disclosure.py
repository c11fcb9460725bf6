"""What a comparison discloses: for the report, the protection officer and the model card."""

from collections.abc import Sequence
from typing import Any

from comity.comparison.families import families
from comity.comparison.trials import GRADIENT, grows
from comity.data.schema import Schema


def revealed(
    schema: Schema, ways: Sequence[str], settings: Any, prepared: Sequence[tuple[str, str]]
) -> list[dict[str, str]]:
    """What was revealed, how much of it, and who saw each one's, only the sum, or nothing."""
    n = len(schema.columns)
    out = [
        _row("Column names, types, counts", f"{n} columns and the target, once", "each", "union", "to agree on inputs"),
        _row("Means and variances", f"{len(schema.numbers)} number columns", "each", "sum", "to scale inputs alike"),
    ]
    out += [_row(what, how_much, "each", "union", "to prepare inputs alike") for what, how_much in prepared]
    if "joint" in ways:
        out += [
            _row(what, how_much, "each", "sum", "the joint model") for what, how_much, _ in trained(schema, settings)
        ]
    if "private" in ways:
        out.append(_row("Noised model changes", f"{settings.rounds} rounds", "each", "sum", "the private model"))
    if "ensemble" in ways:
        out.append(_row("Own models", "one for each party", "each", "each", "the ensemble"))
    scores = "counts, losses and score histograms" + (", by group" if settings.groups else "")
    out.append(_row("Scores", scores, "each", "each", "this report"))
    if settings.pooled:
        out.append(_row("Records", "training and validation rows, for pooled only", "each", "nothing", "the ceiling"))
    else:
        out.append(_row("Records", "none", "nothing", "nothing", "they stay"))
    return out


def protection(
    schema: Schema, ways: Sequence[str], settings: Any, prepared: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """One page for the protection officer: what leaves, to whom, why; what stays; who could see what."""
    leaves = [
        _leaf("Names and types of columns; rows, missing and different values; classes with counts",
              "the hub; all learn the common columns", "to agree on inputs", "counts over all rows"),
        _leaf("Means, mean squares and mean cubes of number columns", "the hub; all learn the combined ones",
              "to scale inputs alike", "over the training rows"),
    ]  # fmt: skip
    for what, how_much in prepared:
        leaves.append(_leaf(what, "the hub; all learn what was combined", "to prepare inputs alike", how_much))
    if "joint" in ways:
        leaves += [_leaf(what, "the hub; all learn what comes of their sum", "the joint model", form)
                   for what, _, form in trained(schema, settings)]  # fmt: skip
    if "private" in ways:
        leaves.append(_leaf("Noised model changes", "the hub; all learn what comes of their sum", "the private model",
                            "changes of parameters after DP-SGD, every round; covered by ε"))  # fmt: skip
    if "ensemble" in ways:
        leaves.append(_leaf("The party's own model with its preparation", "the hub and all parties", "the ensemble",
                            "parameters; trees hold thresholds taken from the data"))  # fmt: skip
    leaves.append(_leaf("Scores", "the hub; they stand in this report", "to compare",
                        "counts, summed losses, histograms of predictions"
                        + (", also by group" if settings.groups else "")))  # fmt: skip
    if settings.pooled:
        leaves.append(_leaf("Prepared training and validation rows", "the hub", "the ceiling, pooled",
                            "records, scaled and coded; --no-pooled leaves this way out"))  # fmt: skip
    stays = ["test rows", "identifiers and columns left out", "personal models"]
    stays += [] if settings.pooled else ["all records"]
    return {"leaves": leaves, "stays": stays, "legal_note": None}


def card(facts: Any, settings: Any, table: Any) -> dict[str, Any]:
    """The model card of what was trained jointly."""
    joint = table.repeats[0].joint
    way = "joint" if joint is not None else "alone"
    none = dict.fromkeys(table.keys)
    n = sum(facts.rows[p] for p in table.parties)
    return {
        "model": f"{joint.trial}" if joint is not None else table.repeats[0].chosen["alone"],
        "trained_on": f"60 % of {n:,} rows of {len(table.parties)} parties, the first of {settings.repeats} splits",
        "inputs": [c.name for c in facts.schema.columns],
        "target": settings.target,
        "classes": list(facts.schema.classes),
        "intended": "to judge whether joining pays; for use, validate it where it is to be used",
        "limits": [
            "not private: it may remember single records",
            "scores hold for parties like these; see the scores at parties that took no part",
            "an association, not a cause",
        ],
        "scores": table.over(lambda k: table.everybody(k, way) if way in table.repeats[k].ways else none),
    }


def trained(schema: Schema, settings: Any) -> list[tuple[str, str, str]]:
    """(what, how much, in which form) leaves in the joint trainings that are tried."""
    tried, out = families(settings.model), []
    if set(tried) & set(GRADIENT):
        out.append(("Model changes", f"{settings.rounds} rounds",
                    "changes of parameters, every round; they may tell of single records"))  # fmt: skip
    if "linear" in tried:
        out.append(("Second moments of inputs and target", "one matrix, once, by thirds of the rows",
                    "sums of products; of fewer rows than inputs they nearly give the rows"))  # fmt: skip
    if grows(tried, schema):
        out.append(("Counts of values in bins", "each column, three times",
                    "counts in about 1,000 cells a column; narrow cells hold single values"))  # fmt: skip
        out.append(("Histograms of gradients", "each column, for every level of every tree",
                    "sums by bin; those of few rows tell of single records"))  # fmt: skip
    return out


def _row(what: str, how_much: str, hub: str, parties: str, why: str) -> dict[str, str]:
    return {"what": what, "how_much": how_much, "hub": hub, "parties": parties, "why": why}


def _leaf(what: str, to: str, why: str, form: str) -> dict[str, str]:
    return {"what": what, "to": to, "why": why, "form": form}
