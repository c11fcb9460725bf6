"""Accuracy against bytes: sparse tickets beside dense and personal methods, on few images with shifts of their own.

Twenty clients with a few images of each class, each under its own fixed change of contrast, brightness and, for half
of them, inversion; six are asked a round, 40 rounds, five epochs of batches of ten. Everything goes through the public
face and is really encoded; bytes are the ledger's, the last download included. Accuracies are those of the last round,
each client's own on its own test images; validation images decide everything that is decided.

    python benchmarks/tickets.py                          the headline rows on S10, seed 0
    python benchmarks/tickets.py --quick                  two minutes
    python benchmarks/tickets.py --seeds 10-14 --write    five seeds, and into the table of docs/benchmarks.md
    python benchmarks/tickets.py --only all --splits S10,S10-CIFAR,S5
    python benchmarks/tickets.py --keep runs.jsonl        what is there is not run again; two processes may share seeds
    python benchmarks/tickets.py --tune                   learning rates, by validation, on seeds 0 and 1

Prints a table for each split, and one JSON line for machines.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import AbsentError, Images, Split, cifar, dealt, mnist
from race import table
from shots.figures import HEAD, Found, cells, found, summary
from shots.one import trained
from shots.plot import draw
from shots.rates import SEEDS, rate_of, tuned
from shots.rows import AGAINST, HEADLINE, LINES, METHODS, RACES, first

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
ROUNDS, QUICK = 40, 16
VOID, BEST = 5.0, "FedBN, best last pass"
Key = tuple[str, str, int, int, float]
KEY = "split", "run", "seed", "asked", "rate"
SPLITS: Mapping[str, tuple[Callable[[], Images], Split]] = {
    "S10": (mnist, Split(classes=10, shots=5, valid=5, test=40)),
    "S10-CIFAR": (cifar, Split(classes=10, shots=10, valid=5, test=40)),
    "S5": (mnist, Split(classes=5, shots=4, valid=5, test=80)),
    "S2": (mnist, Split(classes=2, shots=25, valid=10, test=100, shift=False)),
}


@dataclass(frozen=True)
class Kept:
    """Runs that were done, in a file of JSON lines or in memory."""

    path: Path | None
    done: dict[Key, dict[str, Any]]

    @classmethod
    def read(cls, path: Path | None) -> "Kept":
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.is_file() else []
        runs = [json.loads(line) for line in lines]
        return cls(path, {tuple(r[k] for k in KEY): r for r in runs})

    def add(self, key: Key, run: Mapping[str, Any]) -> None:
        named = dict(zip(KEY, key, strict=True))
        self.done[key] = {**named, **run}
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.done[key]) + "\n")


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", default="S10", help=f"comma-separated: {', '.join(SPLITS)}")
    parser.add_argument(
        "--only", default=",".join(HEADLINE), help=f"all, or of: alone, {', '.join([*METHODS, *RACES])}"
    )
    parser.add_argument("--seeds", default="0", help="such as 0,1 or 10-14")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} rounds, four methods")
    parser.add_argument("--tune", action="store_true", help="choose learning rates by validation, and no table")
    parser.add_argument("--keep", type=Path, help="file of runs, read and added to")
    parser.add_argument("--kept", action="store_true", help="only what is kept: run nothing, each row of its own seeds")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    return parser.parse_args()


def seeds_of(text: str) -> list[int]:
    """ "0,1" or "10-14"."""
    ranges = [part.split("-") for part in text.split(",")]
    return [seed for r in ranges for seed in range(int(r[0]), int(r[-1]) + 1)]


def runs_of(split: str, names: Sequence[str], seeds: Sequence[int], rounds: int, kept: Kept) -> dict[str, Any]:
    """{method: {seed: run}}: each seed of all methods, then the next."""
    for seed in seeds:
        for name in names:
            run_of(split, name, seed, rounds, rate_of(split, name), kept)
    return {n: {s: kept.done[split, n, s, rounds, rate_of(split, n)] for s in seeds} for n in names}


def kept_of(split: str, names: Sequence[str], seeds: Sequence[int], rounds: int, kept: Kept) -> dict[str, Any]:
    """As `runs_of`, of the runs that there are."""
    found = {n: {s: (split, n, s, rounds, rate_of(split, n)) for s in seeds} for n in names}
    there = {n: {s: kept.done[key] for s, key in by.items() if key in kept.done} for n, by in found.items()}
    return {n: by for n, by in there.items() if by}


def run_of(split: str, name: str, seed: int, rounds: int, rate: float, kept: Kept) -> dict[str, Any]:
    """One run, done now unless it is kept."""
    key = (split, name, seed, rounds, rate)
    if key not in kept.done:
        load, how = SPLITS[split]
        images = load()
        kept.add(key, trained(name, split, images.shape, dealt(images, how, seed), seed, rounds, rate))
        run = kept.done[key]
        best = max(run["ways"].values(), key=lambda w: sum(w["valid"]))
        mean = 100 * sum(best["valid"]) / len(best["valid"])
        said = f"{split} {name} seed {seed} rate {rate:g}: validation {mean:.1f}, {run['seconds']:.1f} CPU s"
        print(said, file=sys.stderr, flush=True)
    return kept.done[key]


def rates(split: str, names: Sequence[str], rounds: int, kept: Kept) -> str:
    """The learning rates of a split, a line for each method."""
    found = tuned(names, lambda name, rate: [run_of(split, name, seed, rounds, rate, kept) for seed in SEEDS])
    lines = []
    for name, by in found.items():
        best = max(by, key=lambda rate: by[rate])
        each = ", ".join(f"{rate:g}: {100 * score:.1f}" for rate, score in by.items())
        lines.append(f"{split} {name}: {best:g} ({each})")
    return "\n".join(lines)


def rows_of(runs: Mapping[str, Any]) -> list[Found]:
    return [found(line, runs[line.run]) for line in LINES if line.run in runs]


def verdict(rows: Sequence[Found]) -> str:
    """Is there anything to be had together? Else a comparison of methods says nothing."""
    by = {row.line.name: row for row in rows}
    if not {"each alone", "FedBN", BEST} <= by.keys():
        return ""
    alone, joint, best = (
        100 * sum(a.mean() for a in by[n].accuracy.values()) / len(by[n].accuracy)
        for n in ("each alone", "FedBN", BEST)
    )
    word = "valid" if best - alone >= VOID else "void"
    return (
        f"Each alone {alone:.1f}, FedBN {joint:.1f}, with the last pass that suits it best {best:.1f}: a difference of "
        f"{joint - alone:.1f} and {best - alone:.1f}, {word} (the latter at least {VOID:g})."
    )


def newcomers(rows: Sequence[Found]) -> str:
    """Of a jumpstart, those who came later, and the same clients without one."""
    by = {row.line.run: row for row in rows}
    if not {"tickets", "tickets-jumpstart"} <= by.keys():
        return ""
    said = []
    for name in ("tickets-jumpstart", "tickets"):
        each = [100 * a[len(first([*map(str, range(len(a)))])) :] for a in by[name].accuracy.values()]
        mean, worst = (sum(f(a) for a in each) / len(each) for f in (lambda a: a.mean(), lambda a: a.min()))
        said.append(f"{mean:.1f}, worst {worst:.1f}")
    return f" Newcomers of the jumpstart {said[0]}; the same clients without it {said[1]}."


def about() -> dict[str, Any]:
    import numpy as np
    import torch

    import comity as co

    versions = {"comity": co.__version__, "python": platform.python_version()}
    return {"date": time.strftime("%Y-%m-%d"), **versions, "torch": torch.__version__, "numpy": np.__version__}


def main() -> None:
    given = asked()
    names = ["alone", *METHODS, *RACES] if given.only == "all" else given.only.split(",")
    rounds = given.rounds
    if given.quick:
        names, rounds = ["alone", "fedavg", "fedbn", "tickets"], QUICK
    seeds, kept = seeds_of(given.seeds), Kept.read(given.keep)
    made, everything, drawn = [], {}, {}
    for split in given.splits.split(","):
        try:
            if given.tune:
                print(rates(split, names, rounds, kept))
                continue
            runs = (kept_of if given.kept else runs_of)(split, names, seeds, rounds, kept)
            rows = rows_of(runs)
        except AbsentError as error:
            print(f"{split} skipped: {error}")
            continue
        against = [row for row in rows if row.line.name in AGAINST]
        head = (*HEAD, *(f"against {row.line.name}" for row in against))
        body = [cells(row, against) for row in rows]
        below = verdict(rows) + newcomers(rows)
        print(f"{split}\n{table.text(head, body)}\n{below}\n")
        made.append(f"**{split}.** {below}\n\n{table.markdown(head, body)}\n\n![{split}](tickets-{split}.svg)")
        drawn[split] = rows
        everything[split] = {row.line.name: summary(row) for row in rows}
    if given.tune:
        return
    print(json.dumps({"benchmark": "tickets", "rounds": rounds, "seeds": seeds, "splits": everything, **about()}))
    if given.write and made:
        for split, rows in drawn.items():
            draw(PAGE.with_name(f"tickets-{split}.svg"), split, rows)
        said = ", ".join(f"{k} {v}" for k, v in about().items())
        table.write(PAGE, {"tickets": "\n\n".join([*made, f"Measured: seeds {given.seeds}, {rounds} rounds, {said}."])})


if __name__ == "__main__":
    main()
