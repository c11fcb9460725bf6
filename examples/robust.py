"""Fifteen parties learn to read digits, and three of them send the opposite of what they learnt, ten times as long."""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.datasets import load_digits

import comity as co

X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
order = np.random.default_rng(0).permutation(len(y))
train, test = order[360:], order[:360]
model = co.Linear(64, 10, rate=0.1, batch=16, epochs=2)
parties = {name: co.Trainer(model, (X[train[r]], y[train[r]])) for name, r in co.iid(len(train), 15, seed=0).items()}


@dataclass(frozen=True)
class Liar:
    """Turns around what an honest party would have sent."""

    honest: co.Trainer

    def contribute(self, shared, local, round, secret):
        c, local = self.honest.contribute(shared, local, round, secret)
        return replace(c, value={name: -10 * x for name, x in c.value.items()}), local


def accuracy(sites, combine) -> float:
    """Of the model that all share after 30 rounds, on test digits."""
    run = co.Collaboration(co.FedAvg(model), sites, combine=combine, evaluate=False, seed=0).run(rounds=30)
    return float((model.predict(run.shared, X[test]).argmax(axis=1) == y[test]).mean())


names = list(parties)
spoilt = {name: Liar(parties[name]) if name in names[:3] else parties[name] for name in names}
rules = {
    "median": co.Median(),
    "Krum": co.Krum(f=3),
    "Multi-Krum": co.MultiKrum(f=3),
    "geometric median": co.GeometricMedian(),
    "Bulyan": co.Bulyan(f=3),
    "centred clipping": co.CenteredClipping(tau=0.1),
    "reputation mean": co.ReputationMean(),
}
held = ", ".join(f"{name} {accuracy(spoilt, rule):.1%}" for name, rule in rules.items())
print(
    f"mean: {accuracy(parties, co.Mean()):.1%} if nobody lies, {accuracy(spoilt, co.Mean()):.1%} with three liars; "
    f"with the same liars: {held}"
)
