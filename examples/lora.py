"""Six parties tune a network that was trained elsewhere. Must all of it travel?

The network read public digits; the parties' scanner moves each image by one pixel, and they hold unlike shares of the
classes. All of the network is tuned together, or only low-rank changes beside its layers (LoRA), or only half of these
(FFA-LoRA). The baseline is the network as it came. Learning rates were chosen on rows that are not tested on.
"""

from functools import partial

import numpy as np
import torch
from sklearn.datasets import load_digits

import comity as co

PARTIES, ROUNDS, SEED = 6, 30, 0
X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
moved = np.roll(X.reshape(-1, 8, 8), 1, axis=2).reshape(-1, 64)


def model_of(net, rate, epochs=2):
    adam = partial(torch.optim.Adam, lr=rate)
    return co.TorchModel(net, torch.nn.functional.cross_entropy, optimizer=adam, batch=16, epochs=epochs)


def public_network(rows):
    torch.manual_seed(SEED)
    layers = [torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(128, 10))
    model, here = model_of(net, 0.003, 30), co.Round("public", SEED)
    model.load(net, model.fit(model.init(here), (X[rows], y[rows]), here)[0])
    return net


def main() -> None:
    order = np.random.default_rng(SEED).permutation(len(y))
    public, private, test = order[:600], order[600:1200], order[1400:]
    net, parts = public_network(public), co.dirichlet(y[private], PARTIES, alpha=0.5, seed=SEED)
    ways = {"as it came": (net, 0.01, 0), "whole": (net, 0.01, ROUNDS)}
    ways["LoRA"] = (co.lora(net, rank=4), 0.02, ROUNDS)
    ways["FFA-LoRA"] = (co.lora(net, rank=4, train_a=False), 0.06, ROUNDS)
    said = []
    for name, (tuned, rate, rounds) in ways.items():
        model = model_of(tuned, rate)
        sites = {who: co.Trainer(model, (moved[private[r]], y[private[r]])) for who, r in parts.items()}
        run = co.Collaboration(co.FedAvg(model), sites, evaluate=False, seed=SEED).run(rounds)
        right = (model.predict(run.shared, moved[test]).argmax(1) == y[test]).mean()
        sent = run.ledger.bytes_up / PARTIES / ROUNDS / 1e3
        said.append(f"{name} {100 * right:.1f} %" + (f" ({sent:.1f} kB)" if rounds else ""))
    print(f"accuracy (and what a party sends in a round): {', '.join(said)}")


if __name__ == "__main__":
    main()
