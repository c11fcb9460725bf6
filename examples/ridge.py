"""One round instead of sixty: digits over six parties of which most have seen only a few of the ten.

Each party turns its images into features that all can make: how much they look like patches of public images, which
have no labels and belong to nobody. It sends sums of products of these features once; one ridge regression over all
sums is the one over all rows, whatever the skew. The public images are 400 of the data set, in none of the parties and
not tested on. The baselines are what a party learns alone in the same way, and untuned federated averaging.
"""

import numpy as np
from sklearn.datasets import load_digits

import comity as co

PARTIES, PUBLIC, ROUNDS, SEED = 6, 400, 60, 10


def main() -> None:
    x, y = load_digits(return_X_y=True)
    x, order = x / 16, np.random.default_rng(SEED).permutation(len(y))
    public, test, private = order[:PUBLIC], order[PUBLIC : 2 * PUBLIC], order[2 * PUBLIC :]
    cut = co.dirichlet(y[private], PARTIES, alpha=0.1, seed=SEED)
    parties = {who: (x[private[rows]], y[private[rows]]) for who, rows in cut.items()}
    held = x[test], y[test]

    def once(members):
        features = co.PatchFeatures(x[public], count=512)
        method = co.Ridge(features, classes=10, dtype="float32")
        sites = {who: co.RidgeTrainer(features, data, test=held) for who, data in members.items()}
        return co.Collaboration(method, sites).run(rounds=1)

    run = once(parties)
    alone = np.mean([once({who: data}).metrics["accuracy"] for who, data in parties.items()])
    model = co.MLP(64, 10, hidden=(64,), rate=0.1, batch=16)
    sites = {who: co.Trainer(model, data, test=held) for who, data in parties.items()}
    averaged = co.Collaboration(co.FedAvg(model), sites, seed=SEED).run(rounds=ROUNDS)
    up, theirs = (r.ledger.bytes_up / 1e6 / PARTIES for r in (run, averaged))
    print(
        f"accuracy: one round of ridge {100 * run.metrics['accuracy']:.1f} % ({up:.1f} MB up for each party), "
        f"{ROUNDS} rounds of FedAvg {100 * averaged.metrics['accuracy']:.1f} % ({theirs:.1f} MB), "
        f"alone {100 * alone:.1f} % on average"
    )


if __name__ == "__main__":
    main()
