"""Sites without labels: what pseudo-labels add to supervised training on the few sites that have some.

Twenty clients with MNIST of 14x14, each under its own fixed change of contrast, brightness and, for half of them,
inversion. Two of them have labels, a few of each class; the other eighteen have 50 images of each class and no label.
In each round the two are asked and three of the others, 30 rounds; all rows train with the same random changes of the
images, and all are tested on every client with running statistics of that client's own images, which needs no label.
Constants were chosen on seeds 0 to 2 by validation images of the labelled clients alone, the only ones with labels.

    python benchmarks/unlabelled.py                          seed 0
    python benchmarks/unlabelled.py --quick                  a minute
    python benchmarks/unlabelled.py --seeds 10-14 --write    five seeds, and into the table of docs/benchmarks.md
    python benchmarks/unlabelled.py --tune                   the constants, by validation, on seeds 0 to 2
    python benchmarks/unlabelled.py --keep runs.jsonl        what is there is not run again; two processes may share

Prints a table, and one JSON line for machines.
"""

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from images import AbsentError, Client, Split, dealt, mnist
from race import table
from shots import net
from shots.figures import Found, Line, gain, summary

import comity as co

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
ROUNDS, QUICK = 30, 12
LABELLED, OTHERS, SHOTS, VALID, ROWS = 2, 3, 5, 5, 50
BATCH = 25
TUNED = 0, 1, 2
HEAD = ("method", "labels", "seeds", "mean", "worst", "without labels", "MB up", "MB down", "CPU s", "used")


@dataclass(frozen=True)
class Labels:
    """How pseudo-labels are made, as co.PseudoLabels has it; `ahead` rounds the labelled train alone before."""

    confidence: float = 0.95
    recalibrate: bool = True
    balance: float = 2.0
    trust: float = 0.1
    ahead: int = 0


@dataclass(frozen=True)
class Row:
    """A row of the table: dense or a ticket; who has labels; and pseudo-labels, or none."""

    name: str
    sparse: bool
    labels: str = "two"
    pseudo: Labels | None = None


CHOSEN = Labels(trust=1.0, ahead=10)
ROWS_OF = {
    "dense-two": Row("dense, the two alone", False),
    "tickets-two": Row("Tickets, the two alone", True),
    "dense-pseudo": Row("dense + PseudoLabels", False, pseudo=CHOSEN),
    "tickets-pseudo": Row("Tickets + PseudoLabels", True, pseudo=CHOSEN),
    "tickets-own": Row("with the statistics of all", True, pseudo=replace(CHOSEN, recalibrate=False)),
    "tickets-any": Row("with classes not balanced", True, pseudo=replace(CHOSEN, balance=math.inf)),
    "tickets-all": Row("with any confidence", True, pseudo=replace(CHOSEN, confidence=0.1)),
    "tickets-start": Row("with nobody ahead", True, pseudo=replace(CHOSEN, ahead=0)),
    "dense-bound": Row("dense, all labelled", False, "all"),
    "tickets-bound": Row("Tickets, all labelled", True, "all"),
}
MAIN = ("dense-two", "tickets-two", "dense-pseudo", "tickets-pseudo", "dense-bound", "tickets-bound")
GRID = {
    "trust 0.1": Labels(trust=0.1),
    "trust 0.03": Labels(trust=0.03),
    "trust 0.1, 10 ahead": Labels(trust=0.1, ahead=10),
    "trust 0.03, 10 ahead": Labels(trust=0.03, ahead=10),
    "trust 1, 10 ahead": Labels(trust=1.0, ahead=10),
}


@dataclass(frozen=True)
class Both:
    """Asks all who have labels, and some of the others."""

    labelled: tuple[str, ...]
    others: int

    def __call__(self, roster: Any, round: Any, past: Any, secret: Any) -> Mapping[str, Sequence[str]]:
        rest = [n for n in (roster[i] for i in range(len(roster))) if n not in self.labelled]
        drawn = round.rng("both").permutation(len(rest))[: self.others]
        return {"hub": sorted([*self.labelled, *(rest[i] for i in drawn)])}

    def expected(self, roster: int) -> float:
        return float(min(roster, len(self.labelled) + self.others))


@dataclass(frozen=True)
class World:
    """The clients of a seed.

    Attributes:
        clients: all, each with its images and their labels.
        labelled: the names of those whose labels may be used, of their first images only.
    """

    clients: Mapping[str, Client]
    labelled: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, seed: int) -> "World":
        found = dealt(mnist(), Split(classes=10, shots=ROWS, valid=VALID, test=40), seed)
        first = tuple(sorted(found)[:LABELLED])
        return cls({n: few(c) if n in first else c for n, c in found.items()}, first)


