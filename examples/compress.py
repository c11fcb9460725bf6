"""Fewer bytes, both ways: a network of 17,000 numbers learns to read digits over ten sites, as it is or made short.

The bytes are those of the encoded messages. On the way up a difference of the model may be rounded to 4 bits, at random
but without bias, or be cut to its largest hundredth (what is held back is sent later); on the way down the model itself
is rounded to 8 bits. Each is then compressed without loss.
"""

import numpy as np
from sklearn.datasets import load_digits

import comity as co

SITES, ROUNDS = 10, 25
WAYS = {
    "plain": (),
    "bfloat16": (co.Half(), co.Deflate()),
    "8 bits": (co.Quantize(up=8, down=8), co.Deflate()),
    "4 bits up": (co.Quantize(up=4, down=8), co.Deflate()),
    "top 1 % up": (co.TopK(0.01), co.Quantize(up=8, down=8), co.Deflate()),
}


def shards():
    """(site, its rows for training, its rows for testing), half and half."""
    x, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(y))
    for i, mine in enumerate(np.array_split(rows, SITES)):
        a, b = np.array_split(mine, 2)
        yield f"site{i}", ((x[a] / 16).astype("float32"), y[a]), ((x[b] / 16).astype("float32"), y[b])


def main() -> None:
    model = co.MLP(64, 10, hidden=(128, 64), rate=0.1, batch=16)
    sites = {name: co.Trainer(model, train, test=test) for name, train, test in shards()}
    found, whole = [], 0
    for name, transforms in WAYS.items():
        run = co.Collaboration(co.FedAvg(model), sites, transforms=transforms, evaluate=False).run(rounds=ROUNDS)
        up, down = run.ledger.bytes_up / 1e6, run.ledger.bytes_down / 1e6
        whole = whole or up + down
        right = sum((model.predict(run.shared, s.test[0]).argmax(1) == s.test[1]).sum() for s in sites.values())
        share = right / sum(len(s.test[1]) for s in sites.values())
        found.append(f"{name} {share:.1%}, {up:.1f} MB up, {down:.1f} down ({whole / (up + down):.1f}x)")
    print("accuracy and real bytes: " + "; ".join(found))


if __name__ == "__main__":
    main()
