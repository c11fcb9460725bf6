"""Most sites are weak devices on slow links. Can a few train first, and the others begin with their lean ticket?

Twenty sites hold thirty digits each. All learn one sparse network from the first round on; or five train it alone for
ten rounds, and the others join while it is still being pruned: they take part in fewer rounds, and never see the dense
network. The baselines are what a late site learns alone, and FedAvg in the same rounds.
"""

import numpy as np
from sklearn.datasets import load_digits

import comity as co

SITES, FIRST, ALONE, ROUNDS, SEED = 20, 5, 10, 40, 0
SHORT = [co.Once(least=512), co.Quantize(up=4, down=8), co.Deflate()]


def shards():
    """(X, y) of each site, and of the test."""
    x, y = load_digits(return_X_y=True)
    x, order = (x / 16).astype("float32"), np.random.default_rng(SEED).permutation(len(y))
    parts = np.array_split(order[: 30 * SITES], SITES)
    return {f"site{i:02d}": (x[r], y[r]) for i, r in enumerate(parts)}, (x[order[1000:]], y[order[1000:]])


def kilobytes(run, names):
    """What each of these sites sent and received in all rounds, on average."""
    rounds = (e.facts for e in run.ledger if e.kind == "round")
    pairs = (pair for f in rounds for pair in zip(f["asked"].split("\n"), f["up"] + f["down"], strict=True))
    return sum(n for who, n in pairs if who in names) / len(names) / 1e3


def main() -> None:
    data, test = shards()
    first, late = sorted(data)[:FIRST], sorted(data)[FIRST:]
    model = co.MLP(64, 10, hidden=(100, 50), rate=0.05, momentum=0.9, batch=10, epochs=5)
    tickets, some = co.Tickets(model, ROUNDS, density=0.2, by=0.6), co.sample(6)
    earlier = co.jumpstart(first, ALONE, among=co.sample(3), then=some)
    ways = {
        "FedAvg": (co.FedAvg(model), co.Trainer, [], some),
        "from the first round": (tickets, co.SharedTicketTrainer, SHORT, some),
        "jumpstart": (tickets, co.SharedTicketTrainer, SHORT, earlier),
    }
    here, said = co.Round("alone", SEED), []
    alone = [model.fit(model.init(here), data[who], here, co.Step(epochs=50))[0] for who in late]
    said.append(
        f"alone {100 * np.mean([(model.predict(p, test[0]).argmax(1) == test[1]).mean() for p in alone]):.1f} %"
    )
    for name, (method, site, short, select) in ways.items():
        sites = {who: site(model, rows, test=test) for who, rows in data.items()}
        run = co.Collaboration(method, sites, transforms=short, select=select, seed=SEED).run(rounds=ROUNDS)
        said.append(f"{name} {100 * run.metrics['accuracy']:.1f} % ({kilobytes(run, late):.0f} kB)")
    print(f"accuracy (and traffic of a late site): {', '.join(said)}")


if __name__ == "__main__":
    main()
