"""Ten clinics learn to read digits and show nobody what they learnt: two servers add it, and neither can read it.

The hub is sent each difference of the model under a mask, the helper the seed of the mask, sealed for it. The helper
adds the masks, once for a list of members, and the hub takes them away from its own sum. Together they could read all.
"""

import numpy as np
from sklearn.datasets import load_digits

import comity as co

CLINICS, ROUNDS = 10, 20


SEEN = {}


class Hub(co.TwoServer):
    """Two servers, and what the hub is sent."""

    def open(self, sealed, session, ask, until):
        return super().open((SEEN.setdefault(c.sender, c) and c for c in sealed), session, ask, until)


class Helper(co.Helper):
    """The second server, and what it is asked."""

    def masks(self, question):
        return super().masks(SEEN.setdefault("", question) and question)


def main() -> None:
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    test, train = np.split(np.random.default_rng(0).permutation(len(y)), [len(y) // 4])
    model = co.MLP(64, 10, hidden=(32,), rate=0.1, batch=16)
    cut = co.iid(len(train), CLINICS, seed=0)
    clinics = {name: co.Trainer(model, (x[train[rows]], y[train[rows]])) for name, rows in cut.items()}
    plain = co.Collaboration(co.FedAvg(model, bound=0.5), clinics, combine=co.Mean(uniform=True), evaluate=False)
    helper = Helper(minimum=3)  # in truth a process of somebody else: comity helper --folder F
    secure = plain.replace(channel=Hub(helper))
    open_, hidden = plain.run(rounds=ROUNDS).shared, secure.run(rounds=ROUNDS).shared
    off = max(float(np.abs(open_[name] - hidden[name]).max()) for name in open_)
    right = float((model.predict(hidden, x[test]).argmax(1) == y[test]).mean())
    words, seeds = SEEN["p0"].value["words"], len(SEEN[""].value["seeds"]) // CLINICS
    print(
        f"the hub saw {len(words):,} words for each clinic, such as {words[:3].tolist()}: {words.std() / 2**32:.3f} of"
    )
    print(
        f"the range, as chance has it (0.289); the helper saw {seeds} bytes for each clinic and the length of a vector"
    )
    print(f"accuracy {right:.1%}; after {ROUNDS} rounds the model is the one without protection but for {off:.0e}")


if __name__ == "__main__":
    main()
