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


AGE = {"under 50": 11180, "50 to 69": 19870, "70 and over": 12690}
SEX = {"women": 22310, "men": 21430}
AGE_SCORES = (
    ((0.847, 0.833, 0.801), 0.014),
    ((0.855, 0.843, 0.818), 0.013),
    ((0.862, 0.853, 0.832), 0.012),
    ((0.864, 0.857, 0.836), 0.012),
    ((0.866, 0.860, 0.844), 0.011),
)
SEX_SCORES = (
    ((0.819, 0.838), 0.009),
    ((0.834, 0.848), 0.008),
    ((0.845, 0.856), 0.008),
    ((0.849, 0.858), 0.008),
    ((0.853, 0.862), 0.008),
)


def grouped(values: dict[str, int], scores: Any) -> dict[str, Any]:
    """One column of groups: scores and gap for each way."""
    ways = {
        way: {
            "groups": {g: interval(mean, 0.01) for g, mean in zip(values, means, strict=True)},
            "gap": interval(max(means) - min(means), half),
        }
        for way, (means, half) in zip(WAYS, scores, strict=True)
    }
    return {"values": dict(values), "ways": ways}


def full() -> dict[str, Any]:
    """As `hospitals`, with everything that a comparison may add."""
    results = hospitals()
    for (name, p), share in zip(results["parties"].items(), (0.31, 0.27, 0.38, 0.22), strict=True):
        p["share"] = share
        assert name in HOSPITALS
    results["groups"] = {"age": grouped(AGE, AGE_SCORES), "sex": grouped(SEX, SEX_SCORES)}
    results["fair"] = {
        "column": "age",
        "gap": {"joint": interval(0.030, 0.012), "fair": interval(0.014, 0.010)},
        "price": interval(-0.006, 0.004),
        "how": "group weights in training, thresholds per group",
    }
    unseen = {"Basel": (0.852, 0.861), "Bern": (0.849, 0.842), "Lyon": (0.829, 0.818), "Zurich": (0.826, 0.794)}
    results["unseen"] = {
        n: {"roc_auc": joint, "log_loss": 1.27 - joint, "alone": alone} for n, (joint, alone) in unseen.items()
    }
    seconds = {"Basel": 3.9, "Bern": 2.5, "Lyon": 1.8, "Zurich": 0.9}
    parties = {n: {"seconds": s, "watt_hours": s * 15 / 3600} for n, s in seconds.items()}
    results["cost"] = {"parties": parties, "assumed_watts": 15.0}
    results["way_to_pooled"] = {"mean": 0.75, "low": 0.60, "high": 0.88}
    results["interval_note"] = "Intervals: 95 % over 5 repeats, same splits for every way. Gains: 95 % for all four "
    results["interval_note"] += "hospitals together."
    results["learning"]["reference"] = {"alone": 0.829, "pooled": 0.858}
    results["protection"] = deepcopy(PROTECTION)
    results["card"] = deepcopy(CARD)
    return results


PROTECTION = {
    "leaves": [
        {"what": w, "to": t, "why": y, "form": f}
        for w, t, y, f in [
            ("Column names, types, counts", "the hub", "to agree on the inputs", "text and counts, once"),
            ("Means, variances", "the hub; the sum to all", "to scale numbers alike", "27 sums, once"),
            ("Category values", "the hub; the union to all", "to number them alike", "words seen 5 times or more"),
            ("Model changes", "the hub; the sum to all", "this is the training", "4,353 numbers a round, 30 rounds"),
            ("Scores", "the hub and all hospitals", "they are this report", "counts and score histograms"),
        ]
    ],
    "stays": [
        "every record",
        "every outcome",
        "identifiers (patient_id is not used)",
        "predictions for single records",
    ],
    "legal_note": "Whether model changes are personal data is for you to judge; this page says what they are, not what "
    "the law calls them.",
}
CARD = {
    "model": "mlp, 73 inputs, 48 and 16 units, 4,353 parameters",
    "trained_on": "43,740 records of 4 hospitals, none of which left its hospital",
    "inputs": ["age", "sex", "albumin", "creatinine", "glucose", "haemoglobin", "admitted", "ward", "previous_stays"]
    + [f"lab_{i}" for i in range(29)],
    "target": "outcome",
    "classes": ["no", "yes"],
    "intended": "ranking patients for a call after discharge, at hospitals like these four",
    "limits": ["Patients of 70 and over are served worst.", "Not tried after November 2026.", "Not a medical device."],
    "scores": {"roc_auc": interval(0.851, 0.006), "log_loss": interval(0.415, 0.006)},
}


def crowd() -> dict[str, Any]:
    """As `full`, with sixteen hospitals, one group of a handful of rows, and twelve countries."""
    results = full()
    copies = {f"{name} {i}": deepcopy(p) for i in range(4) for name, p in results["parties"].items()}
    results["parties"] = copies
    for key, found in (("bytes", results["bytes"]["parties"]), ("cost", results["cost"]["parties"])):
        results[key]["parties"] = {name: found[name.split()[0]] for name in copies}
    results["unseen"] = {name: results["unseen"][name.split()[0]] for name in copies}
    age = results["groups"]["age"]
    age["values"]["over 100"] = 6
    for way in age["ways"].values():
        way["groups"]["over 100"] = None
    scores = tuple((tuple(0.78 + i / 150 for i in range(12)), 0.04) for _ in WAYS)
    results["groups"]["country"] = grouped({f"country {i}": 300 + i for i in range(12)}, scores)
    results["title"], results["question"]["parties"] = "many.csv", 16
    return results
