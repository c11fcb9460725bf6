"""Twenty sites with four images of each digit, and a camera of their own: sparse personal tickets (FedLTN).

Cameras differ in brightness, and every second one shows negatives. Megabytes are of both ways.
"""

from functools import partial

import numpy as np
from sklearn.datasets import load_digits
from torch import manual_seed, nn, optim

import comity as co
from comity.methods.sparsity import density

SITES, SHOTS, ROUNDS, EPOCHS, ASKED, SEED = 20, (4, 2), 40, 5, 0.3, 0


def network():
    manual_seed(SEED)
    first = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)
    then = nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(*first, *then, nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))


def shards():
    (x, y), rng, of = load_digits(return_X_y=True), np.random.default_rng(SEED), sum(SHOTS)
    rows = np.stack([rng.permutation(np.flatnonzero(y == c))[:170] for c in range(10)])
    for i in range(SITES):
        gain, offset = rng.uniform(0.4, 1.4) * (-1) ** i, rng.uniform(-0.3, 0.3)
        parts = *np.split(rows[:, i * of : (i + 1) * of], SHOTS[:1], axis=1), rows[:, SITES * of :]
        yield f"site{i}", [((gain * (x[r] / 8 - 1) + offset).reshape(-1, 1, 8, 8), y[r]) for r in map(np.ravel, parts)]


def main() -> None:
    sgd = partial(optim.SGD, lr=0.02, momentum=0.9, weight_decay=1e-4)
    model = co.TorchModel(network(), nn.functional.cross_entropy, optimizer=sgd, batch=20, epochs=EPOCHS)
    data, parts = dict(shards()), {"select": co.sample(ASKED), "evaluate": False, "seed": SEED}
    ltn = {n: co.TicketTrainer(model, train, valid=v, keep=0.1, tolerance=0.1) for n, (train, v, _) in data.items()}
    one = co.Collaboration(co.FedAvg(model), {n: co.Trainer(model, d[0]) for n, d in data.items()}, **parts).run(ROUNDS)
    own = co.Collaboration(co.FedLTN(model, momentum=0.5), ltn, transforms=[co.Sparse()], **parts).run(ROUNDS)
    ways = {
        "alone": (lambda n: model.init(co.Round("", SEED)), lambda n: co.Step(epochs=ROUNDS * EPOCHS * ASKED)),
        "FedAvg": (lambda n: one.shared, lambda n: co.Step()),
        "FedLTN": (lambda n: ltn[n].personal(own.shared, own.local(n)), lambda n: co.Step(mask=own.local(n)["mask"])),
    }
    for name, (begin, step) in ways.items():
        right = []
        for n, (train, _, (x, y)) in data.items():
            homes = begin(n), model.fit(begin(n), train, co.Round("local", SEED, me=n), step(n))[0]
            right.append([100 * (model.predict(params, x).argmax(1) == y).mean() for params in homes])
        (mean, after), (worst, last) = np.mean(right, 0), np.min(right, 0)
        print(f"{name}: mean {mean:.1f} %, worst {worst:.1f} %; trained on at home {after:.1f} % and {last:.1f} %")
    sent = [(run.ledger.bytes_up + run.ledger.bytes_down) / 1e6 for run in (one, own)]
    kept = 100 * np.mean([density(own.local(n)["mask"]) for n in data])
    print(f"FedAvg {sent[0]:.1f} MB, FedLTN {sent[1]:.1f} MB; a ticket keeps {kept:.0f} % of the weights")


if __name__ == "__main__":
    main()
