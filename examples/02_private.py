"""Five hospitals and the digits: secure aggregation, so that nobody sees one hospital's update, and DP-SGD at each.

What epsilon protects is one image. It is computed from what the ledger says was spent.
"""

import numpy as np
from sklearn.datasets import load_digits

import comity as co

SITES, ROUNDS, RATE, EPSILON, DELTA = 5, 20, 0.1, 8.0, 1e-5


def shards():
    x, y = load_digits(return_X_y=True)
    x, order = (x / 16).astype("float32"), np.random.default_rng(0).permutation(len(y))
    test, *parts = np.array_split(order, SITES + 1)
    return (x[test], y[test]), {f"hospital{i}": (x[p], y[p]) for i, p in enumerate(parts)}


def main() -> None:
    (x, y), data = shards()
    model = co.Linear(64, 10, rate=2.0)
    noise = co.calibrate(EPSILON, DELTA, rounds=round(ROUNDS / RATE), sampling=RATE)
    ways = {
        "plain": ({n: co.Trainer(model, d) for n, d in data.items()}, {}),
        "private": (
            {n: co.PrivateTrainer(model, d, clip=1.0, noise=noise, rate=RATE) for n, d in data.items()},
            {"channel": co.SecAgg(), "stop": co.Budget(EPSILON, DELTA)},
        ),
    }
    for name, (sites, more) in ways.items():
        method = co.FedAvg(model, bound=100.0)
        fed = co.Collaboration(method, sites, combine=co.Mean(uniform=True), evaluate=False, **more)
        run = fed.run(ROUNDS)
        right = 100 * (model.predict(run.shared, x).argmax(1) == y).mean()
        print(f"{name}: {right:.1f} % right, {run.ledger.rounds} rounds, {run.ledger.bytes_up / 1e6:.2f} MB up")
    for guarantee in co.spent([entry.facts for entry in run.ledger if entry.kind == "spend"], DELTA)[:1]:
        print(f"noise {noise:.2f}; {guarantee}")


if __name__ == "__main__":
    main()
