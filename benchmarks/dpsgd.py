"""A step of DP-SGD beside a plain one: clipped gradients, noise, and both in opacus.

    python benchmarks/dpsgd.py                                  this library alone, a minute
    python benchmarks/dpsgd.py --peer /path/to/bin/python       a Python that has torch and opacus; some minutes
    python benchmarks/dpsgd.py --quick                          some seconds
    python benchmarks/dpsgd.py --peer ... --write               into the table of docs/benchmarks.md

First the clipped sum must equal that of the rows one by one. Then whole fits are timed, of 64 steps each: the batch
drawn, gathered and clipped, noise added, plain SGD; against as many steps without privacy, in turns, CPU time of one
thread, the quickest of each. A peer's steps are of a batch that is there already, against plain steps in its own
process. Prints a table, and one JSON line for machines.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch
from torch import Tensor, nn

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
STEPS, PART, TURNS = 64, 16, 5
CLIP, NOISE = 1.0, 1.0
WANTED = {"mlp": "<= 1.5", "cnn": "<= 1.8"}
HEAD = ("model", "parameters", "batch", "who", "CPU ms a step", "plain ms", "ratio", "without noise", "wanted")
SETTINGS = tuple((name, batch) for name in ("mlp", "cnn") for batch in (64, 256))


def mlp() -> nn.Module:
    wide = nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    return nn.Sequential(nn.Flatten(), *wide)


def cnn() -> nn.Module:
    """The small network of digits of Papernot et al., AAAI 2021, and of others since."""
    first = nn.Conv2d(1, 16, 8, 2, padding=3), nn.ReLU(), nn.MaxPool2d(2, 1)
    second = nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.MaxPool2d(2, 1)
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10))


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return {"mlp": mlp, "cnn": cnn}[name]()


def rows(n: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, 1, 28, 28), torch.randint(0, 10, (n,))


def one_by_one(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The sum of each row's own gradient, clipped: the plain way."""
    named = dict(net.named_parameters())
    total = {k: torch.zeros_like(p) for k, p in named.items()}
    for i in range(len(x)):
        found = torch.autograd.grad(nn.functional.cross_entropy(net(x[i : i + 1]), y[i : i + 1]), list(named.values()))
        norm = torch.stack([g.norm() for g in found]).norm()
        for slot, g in zip(total.values(), found, strict=True):
            slot += g * min(1.0, CLIP / float(norm))
    return total


def same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], who: str) -> float:
    """The largest difference; 1e-5 at most."""
    worst = max(float((found[k] - wanted[k]).abs().max()) for k in wanted)
    assert worst <= 1e-5, f"{who} differs from the rows one by one by {worst}."
    return worst


