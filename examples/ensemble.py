"""Four parties with unlike models and skewed digits: what do they know together, without sharing a model or a row?"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

import comity as co

X, y = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(y))
train, query = order[:1200], order[1200:]
shares = co.dirichlet(y[train], 4, alpha=0.3, seed=0)

models = {
    "p0": LogisticRegression(max_iter=2000),
    "p1": RandomForestClassifier(100, random_state=0),
    "p2": GaussianNB(var_smoothing=1e-2),
    "p3": KNeighborsClassifier(5),
}
jury = {}
for name, model in models.items():
    mine = train[shares[name]]
    fit, held = mine[len(mine) // 4 :], mine[: len(mine) // 4]
    jury[name] = co.Predictor(
        model.fit(X[fit], y[fit]),
        classes=tuple(range(10)),
        calibrate=(X[held], y[held]),
        counts=np.bincount(y[fit], minlength=10),
    )


def asked(combine) -> float:
    """Every party answers for the same inputs; only probabilities (and class counts) travel."""
    run = co.Collaboration(co.Query(X[query]), jury, combine=combine, evaluate=False).run(rounds=1)
    return float((run.shared["label"] == y[query]).mean())


alone = [float((member.predict(X[query]).argmax(1) == y[query]).mean()) for member in jury.values()]
majority, average, product = asked(co.Vote()), asked(co.Average()), asked(co.ProductPool())
print(
    f"mean party alone {np.mean(alone):.1%}, best single {max(alone):.1%} (by the test set); together: "
    f"majority {majority:.1%}, average {average:.1%}, prior-corrected product {product:.1%}"
)
