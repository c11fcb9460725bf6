"""Whole channels and neurons taken out while many train: what is left of accuracy, time, memory and file.

The clients, images and ways of training of benchmarks/tickets.py, on S10: a dense network, tickets of single weights,
and tickets of whole nodes, which are then shrunk to small dense networks. First it is asserted that these compute what
the masked ones do; then a forward pass is timed: CPU time on one thread, networks in turn, the least of many series.
Memory is that of parameters and of the tensors of one forward pass at its peak. Validation images choose the last pass;
accuracies are those of each client's own test images, of tickets as they come out of an int8 file and float32 if dense.

    python benchmarks/nodes.py                            densities 0.5, 0.3 and 0.15, seed 0
    python benchmarks/nodes.py --densities 0.5 --rounds 16
    python benchmarks/nodes.py --seeds 10,11,12 --write   into docs/benchmarks.md

Prints two tables, and one JSON line for machines. The 16x16 colour network is not trained: only its time is measured,
with the nodes that the mask leaves of first values.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from images import AbsentError, Split, dealt, mnist
from race import table
from shots import net
from shots.one import Seen, dense, filed, tried
from shots.rows import METHODS, SHARED, Task, changes, tickets
from torch import nn
from torch.profiler import profile

import comity as co
from comity.methods.sparsity import masked, node_mask

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
SPLIT = Split(classes=10, shots=5, valid=5, test=40)
COLOUR, BATCHES, SERIES = (3, 16, 16), (1, 64), 25
HEAD = ("network", "nodes left", "parameters", "mean", "worst", "int8 file kB", "of dense int8", "of dense float32")
TIMES = ("network", "us, batch 1", "faster", "us, batch 64", "faster", "kB, batch 1", "less", "kB, batch 64", "less")
TIMES = (*TIMES, "folded: faster, 1", "faster, 64")
KINDS: Mapping[str, Mapping[str, str]] = {
    "weights": {},
    "nodes": {"prune": "nodes"},
    "nodes by layer": {"prune": "nodes", "scope": "layer"},
}
Networks = dict[str, nn.Module]


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--densities", default="0.5,0.3,0.15")
    parser.add_argument("--seeds", default="0", help="such as 10,11,12")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    return parser.parse_args()


def methods(densities: Sequence[float]) -> dict[str, Any]:
    """Name to method: the dense twin, then at each density weights, nodes, and nodes layer by layer."""
    out: dict[str, Any] = {"dense": METHODS["twin"]}
    for density in densities:
        for name, how in KINDS.items():
            out[f"{name} {density:g}"] = replace(SHARED, hub=tickets(density=density, **how))
    return out


def trained(how: Any, shape: tuple[int, ...], clients: Mapping[str, Any], seed: int, rounds: int) -> dict[str, Any]:
    """The shared parameters at the end, their mask where there is one, and the accuracies of the clients."""
    model = net.model(shape, seed, changes=changes("S10"))
    task = Task(model, rounds)
    hub, people = how.hub(task), {n: Seen(how.who(task, c)) for n, c in clients.items()}
    fed = co.Collaboration(hub, people, transforms=how.transforms(), select=how.select(list(people)), seed=seed)
    run = fed.run(rounds=rounds)
    ways = [tried(way, how, model, people, clients, seed, rounds) for way in how.ways]
    test = max(ways, key=lambda found: sum(found["valid"]))["test"]
    ticket = hasattr(hub, "mask")
    params, mask = (hub.params(run.shared), hub.mask(run.shared)) if ticket else (run.shared, {})
    return {"params": params, "mask": mask, "test": test}


def small_of(shape: tuple[int, ...], params: Any, mask: Any) -> nn.Module:
    """The network without the nodes that are gone; it computes what the masked one does."""
    whole = net.network(shape, 0).eval()
    model = co.TorchModel(whole, nn.functional.cross_entropy)
    model.load(whole, masked(params, mask))
    small, x = co.shrink(whole, mask=mask), torch.randn(64, *shape)
    with torch.no_grad():
        torch.testing.assert_close(small(x), whole(x), rtol=1e-5, atol=1e-5)
    return small


def colour(densities: Sequence[float]) -> Networks:
    """Networks for 16x16 colour, untrained."""
    model = net.model(COLOUR, 0)
    params = model.init(co.Round("", 0))
    scopes = {"nodes": "global", "nodes by layer": "layer"}
    masks = {
        f"{name} {d:g}": node_mask(params, d, model.nodes, scope=scope)
        for d in densities
        for name, scope in scopes.items()
    }
    return {name: small_of(COLOUR, params, mask) for name, mask in {"dense": {}, **masks}.items()}


def seconds(networks: Networks, x: torch.Tensor) -> dict[str, float]:
    """CPU time of one forward pass of each, the least of many series that take turns."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    calls = 40 if len(x) == 1 else 4
    with torch.inference_mode():
        for _ in range(SERIES):
            for name, network in networks.items():
                begun = time.thread_time()
                for _ in range(calls):
                    network(x)
                times[name].append((time.thread_time() - begun) / calls)
    return {name: min(each) for name, each in times.items()}