def quickest(doing: Mapping[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """CPU seconds of each, the least of so many turns, after one to warm up."""
    least = dict.fromkeys(doing, float("inf"))
    for turn in range(turns + 1):
        for name, do in doing.items():
            begun = time.process_time()
            do()
            spent = time.process_time() - begun
            least[name] = min(least[name], spent) if turn else least[name]
    return least


def ours(name: str, batch: int, turns: int) -> list[dict[str, Any]]:
    """This library: whole fits."""
    import comity as co

    here, n = co.Round("dpsgd", 0), PART * batch
    x, y = rows(n)
    sgd = partial(torch.optim.SGD, lr=0.01)
    plain = co.TorchModel(made(name), nn.functional.cross_entropy, optimizer=sgd, batch=batch, epochs=STEPS // PART)
    private = co.TorchModel(
        plain.module, plain.loss, optimizer=sgd, batch=2 * batch, epochs=plain.epochs
    )  # the rows at once; a Poisson batch is sometimes larger than is expected
    start = plain.init(here)
    purpose = fair(batch, sum(p.numel() for p in plain.module.parameters()))

    def fit(noise: float) -> Any:
        drawn = co.Private(CLIP, noise, co.testing.fixed_secret().stream(purpose), 1 / PART)
        return private.fit(start, (x, y), here, co.Step(private=drawn))[0]

    worst = same(summed(name, x[:batch], y[:batch]), one_by_one(made(name), x[:batch], y[:batch]), "comity")
    took = quickest(
        {"plain": lambda: plain.fit(start, (x, y), here), "both": lambda: fit(NOISE), "clip": lambda: fit(0.0)}, turns
    )
    return [{"who": "comity", **{k: v / STEPS for k, v in took.items()}, "error": worst}]


def fair(batch: int, size: int) -> str:
    """A purpose of a stream by which as many rows are drawn as a plain fit goes through, to within half a percent."""
    import numpy as np

    import comity as co
    from comity.adapters.private import drawn, put_normals

    room = np.empty(size, np.float32)
    for i in range(100):
        found, stream = {}, {noise: co.testing.fixed_secret().stream(f"fair {i}") for noise in (0.0, NOISE)}
        for noise, source in stream.items():
            found[noise] = 0
            for _ in range(STEPS):
                found[noise] += len(drawn(source, PART * batch, 1 / PART))
                put_normals(room, source, noise)
        if all(abs(rows / (STEPS * batch) - 1) < 0.005 for rows in found.values()):
            return f"fair {i}"
    raise AssertionError("No stream of a hundred is fair.")


def summed(name: str, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The clipped sum, from what a step without noise and at rate 1 changes."""
    import comity as co

    here, sgd = co.Round("dpsgd", 0), partial(torch.optim.SGD, lr=1.0)
    model = co.TorchModel(made(name), nn.functional.cross_entropy, optimizer=sgd, batch=len(x))
    everybody = co.Private(CLIP, 0.0, co.testing.fixed_secret().stream("all"), 1.0)
    start = model.init(here)
    moved = model.fit(start, (x, y), here, co.Step(private=everybody))[0]
    return {k: torch.from_numpy((start[k] - v) * len(x)) for k, v in moved.items()}


def peers(name: str, batch: int, turns: int) -> list[dict[str, Any]]:
    """Opacus, by hooks and by ghost norms, in its own process."""
    import opacus
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    x, y = rows(batch)
    net, out = made(name), []
    sgd = torch.optim.SGD(net.parameters(), lr=0.01)

    def plain() -> None:
        sgd.zero_grad()
        value: Any = nn.functional.cross_entropy(net(x), y)
        value.backward()
        sgd.step()

    def hooks(noise: float) -> tuple[Any, Callable[[], None]]:
        module = GradSampleModule(made(name))
        inner = torch.optim.SGD(module.parameters(), lr=0.01)
        optimizer = DPOptimizer(inner, noise_multiplier=noise, max_grad_norm=CLIP, expected_batch_size=batch)

        def step() -> None:
            optimizer.zero_grad()
            value: Any = nn.functional.cross_entropy(module(x), y)
            value.backward()
            optimizer.step()

        return module, step

    def ghost(noise: float) -> tuple[Any, Callable[[], None]]:
        module = GradSampleModuleFastGradientClipping(made(name), max_grad_norm=CLIP, use_ghost_clipping=True)
        inner = torch.optim.SGD(module.parameters(), lr=0.01)
        optimizer = DPOptimizerFastGradientClipping(
            inner, noise_multiplier=noise, max_grad_norm=CLIP, expected_batch_size=batch
        )
        loss = DPLossFastGradientClipping(module, optimizer, nn.CrossEntropyLoss())

        def step() -> None:
            optimizer.zero_grad()
            loss(module(x), y).backward()
            optimizer.step()

        return module, step

    for label, make in (("hooks", hooks), ("ghost", ghost)):
        module, step = make(0.0)
        step()
        found = {k.removeprefix("_module."): p.grad * batch for k, p in module.named_parameters()}
        worst = same(found, one_by_one(made(name), x, y), f"opacus {label}")
        took = quickest({"plain": plain, "both": make(NOISE)[1], "clip": make(0.0)[1]}, turns)
        out.append({"who": f"opacus {opacus.__version__}, {label}", **took, "error": worst})
    return out


def noise(turns: int) -> dict[str, float]:
    """Normal numbers a second, in millions, from the cipher and from torch; 4 million float32 each."""
    import numpy as np

    import comity as co
    from comity.adapters.private import put_normals

    here, there = np.empty(2**22, np.float32), torch.empty(2**22)
    stream = co.testing.fixed_secret().stream("noise")
    took = quickest({"cipher": lambda: put_normals(here, stream, 1.0), "torch": lambda: there.normal_()}, 3 * turns)
    found = {k: 2**22 / v / 1e6 for k, v in took.items()}
    return {**found, "ratio": found["cipher"] / found["torch"]}


def measured(work: Callable[[str, int, int], list[dict[str, Any]]], turns: int, settings: Sequence[Any]) -> list[Any]:
    """Each setting, said as it is done."""
    out = []
    for name, batch in settings:
        size = sum(p.numel() for p in made(name).parameters())
        for found in work(name, batch, turns):
            out.append({"model": name, "parameters": size, "batch": batch, **found})
            print(f"{name} {batch} {found['who']}: {found['both'] / found['plain']:.2f}", file=sys.stderr, flush=True)
    return out


def cells(found: Mapping[str, Any]) -> list[str]:
    times = [f"{1e3 * found[k]:.3g}" for k in ("both", "plain")]
    ratios = [f"{found[k] / found['plain']:.3g}" for k in ("both", "clip")]
    wanted = WANTED[found["model"]] if found["who"] == "comity" else ""
    return [found["model"], f"{found['parameters']:,}", str(found["batch"]), found["who"], *times, *ratios, wanted]


def about() -> dict[str, str]:
    import comity as co

    versions = {"comity": co.__version__, "python": platform.python_version(), "torch": torch.__version__}
    return {"date": time.strftime("%Y-%m-%d"), **versions}


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="a Python that has torch and opacus")
    parser.add_argument("--quick", action="store_true", help="one model, one batch")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    parser.add_argument("--as-peer", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def of_peer(python: Path, given: argparse.Namespace) -> list[Any]:
    """What this file says when the other Python runs it."""
    command = [str(python), __file__, "--as-peer", "--turns", str(given.turns), *(["--quick"] if given.quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=1800, check=True)
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    given = asked()
    torch.set_num_threads(1)
    settings = SETTINGS[:1] if given.quick else SETTINGS
    if given.as_peer:
        print(json.dumps(measured(peers, given.turns, settings)))
        return
    from race import table

    found = measured(ours, given.turns, settings)
    found += of_peer(given.peer, given) if given.peer else []
    found.sort(key=lambda f: [(f["model"], f["batch"]) == s for s in SETTINGS], reverse=True)
    rate, body = noise(given.turns), [cells(f) for f in found]
    said = f"Noise: {rate['cipher']:.0f} million normal numbers a second from the cipher, {rate['torch']:.0f} of "
    said += f"torch.randn: {rate['ratio']:.2f} (wanted >= 0.7)."
    print(table.text(HEAD, body), said, sep="\n\n")
    print(json.dumps({"benchmark": "dpsgd", "rows": found, "noise": rate, **about()}))
    if given.write:
        versions = ", ".join(f"{k} {v}" for k, v in about().items())
        table.write(PAGE, {"dpsgd": f"{table.markdown(HEAD, body)}\n\n{said}\n\nMeasured: {versions}."})


if __name__ == "__main__":
    main()
