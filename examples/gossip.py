"""Six labs without a hub: on a ring each mixes its model with those of its two neighbours.

Labs hold unlike shares of the classes of the digits. Nobody sees all models, and nobody is in the middle.
"""

import numpy as np
from sklearn.datasets import load_digits

import comity as co

LABS, ROUNDS = 6, 60
X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
order = np.random.default_rng(0).permutation(len(y))
train, test = order[:1200], (X[order[1200:]], y[order[1200:]])
shares = co.dirichlet(y[train], LABS, alpha=0.3, seed=0)
parts = {f"lab{i}": (X[train[rows]], y[train[rows]]) for i, rows in enumerate(shares.values())}
model = co.MLP(64, 10, hidden=(32,), rate=0.1, batch=16)


def learnt(method: co.FedAvg, send: str, **parts_of_it: object) -> co.Run:
    labs = {name: co.Trainer(model, data, test=test, send=send) for name, data in parts.items()}
    return co.Collaboration(method, labs, **parts_of_it).run(rounds=ROUNDS)


def main() -> None:
    whole = co.FedAvg(model, send="model")
    path = co.graph([(f"lab{i}", f"lab{i + 1}") for i in range(LABS - 1)])
    ring = learnt(whole, "model", select=co.ring(), combine=co.Mean(uniform=True))
    line = learnt(whole, "model", select=path, combine=co.Metropolis(path.neighbours))
    alone = learnt(whole, "model", select=co.graph(dict.fromkeys(parts, ())))
    hub = learnt(co.FedAvg(model), "delta", combine=co.Mean(uniform=True))
    w = np.array([np.concatenate([leaf.ravel() for leaf in m.values()]) for m in ring.shared.values()])
    apart = np.linalg.norm(w - w.mean(axis=0), axis=1).mean() / np.linalg.norm(w.mean(axis=0))
    print(
        f"accuracy on unseen digits, mean of {LABS} labs after {ROUNDS} rounds: alone "
        f"{alone.metrics['accuracy']:.1%}, ring {ring.metrics['accuracy']:.1%}, path {line.metrics['accuracy']:.1%}, "
        f"one hub hears all {hub.metrics['accuracy']:.1%}; models on the ring lie {apart:.1%} apart"
    )


if __name__ == "__main__":
    main()
