"""Three liars among fifteen parties: what each combiner keeps of the accuracy on digits.

Fifteen parties train a linear model on handwritten digits for 40 rounds; three of them (20 %) send the opposite of what
they learnt, once as long as it is (x1) or ten times (x10). `clean` is the same combiner with nobody lying. Digits are
dealt out evenly, or unevenly by label (Dirichlet 1), where honest parties differ and robust rules pay for it.
Mean accuracy over seeds 0 to 4 on common test rows, in percent; the radius of centred clipping was chosen on seeds 100
and 101. Asserted for even shares: where the lies are ten times as long, every robust combiner keeps within 2 points of
its own clean run, and the mean does not. Prints one table and one line of JSON.

    python benchmarks/robust.py
"""

import json
import os
import platform
import resource
import time
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import comity as co
from comity.core.contribution import Contribution
from comity.core.tree import tree_map

PARTIES, LIARS, ROUNDS = 15, 3, 40
SEEDS = [int(s) for s in os.environ.get("COMITY_SEEDS", "0,1,2,3,4").split(",")]
MODEL = co.Linear(64, 10, rate=0.1, batch=16, epochs=2)
RULES: dict[str, Any] = {
    "mean": co.Mean(),
    "median": co.Median(),
    "trimmed mean": co.TrimmedMean(f=LIARS),
    "Krum": co.Krum(f=LIARS),
    "Multi-Krum": co.MultiKrum(f=LIARS),
    "geometric median": co.GeometricMedian(),
    "Bulyan": co.Bulyan(f=LIARS),
    "centred clipping": co.CenteredClipping(tau=0.1),
    "reputation mean": co.ReputationMean(),
}
SHARES = {"even": None, "uneven": 1.0}
LIES = {"clean": 0.0, "x1": 1.0, "x10": 10.0}


@dataclass(frozen=True)
class SignFlipper:
    """Sends the opposite of what it learnt, `times` as long."""

    honest: co.Trainer
    times: float

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> tuple[Contribution, Any]:
        c, local = self.honest.contribute(shared, local, round, secret)
        return replace(c, value=tree_map(lambda x: -np.float32(self.times) * x, c.value)), local


def accuracy(combine: Any, seed: int, alpha: float | None, times: float) -> float:
    """Of the shared model on test rows, in percent."""
    X, y = load_digits(return_X_y=True)
    X, order = (X / 16).astype("float32"), np.random.default_rng(seed).permutation(len(y))
    test, train = order[:360], order[360:]
    cut = co.dirichlet(y[train], PARTIES, alpha=alpha, seed=seed, min_rows=30) if alpha else None
    sites: dict[str, Any] = {}
    for i, (name, rows) in enumerate((cut or co.iid(len(train), PARTIES, seed=seed)).items()):
        party = co.Trainer(MODEL, (X[train[rows]], y[train[rows]]))
        sites[name] = SignFlipper(party, times) if times and i < LIARS else party
    fed = co.Collaboration(co.FedAvg(MODEL), sites, combine=combine, evaluate=False, seed=seed)
    guessed = MODEL.predict(fed.run(rounds=ROUNDS).shared, X[test]).argmax(axis=1)
    return 100 * float((guessed == y[test]).mean())


def main() -> None:
    start, found = time.process_time(), {}
    print(f"{'':<18}" + "".join(f"{shares + ' ' + lies:>14}" for shares in SHARES for lies in LIES))
    for name, rule in RULES.items():
        line = {
            f"{shares} {lies}": float(np.mean([accuracy(rule, seed, alpha, times) for seed in SEEDS]))
            for shares, alpha in SHARES.items()
            for lies, times in LIES.items()
        }
        found[name] = {k: round(v, 2) for k, v in line.items()}
        print(f"{name:<18}" + "".join(f"{v:>14.1f}" for v in line.values()), flush=True)
        held = line["even x10"] >= line["even clean"] - 2
        assert held == (name != "mean"), (name, line)
    facts = {
        "benchmark": "robust",
        "accuracy": found,
        "parties": PARTIES,
        "liars": LIARS,
        "rounds": ROUNDS,
        "seeds": SEEDS,
        "cpu_s": round(time.process_time() - start, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "versions": {"comity": co.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "date": date.today().isoformat(),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
