"""Sites that differ: one shared model, or one for each?

Ten sites read digits, and every second one numbers the ten classes in its own way, so that no shared model can be right
for all. FedAvg finds one model; Ditto keeps a personal one near it; FedRep shares the body of the network and leaves
each site its own last layer. The baseline is what each site learns alone.
"""

import numpy as np
from sklearn.datasets import load_digits

import comity as co

SITES, ROUNDS = 10, 30


def shards():
    """(site, its rows for training, its rows for testing), half and half."""
    x, y = load_digits(return_X_y=True)
    x, rng = (x / 16).astype("float32"), np.random.default_rng(0)
    for i, rows in enumerate(np.array_split(rng.permutation(len(y)), SITES)):
        names = rng.permutation(10) if i % 2 else np.arange(10)
        mine, cut = names[y[rows]], len(rows) // 2
        yield f"site{i}", (x[rows[:cut]], mine[:cut]), (x[rows[cut:]], mine[cut:])


def main() -> None:
    model = co.MLP(64, 10, hidden=(32,), rate=0.1, batch=16)
    ways = {
        "alone": (co.FedAvg(model), lambda d, t: co.Ditto(model, d, strength=0.0, test=t)),
        "FedAvg": (co.FedAvg(model), lambda d, t: co.Trainer(model, d, test=t)),
        "Ditto": (co.FedAvg(model), lambda d, t: co.Ditto(model, d, test=t)),
        "FedRep": (co.FedRep(model, head=("2",)), lambda d, t: co.FedRepTrainer(model, d, test=t)),
    }
    found = {}
    for name, (method, site) in ways.items():
        sites = {who: site(train, test) for who, train, test in shards()}
        found[name] = co.Collaboration(method, sites).run(rounds=ROUNDS).metrics["accuracy"]
    said = ", ".join(f"{name} {100 * accuracy:.1f} %" for name, accuracy in found.items())
    print(f"accuracy on each site's own test rows: {said}")


if __name__ == "__main__":
    main()