def few(client: Client) -> Client:
    """The first images of each class alone."""
    x, y = client.train
    some = np.concatenate([np.flatnonzero(y == kind)[:SHOTS] for kind in np.unique(y)])
    return replace(client, train=(x[some], y[some]))


def site(row: Row, model: Any, client: Client, labelled: bool) -> Any:
    """A participant: five epochs of batches of 10 where there are a few labelled images, one of 25 with all of them."""
    model = model if labelled else replace(model, batch=BATCH)
    data = client.train if labelled or row.labels == "all" else None
    epochs = 5 if labelled else 1
    if row.sparse:
        inner: Any = co.SharedTicketTrainer(model, data, epochs=epochs)
    else:
        inner = co.FedProx(model, data, mu=0.0, epochs=epochs)
    if data is not None or row.pseudo is None:
        return inner
    how = {k: v for k, v in asdict(row.pseudo).items() if k != "ahead"}
    return co.PseudoLabels(inner, client.train[0], **how)


def collaboration(row: Row, world: World, seed: int, rounds: int) -> tuple[Any, Any]:
    """It, and its model."""
    model = net.model(mnist().shape, seed, changes=net.DIGITS)
    names = [n for n in world.clients if n in world.labelled or row.labels == "all" or row.pseudo]
    people = {n: site(row, model, world.clients[n], n in world.labelled) for n in names}
    hub: Any = co.Tickets(model, rounds) if row.sparse else co.FedAvg(model, optimizer=co.Momentum(beta=0.5))
    select: Any = co.everyone() if len(names) == LABELLED else Both(world.labelled, OTHERS)
    if row.pseudo and row.pseudo.ahead:
        select = co.jumpstart(world.labelled, min(row.pseudo.ahead, rounds), then=select)
    small = [co.Once(least=64), co.Quantize(up=4, down=8, block=256), co.Deflate()] if row.sparse else []
    return co.Collaboration(hub, people, select=select, transforms=small, evaluate=False, seed=seed), model


def trained(row: Row, seed: int, rounds: int) -> dict[str, Any]:
    """One run: accuracies of all clients on test images, of the labelled ones on validation images; bytes; seconds."""
    begun, world = time.process_time(), World.of(seed)
    fed, model = collaboration(row, world, seed, rounds)
    run = fed.run(rounds=rounds)
    lost = [*run.ledger.refused, *run.ledger.dropped]
    assert not lost, lost
    params = fed.method.params(run.shared) if row.sparse else run.shared
    own = {n: co.finished(model, params, (c.train[0], None)) for n, c in world.clients.items()}
    used = run.ledger.metric("pseudo")
    facts = {way: int(sum(np.sum(e.facts[way]) for e in run.ledger if e.kind == "round")) for way in ("up", "down")}
    return {
        "test": [right(model, own[n], c.test) for n, c in world.clients.items()],
        "valid": [right(model, own[n], world.clients[n].valid) for n in world.labelled],
        "used": [round(float(v), 4) for v in used],
        **facts,
        "seconds": time.process_time() - begun,
    }


def right(model: Any, params: Any, rows: Any) -> float:
    return float(np.mean(model.predict(params, rows[0]).argmax(1) == rows[1]))


@dataclass(frozen=True)
class Kept:
    """Runs that were done, in a file of JSON lines or in memory."""

    path: Path | None
    done: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path | None) -> "Kept":
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.is_file() else []
        return cls(path, {run["key"]: run for run in map(json.loads, lines)})

    def run(self, row: Row, seed: int, rounds: int) -> dict[str, Any]:
        """One run, done now unless it is kept; what is shown of it has not seen a test image."""
        key = str((replace(row, name=""), SHOTS, seed, rounds))
        if key not in self.done:
            found = {"key": key, **trained(row, seed, rounds)}
            self.done[key] = found
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
            mean, used = 100 * np.mean(found["valid"]), found["used"][-1] if found["used"] else 0
            said = f"{row.name}, seed {seed}: validation {mean:.1f}, used {used:.2f}, {found['seconds']:.0f} CPU s"
            print(said, file=sys.stderr, flush=True)
        return self.done[key]


