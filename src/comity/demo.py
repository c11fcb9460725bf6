"""The demo: two real data sets of scikit-learn, shared out over parties that differ.

The records are real; who holds them is made up. Hospitals and writers draw their records by chance from
fixed seeds, so that sizes, cases and measurements differ from party to party as they do in practice.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from comity.adapters.datasets import breast_cancer, digits
from comity.core.contribution import Array
from comity.core.rng import keyed
from comity.data.tables import frame

HOSPITALS = {
    "Northgate": (0.52, 0.9, 1.0),
    "Lakeside": (0.26, -0.9, 1.06),
    "St Clare": (0.14, 0.0, 0.94),
    "Valley": (0.08, -0.4, 1.1),
}
"""Hospital to its share of the records, its pull towards large tumours, and the scale of its instrument."""
WRITERS = 10


def hospitals(seed: int = 0) -> dict[str, Any]:
    """Breast-cancer records over four hospitals of unequal size.

    Labels are skewed because some hospitals see larger tumours; features because instruments differ by up
    to a tenth in lengths and areas.

    Returns:
        Hospital to its table; the target is `diagnosis`.
    """
    columns = breast_cancer()
    radius = columns["mean radius"]
    size = (radius - radius.mean()) / radius.std()
    pull = np.stack([np.log(share) + lean * size for share, lean, _ in HOSPITALS.values()], axis=1)
    chance = np.exp(pull - pull.max(axis=1, keepdims=True))
    home = _drawn(chance / chance.sum(axis=1, keepdims=True), seed)
    out = {}
    for i, (name, (_, _, scale)) in enumerate(HOSPITALS.items()):
        own = {
            c: x[home == i] * (_instrument(c, scale)) if c != "diagnosis" else x[home == i] for c, x in columns.items()
        }
        out[name] = frame(own)
    return out


def writers(seed: int = 0) -> dict[str, Any]:
    """Images of digits over ten writers with 3 to 5 digits each, who differ in ink and background.

    Returns:
        Writer to its table; the target is `digit`.
    """
    columns = digits()
    rng = keyed(seed, "demo", "writers")
    holds = _digits_of_writers(rng)
    labels = columns["digit"].astype(int)
    chance = holds[:, labels].T.astype(float)
    home = _drawn(chance / chance.sum(axis=1, keepdims=True), seed)
    ink, paper = rng.uniform(0.5, 1.0, WRITERS), rng.uniform(0.0, 5.0, WRITERS)
    out = {}
    for w in range(WRITERS):
        own = {c: x[home == w] for c, x in columns.items()}
        seen = {c: x if c == "digit" else np.clip(paper[w] + ink[w] * x, 0, 16) for c, x in own.items()}
        out[f"writer {w}"] = frame(seen)
    return out


def _digits_of_writers(rng: Any) -> Array:
    """(writers, digits) bool: 3 to 5 digits each, and somebody for every digit."""
    holds = np.zeros((WRITERS, 10), bool)
    for w in range(WRITERS):
        others = rng.choice(9, rng.integers(2, 5), replace=False)
        holds[w, [w, *((w + 1 + o) % 10 for o in others)]] = True
    return holds


def _drawn(chance: Array, seed: int) -> Array:
    """(rows,) int64: a party for each row, by its chances."""
    u = keyed(seed, "demo", "homes").random(len(chance))
    return np.asarray((chance.cumsum(axis=1) < u[:, None]).sum(axis=1).clip(max=chance.shape[1] - 1))


def _instrument(column: str, scale: float) -> float:
    if any(word in column for word in ("radius", "perimeter")):
        return scale
    return scale**2 if "area" in column else 1.0


def comparisons() -> Mapping[str, tuple[Any, str, str]]:
    """Title to (tables, target, what a party is called)."""
    return {"breast cancer": (hospitals(), "diagnosis", "hospital"), "digits": (writers(), "digit", "writer")}
