"""Sites whose scanners differ: average BatchNorm and fit it at the end, or never share it?

Ten sites read digits, each through a scanner of its own: some are darker, some paler, half of them show the negative.
FedAvg averages everything; FedBN never shares the BatchNorm layers. Both are scored as they are, and finished on each
site's own training rows: new running statistics, these layers trained alone, or a last full pass. Validation chooses
the way for all. The baseline is what each site learns alone.
"""

from functools import partial

import numpy as np
import torch
from sklearn.datasets import load_digits

import comity as co
from comity.methods.tuning import WAYS, chosen

SITES, ROUNDS, SEEDS = 10, 20, 3


def shards(seed):
    """(site, its 40 rows for training, about 120 for testing, 20 to choose by), seen through its scanner."""
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    for i, rows in enumerate(np.array_split(rng.permutation(len(y)), SITES)):
        gain, offset = rng.uniform(0.4, 1.4), rng.uniform(-0.3, 0.3)
        pictures = x[rows] / 16 if i % 2 else 1 - x[rows] / 16
        seen = (gain * pictures + offset).astype("float32")
        yield f"site{i}", *((seen[a:b], y[rows[a:b]]) for a, b in ((0, 40), (60, len(rows)), (40, 60)))


def network(seed):
    torch.manual_seed(seed)
    norm, relu = torch.nn.BatchNorm1d, torch.nn.ReLU
    layers = torch.nn.Linear(64, 64), norm(64), relu(), torch.nn.Linear(64, 32), norm(32), relu()
    net, sgd = torch.nn.Sequential(*layers, torch.nn.Linear(32, 10)), partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    return co.TorchModel(net, torch.nn.functional.cross_entropy, optimizer=sgd, batch=10, epochs=2)


def main() -> None:
    found = {}
    for seed in range(SEEDS):
        model = network(seed)
        alone = {who: co.Ditto(model, d, 0.0, test=t) for who, d, t, _ in shards(seed)}
        runs = {"alone": (co.FedAvg(model), alone)}
        for name, hub, site in (("FedAvg", co.FedAvg, co.Trainer), ("FedBN", co.FedBN, co.FedBNTrainer)):
            runs[name] = hub(model), {who: co.Tuned(site(model, *rows)) for who, *rows in shards(seed)}
        for name, (method, sites) in runs.items():
            got = co.Collaboration(method, sites, seed=seed).run(rounds=ROUNDS).metrics
            ways = ["accuracy"] if name == "alone" else [f"{w}_accuracy" for w in (*WAYS, chosen(got))]
            found.setdefault(name, []).append([100 * got[way] for way in ways])
    said = "; ".join(f"{name} {' '.join(f'{v:.1f}' for v in np.mean(rows, 0))}" for name, rows in found.items())
    print(f"accuracy in % on each site's own test rows, mean of {SEEDS} seeds ({', '.join(WAYS)}, chosen): {said}")


if __name__ == "__main__":
    main()