def found(row: Row, runs: Mapping[int, Mapping[str, Any]]) -> Found:
    accuracy = {seed: np.array(run["test"]) for seed, run in runs.items()}
    last = {s: float(np.mean(r["used"][-5:])) if r["used"] else math.nan for s, r in runs.items()}
    facts = {s: {k: float(r[k]) for k in ("up", "down", "seconds")} | {"used": last[s]} for s, r in runs.items()}
    return Found(Line(row.name, row.name), "recalibrate", accuracy, facts)


def cells(row: Row, it: Found, against: Sequence[Found]) -> list[str]:
    """One row as text: HEAD, then a column for each it is compared with."""
    each = [100 * a for a in it.accuracy.values()]
    mean = {k: float(np.mean([f[k] for f in it.facts.values()])) for k in ("up", "down", "seconds", "used")}
    middle = [np.mean([f(a) for a in each]) for f in (np.mean, np.min, lambda a: np.mean(a[LABELLED:]))]
    used = "" if math.isnan(mean["used"]) else f"{mean['used']:.2f}"
    labels = f"{LABELLED} clients" if row.labels == "two" else "all"
    size = [f"{mean['up'] / 1e6:.2f}", f"{mean['down'] / 1e6:.2f}", f"{mean['seconds']:.0f}", used]
    return [row.name, labels, str(len(each)), *(f"{v:.1f}" for v in middle), *size, *(_said(it, o) for o in against)]


def _said(one: Found, other: Found) -> str:
    d = gain(one, other)
    if d is None or one is other:
        return ""
    return f"{d[0]:+.1f} [{d[1]:+.1f}, {d[2]:+.1f}], worst {d[3]:+.1f}"


def tune(kept: Kept, rounds: int) -> None:
    """Validation accuracies of the labelled clients for each of the grid."""
    for name, labels in GRID.items():
        row = Row(name, True, pseudo=labels)
        each = [100 * np.mean(kept.run(row, seed, rounds)["valid"]) for seed in TUNED]
        print(f"{name}: {np.mean(each):.2f} ({', '.join(f'{v:.1f}' for v in each)})")


def about() -> dict[str, Any]:
    import torch

    versions = {"comity": co.__version__, "python": platform.python_version()}
    return {"date": time.strftime("%Y-%m-%d"), **versions, "torch": torch.__version__, "numpy": np.__version__}


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(MAIN), help=f"all, or of: {', '.join(ROWS_OF)}")
    parser.add_argument("--seeds", default="0", help="such as 0,1 or 10-14")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} rounds, three rows")
    parser.add_argument("--tune", action="store_true", help="choose constants by validation, and no table")
    parser.add_argument("--keep", type=Path, help="file of runs, read and added to")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    return parser.parse_args()


def seeds_of(text: str) -> list[int]:
    """ "0,1" or "10-14"."""
    ranges = [part.split("-") for part in text.split(",")]
    return [seed for r in ranges for seed in range(int(r[0]), int(r[-1]) + 1)]


def main() -> None:
    given = asked()
    names = list(ROWS_OF) if given.only == "all" else given.only.split(",")
    rounds, kept = given.rounds, Kept.read(given.keep)
    if given.quick:
        names, rounds = ["tickets-two", "tickets-pseudo", "tickets-bound"], QUICK
    try:
        mnist()
    except AbsentError as error:
        print(f"skipped: {error}")
        return
    if given.tune:
        tune(kept, rounds)
        return
    seeds = seeds_of(given.seeds)
    runs: dict[str, dict[int, Any]] = {name: {} for name in names}
    for seed in seeds:
        for name in names:
            runs[name][seed] = kept.run(ROWS_OF[name], seed, rounds)
    rows = {name: found(ROWS_OF[name], runs[name]) for name in names}
    against = [rows[name] for name in ("tickets-two", "tickets-bound") if name in rows]
    head = (*HEAD, *(f"against {other.line.name}" for other in against))
    body = [cells(ROWS_OF[name], row, against) for name, row in rows.items()]
    print(table.text(head, body))
    figures = {name: summary(row) for name, row in rows.items()}
    print(json.dumps({"benchmark": "unlabelled", "rounds": rounds, "seeds": seeds, "rows": figures, **about()}))
    if given.write:
        said = ", ".join(f"{k} {v}" for k, v in about().items())
        measured = f"Measured: seeds {given.seeds}, {rounds} rounds, {SHOTS} labelled images of a class, {said}."
        table.write(PAGE, {"unlabelled": f"{table.markdown(head, body)}\n\n{measured}"})


if __name__ == "__main__":
    main()
