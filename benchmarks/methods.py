"""The federated methods on digits, unevenly split by label, five seeds: what each gives, and what it costs.

Eight parties (Dirichlet by class) train the same small network. Each method runs with each rate of one small grid, for
each seed; the rate with the highest accuracy on the parties' validation rows is taken, and only that run is scored on
test rows. `own` is the accuracy on the parties' own test rows (all rows count alike), `worst` that of the party where
it is lowest, `common` the mean over parties on one test set that all share. Where models are personal, all of these
are of the personal models. The last two rows are of another split: a linear model for parties alike but for one, whose
images are turned. Bytes and seconds are of the run that was taken.

    python benchmarks/methods.py [method ...]
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any

import numpy as np

import comity as co
from comity.core.contribution import Contribution

PARTIES = 8
SKEW = float(os.environ.get("COMITY_ALPHA", "0.2"))
ROUNDS = int(os.environ.get("COMITY_ROUNDS", "40"))
SEEDS = range(int(os.environ.get("COMITY_SEEDS", "5")))
RATES = (0.03, 0.1, 0.3, 1.0)
BATCH, EPOCHS, HIDDEN = 16, 2, 32
FAST = 100.0  # 1/L over the local rate and q: chosen on validation rows; with the paper's L = 1/rate steps are short


@dataclass(frozen=True)
class Cut:
    """One split: each party's rows to train on, to choose by and to be tested on, and the common test rows."""

    parties: Mapping[str, tuple[Any, Any, Any]]
    common: tuple[Any, Any]


def skewed(seed: int) -> Cut:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, order = (x / 16).astype("float32"), np.random.default_rng(seed).permutation(len(y))
    common, rest = order[:360], order[360:]
    parties = {}
    for name, rows in co.dirichlet(y[rest], PARTIES, alpha=SKEW, seed=seed, min_rows=40).items():
        rows = np.random.default_rng([seed, 1]).permutation(rest[rows])
        a, b = int(0.6 * len(rows)), int(0.8 * len(rows))
        parties[name] = tuple((x[part], y[part]) for part in (rows[:a], rows[a:b], rows[b:]))
    return Cut(parties, (x[common], y[common]))