def memory(network: nn.Module, x: torch.Tensor) -> int:
    """Bytes of parameters and buffers, and of what a forward pass holds beside them at its peak."""
    with torch.inference_mode():
        network(x)
        with profile(profile_memory=True) as seen:
            network(x)
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    moves = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    held = sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
    return int(held + np.cumsum([0, *moves]).max())


def speed(networks: Networks, shape: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """By network: microseconds, kilobytes, and times that it is faster than the dense one, plain and folded."""
    out: dict[str, dict[str, float]] = {name: {} for name in networks}
    folded = {name: co.fold(network) for name, network in networks.items()}
    for batch in BATCHES:
        x = torch.randn(batch, *shape)
        plain, short, held = seconds(networks, x), seconds(folded, x), {n: memory(m, x) for n, m in networks.items()}
        for name, facts in out.items():
            facts |= {f"us_{batch}": 1e6 * plain[name], f"faster_{batch}": plain["dense"] / plain[name]}
            facts |= {f"kb_{batch}": held[name] / 1000, f"less_{batch}": held["dense"] / held[name]}
            facts |= {f"folded_faster_{batch}": short["dense"] / short[name]}
    return out


def facts(found: Sequence[Mapping[str, Any]], networks: Sequence[nn.Module]) -> dict[str, Any]:
    """The mean over the seeds; nodes and parameters are of the first seed. The file is of the small network."""
    accuracy = 100 * np.array([f["test"] for f in found])
    models = [co.TorchModel(network, nn.functional.cross_entropy) for network in networks]
    params: list[Any] = [model.init(co.Round("", 0)) for model in models]
    return {
        "nodes": [group.count(params[0]) for group in models[0].nodes],
        "parameters": sum(p.numel() for p in networks[0].parameters()),
        "mean": float(accuracy.mean()),
        "worst": float(accuracy.min(1).mean()),
        "float_kb": dense(models[0]) / 1000,
        "file_kb": float(np.mean([filed(p, "int8")[1] for p in params])) / 1000,
    }


def rows(found: Mapping[str, Mapping[str, Any]]) -> list[Sequence[str]]:
    whole = found["dense"]
    return [
        (
            name,
            "-".join(map(str, f["nodes"])),
            f"{f['parameters']:,}",
            *(f"{f[k]:.1f}" for k in ("mean", "worst", "file_kb")),
            *(f"1/{whole[k] / f['file_kb']:.1f}" for k in ("file_kb", "float_kb")),
        )
        for name, f in found.items()
    ]


def time_rows(what: str, found: Mapping[str, Mapping[str, float]]) -> list[Sequence[str]]:
    keys = [f"{k}_{b}" for k in ("us", "faster", "kb", "less") for b in BATCHES]
    keys = [keys[i] for i in (0, 2, 1, 3, 4, 6, 5, 7)] + [f"folded_faster_{b}" for b in BATCHES]
    return [(f"{what}, {name}", *(table.number(f[k]) for k in keys)) for name, f in found.items()]


def measured(given: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything: what was trained, and how fast it is."""
    densities = [float(d) for d in given.densities.split(",")]
    seeds = [int(s) for s in given.seeds.split(",")]
    images, made, accuracy = mnist(), {}, {}
    for name, how in methods(densities).items():
        found = [trained(how, images.shape, dealt(images, SPLIT, seed), seed, given.rounds) for seed in seeds]
        networks = [small_of(images.shape, f["params"], f["mask"]) for f in found]
        made[name], accuracy[name] = networks[0], facts(found, networks)
        say(f"{name}: {accuracy[name]}")
    grey = {name: network for name, network in made.items() if not name.startswith("weights")}
    return {"trained": accuracy, "14x14": speed(grey, images.shape), "16x16": speed(colour(densities), COLOUR)}


def main() -> None:
    given = asked()
    torch.set_num_threads(1)
    try:
        found = measured(given, lambda text: print(text, flush=True))
    except AbsentError as error:
        print(f"nodes skipped: {error}")
        return
    times = [*time_rows("14x14", found["14x14"]), *time_rows("16x16x3", found["16x16"])]
    for head, body in ((HEAD, rows(found["trained"])), (TIMES, times)):
        print(f"{table.text(head, body)}\n")
    about = {"date": time.strftime("%Y-%m-%d"), "comity": co.__version__, "python": platform.python_version()}
    about |= {"torch": torch.__version__, "numpy": np.__version__}
    print(json.dumps({"benchmark": "nodes", "rounds": given.rounds, "seeds": given.seeds, **found, **about}))
    if given.write:
        said = (
            f"Measured: seeds {given.seeds}, {given.rounds} rounds, {', '.join(f'{k} {v}' for k, v in about.items())}."
        )
        parts = [table.markdown(HEAD, rows(found["trained"])), table.markdown(TIMES, times), said]
        table.write(PAGE, {"nodes": "\n\n".join(parts)})


if __name__ == "__main__":
    main()
