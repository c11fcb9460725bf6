"""Results with invented, consistent numbers (gain = joint - alone), in the shape that a comparison gives."""

from copy import deepcopy
from typing import Any

WAYS = ("alone", "ensemble", "joint", "personal", "pooled")
HOSPITALS: dict[str, tuple[int, tuple[float, ...], tuple[float, ...], float, str]] = {
    "Basel": (19124, (0.861, 0.858, 0.864, 0.866, 0.867), (0.008, 0.008, 0.007, 0.008, 0.007), 0.006, "within noise"),
    "Bern": (12037, (0.842, 0.852, 0.861, 0.865, 0.868), (0.011, 0.010, 0.009, 0.009, 0.009), 0.008, "gains"),
    "Lyon": (8461, (0.818, 0.831, 0.842, 0.851, 0.853), (0.014, 0.013, 0.012, 0.012, 0.011), 0.010, "gains"),
    "Zurich": (4118, (0.794, 0.822, 0.835, 0.832, 0.843), (0.019, 0.017, 0.015, 0.017, 0.015), 0.012, "gains"),
}


def interval(mean: float, half: float) -> dict[str, float | None]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def scored(metric: str, mean: float, half: float) -> dict[str, Any]:
    if metric == "r2":
        return {metric: interval(mean, half), "rmse": interval(1843.2 * (1 - mean), 31.4), "mae": interval(11.27, 0.4)}
    return {metric: interval(mean, half), "log_loss": interval(1.266 - mean, half)}


def party(metric: str, rows: int, means: Any, halves: Any, noise: float, verdict: str) -> dict[str, Any]:
    gain: dict[str, Any] = {**interval(means[2] - means[0], noise), "way": "joint"}
    ways = {w: scored(metric, m, h) for w, m, h in zip(WAYS, means, halves, strict=True)}
    return {"rows": rows, "ways": ways, "gain": gain, "verdict": verdict, "why": None}


def hospitals(metric: str = "roc_auc") -> dict[str, Any]:
    """Four hospitals, two classes: three gain, one is within noise."""
    means = (0.829, 0.841, 0.851, 0.854, 0.858)
    return {
        "version": 1,
        "title": "patients.csv",
        "question": {
            "target": "outcome",
            "party": "hospital",
            "task": "classes",
            "classes": ["no", "yes"],
            "rows": 43740,
            "inputs": 38,
            "parties": 4,
            "noun": "hospital",
            "set_aside": 12,
        },
        "metric": metric,
        "ways": {w: scored(metric, m + 0.006, 0.005) for w, m in zip(WAYS, means, strict=True)},
        "parties_mean": {w: scored(metric, m, 0.006) for w, m in zip(WAYS, means, strict=True)},
        "parties": {name: party(metric, *facts) for name, facts in HOSPITALS.items()},
        "gain": {**interval(0.022, 0.005), "way": "joint"},
        "groups": {},
        "bytes": {
            "up": 2_132_000,
            "down": 2_116_000,
            "parties": {name: {"up": 533_000, "down": 529_000} for name in HOSPITALS},
        },
        "seconds": {"wall": 192.0, "cpu": 340.0},
        "revealed": deepcopy(REVEALED),
        "verdict": "Worth joining for three of four hospitals. Zurich gains most, +4.1 ± 1.2 points of ROC AUC. "
        "For Basel the difference is within noise.",
        "left_out": [{"name": "patient_id", "why": "an identifier"}, {"name": "ward_code", "why": "only in Lyon"}],
        "learning": {
            "way": "joint",
            "metric": metric,
            "rounds": [1, 5, 10, 15, 20, 25, 30],
            "mean": [0.704, 0.782, 0.825, 0.841, 0.847, 0.849, 0.851],
            "low": [0.68, 0.768, 0.815, 0.833, 0.84, 0.843, 0.845],
            "high": [0.728, 0.796, 0.835, 0.849, 0.854, 0.855, 0.857],
        },
        "settings": deepcopy(SETTINGS),
    }