def turned(seed: int) -> Cut:
    """Parties alike, but that one party's images lie on their side: what is best for most is not good for it."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, order = (x / 16).astype("float32"), np.random.default_rng(seed).permutation(len(y))
    common, rest = order[:360], order[360:]
    parties = {}
    for i, rows in enumerate(np.array_split(rest, PARTIES)):
        mine = x[rows] if i else np.rot90(x[rows].reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64)
        a, b = int(0.6 * len(rows)), int(0.8 * len(rows))
        parties[f"p{i}"] = tuple((mine[p], y[rows][p]) for p in (slice(a), slice(a, b), slice(b, None)))
    return Cut(parties, (x[common], y[common]))


def linear(rate: float) -> Any:
    return co.Linear(64, 10, rate=rate, batch=BATCH, epochs=EPOCHS)


def mlp(rate: float) -> Any:
    return co.MLP(64, 10, hidden=(HIDDEN,), rate=rate, batch=BATCH, epochs=EPOCHS)


def torch_mlp(rate: float) -> Any:
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 10))
    sgd = partial(torch.optim.SGD, lr=rate)
    return co.TorchModel(net, torch.nn.functional.cross_entropy, optimizer=sgd, batch=BATCH, epochs=EPOCHS)


@dataclass(frozen=True)
class Row:
    """How one method is made from a model: the hub, the participants and the combiner (None: its own); and on what."""

    hub: Callable[[Any], Any]
    who: Callable[..., Any]
    model: Callable[[float], Any] = mlp
    combine: Any = None
    split: str = "skewed"


ROWS = {
    "alone": Row(co.FedAvg, partial(co.Ditto, strength=0.0)),
    "FedAvg": Row(co.FedAvg, co.Trainer),
    "FedProx": Row(co.FedAvg, co.FedProx),
    "Scaffold": Row(co.Scaffold, co.ScaffoldTrainer),
    "FedDyn": Row(co.FedDyn, co.FedDynTrainer),
    "QFedAvg": Row(lambda m: co.QFedAvg(m, q=0.5, rate=FAST * m.rate), co.QFedAvgTrainer),
    "QFedAvg, L": Row(lambda m: co.QFedAvg(m, q=0.5, rate=m.rate), co.QFedAvgTrainer),
    "Ditto": Row(co.FedAvg, co.Ditto),
    "FedRep": Row(partial(co.FedRep, head=("2",)), co.FedRepTrainer),
    "APFL": Row(co.FedAvg, co.APFL),
    "IFCA": Row(partial(co.IFCA, clusters=2), co.IFCATrainer),
    "FedProto": Row(lambda m: co.FedProto(10, HIDDEN), partial(co.FedProtoTrainer, tap="1"), torch_mlp),
    "turned: FedAvg": Row(co.FedAvg, co.Trainer, linear, split="turned"),
    "turned: QFedAvg": Row(
        lambda m: co.QFedAvg(m, q=5.0, rate=FAST * m.rate), co.QFedAvgTrainer, linear, split="turned"
    ),
}


def trained(row: Row, rate: float, split: Cut, seed: int) -> tuple[co.Collaboration, Any, float]:
    model = row.model(rate)
    sites = {n: row.who(model, train, valid=valid) for n, (train, valid, _) in split.parties.items()}
    fed = co.Collaboration(row.hub(model), sites, combine=row.combine, seed=seed)
    begun = time.process_time()
    run = fed.run(rounds=ROUNDS)
    lost = [*run.ledger.refused, *run.ledger.dropped]
    assert not lost, lost
    return fed, run, time.process_time() - begun


def tested(fed: co.Collaboration, run: Any, name: str, rows: Any) -> tuple[float, float]:
    """(right, rows) of the model that the participant would use."""
    here = co.Round("test", fed.seed, number=ROUNDS, me=name, roster=PARTIES)
    shared = Contribution("score", fed.method.share(run.state, name, here).value)
    who = replace(fed.participants[name], test=rows, valid=None)
    return who.contribute(shared, run.local(name), here, co.testing.fixed_secret())[0].metrics["accuracy"]


def scored(row: Row, seed: int) -> dict[str, float]:
    split = turned(seed) if row.split == "turned" else skewed(seed)
    tries = {rate: trained(row, rate, split, seed) for rate in RATES}
    rate = max(RATES, key=lambda r: tries[r][1].metrics["valid_accuracy"])
    fed, run, seconds = tries[rate]
    own = [tested(fed, run, n, test) for n, (_, _, test) in split.parties.items()]
    common = [tested(fed, run, n, split.common) for n in split.parties]
    return {
        "own": sum(a for a, _ in own) / sum(n for _, n in own),
        "worst": min(a / n for a, n in own),
        "common": float(np.mean([a / n for a, n in common])),
        "rate": rate, "up": run.ledger.bytes_up, "down": run.ledger.bytes_down, "seconds": seconds,
    }  # fmt: skip


def spread(values: list[float]) -> str:
    return f"{100 * np.mean(values):5.1f} ±{100 * np.std(values, ddof=1) if len(values) > 1 else 0:4.1f}"


def line(name: str) -> dict[str, Any]:
    found = [scored(ROWS[name], seed) for seed in SEEDS]
    by = {k: [f[k] for f in found] for k in found[0]}
    three = "  ".join(spread(by[k]) for k in ("own", "worst", "common"))
    megabytes = "  ".join(f"{np.mean(by[k]) / 1e6:6.2f}" for k in ("up", "down"))
    rates = ",".join(f"{r:g}" for r in by["rate"])
    print(f"{name:<17}{three}  {megabytes}  {np.mean(by['seconds']):6.2f}  {rates}", flush=True)
    return by


def main() -> None:
    print(f"{'':<17}{'own %':<13}{'worst %':<13}{'common %':<13}{'MB up':<8}{'MB down':<9}{'CPU s':<7}rates")
    rows = {name: line(name) for name in sys.argv[1:] or ROWS}
    settings = {
        "data": "digits",
        "parties": PARTIES,
        "alpha": SKEW,
        "rounds": ROUNDS,
        "seeds": list(SEEDS),
        "rates": RATES,
    }
    versions = {"comity": co.__version__, "numpy": np.__version__, "python": platform.python_version()}
    print(
        json.dumps({"benchmark": "methods", **settings, "rows": rows, "versions": versions, "date": str(date.today())})
    )


if __name__ == "__main__":
    main()