REVEALED = [
    {"what": w, "how_much": m, "hub": h, "parties": p, "why": y}
    for w, m, h, p, y in [
        ("Column names and types", "34 columns, once", "each", "each", "to agree on the inputs"),
        ("Counts, means, variances", "27 number columns, once", "each", "sum", "to scale numbers alike"),
        ("Category values", "7 columns, once", "each", "union", "to number them alike"),
        ("Model changes", "30 rounds, 17.6 kB each", "each", "sum", "this is the training"),
        ("Scores per hospital", "5 ways, 5 repeats", "each", "each", "they are this report"),
        ("Records, outcomes, predictions", "43,740 records", "nothing", "nothing", ""),
    ]
]
SETTINGS = {
    "seed": 7,
    "repeats": 5,
    "rounds": 30,
    "model": "auto",
    "chosen": {"alone": "mlp, 48 and 16 units", "joint": "mlp, FedAdam", "personal": "2 epochs of tuning at home"},
    "command": "comity compare patients.csv --target outcome --party hospital --seed 7 --report report.html",
    "versions": {"comity": "0.1.0", "numpy": "2.1.0"},
    "cores": 2,
    "recipe": "sha256:9f2c41d78e05b3aa6c1d",
    "date": "20 November 2026",
}


def losing() -> dict[str, Any]:
    """As `hospitals`, but Basel loses, and the verdict does not say so."""
    results = hospitals()
    facts = HOSPITALS["Basel"]
    results["parties"]["Basel"] = party(
        "roc_auc", facts[0], (0.866, 0.858, 0.858, 0.866, 0.867), facts[2], 0.007, "loses"
    )
    results["verdict"] = "Worth joining for three of four hospitals. Zurich gains most, +4.1 ± 1.2 points of ROC AUC."
    return results


def undefined() -> dict[str, Any]:
    """As `hospitals`, but Lyon has one class only among its test rows: its AUC is not defined."""
    results = hospitals()
    nothing = {"mean": None, "low": None, "high": None}
    lyon = results["parties"]["Lyon"]
    lyon["ways"] = {way: {"roc_auc": None, "log_loss": interval(0.4, 0.1)} for way in WAYS}
    lyon |= {"gain": {**nothing, "way": "joint"}, "verdict": "undefined", "why": "one class only among its test rows"}
    results["verdict"] = "Worth joining for two of four hospitals. For Lyon the gain is undefined."
    return results


def writers() -> dict[str, Any]:
    """Ten writers, ten classes, accuracy; the better way is personal for some."""
    results = hospitals("accuracy")
    results["title"] = "digits"
    results["metric"] = "accuracy"
    results["question"] |= {"target": "digit", "party": "writer", "classes": [str(d) for d in range(10)], "rows": 1797}
    results["question"] |= {"parties": 10, "noun": "writer", "set_aside": 0, "inputs": 64}
    names = [f"writer {i}" for i in range(10)]
    means = [(0.8 + i / 100, 0.84, 0.93, 0.90 + i / 200, 0.96) for i in range(10)]
    results["parties"] = {
        n: party("accuracy", 150 + 7 * i, means[i], (0.03,) * 5, 0.02, "gains") for i, n in enumerate(names)
    }
    for name in names[6:]:
        ways = results["parties"][name]["ways"]
        ways["personal"] = scored("accuracy", 0.95, 0.03)
        gain = ways["personal"]["accuracy"]["mean"] - ways["alone"]["accuracy"]["mean"]
        results["parties"][name]["gain"] = {**interval(gain, 0.02), "way": "personal"}
    results["bytes"]["parties"] = {n: {"up": 213_200, "down": 211_600} for n in names}
    parties = results["parties"].values()
    for way in WAYS:
        mean = sum(p["ways"][way]["accuracy"]["mean"] for p in parties) / 10
        results["parties_mean"][way] = results["ways"][way] = scored("accuracy", mean, 0.01)
    results["bytes"] |= {"up": 2_132_000, "down": 2_116_000}
    results["gain"] = {**interval(sum(p["gain"]["mean"] for p in parties) / 10, 0.019), "way": "joint"}
    results["verdict"] = "Worth joining for ten of ten writers. Writer 0 gains most, +13.0 ± 2.0 points of accuracy."
    del results["learning"]
    return results


def regression() -> dict[str, Any]:
    """Four hospitals and a number to predict; errors in thousands; Basel's own model is worse than the mean."""
    results = hospitals("r2")
    results["question"] |= {"task": "regression", "classes": [], "target": "cost"}
    results["parties"]["Basel"]["ways"]["alone"]["r2"] = {"mean": -0.12, "low": -0.31, "high": 0.02}
    results["parties"]["Basel"]["gain"] = {"mean": 0.984, "low": 0.80, "high": 1.21, "way": "joint"}
    results["parties"]["Basel"]["verdict"] = "gains"
    results["verdict"] = "Worth joining for four of four hospitals. Basel gains most, +98.4 points of R²."
    return results
