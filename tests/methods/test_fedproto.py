"""FedProto: eq. 3, 6 and 7 by hand in torch, unlike models, and classes that nobody had."""

from functools import partial

import numpy as np
import pytest

import comity as co

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(6)
DATA = {f"p{i}": (RNG.normal(size=(n, 4)), RNG.integers(0, high, n)) for i, (n, high) in enumerate([(9, 3), (14, 2)])}
RATE, STRENGTH, EPOCHS = 0.2, 0.8, 3


def net(hidden, seed):
    torch.manual_seed(seed)
    layers = (
        torch.nn.Linear(4, hidden),
        torch.nn.Tanh(),
        torch.nn.Linear(hidden, 2),
        torch.nn.Tanh(),
        torch.nn.Linear(2, 4),
    )
    return torch.nn.Sequential(*layers).double()


NETS = {"p0": (5, 0), "p1": (7, 1)}


def model(name):
    sgd = partial(torch.optim.SGD, lr=RATE)
    return co.TorchModel(net(*NETS[name]), torch.nn.functional.cross_entropy, optimizer=sgd, batch=99, epochs=EPOCHS)


def textbook(rounds):
    """Algorithm 1 with full batches; classes 0 to 3, of which nobody has the last."""
    nets = {name: net(*made) for name, made in NETS.items()}
    prototypes, known = torch.zeros(4, 2, dtype=torch.float32), torch.zeros(4)
    for _ in range(rounds):
        sums, counts = torch.zeros(4, 2, dtype=torch.float64), torch.zeros(4)
        for name, one in nets.items():
            x, y = torch.tensor(DATA[name][0]), torch.tensor(DATA[name][1])
            for _ in range(EPOCHS):
                features = one[:4](x)
                far = sum(((features[i] - prototypes[y[i]]) ** 2).mean() * known[y[i]] for i in range(len(y))) / len(y)
                loss = torch.nn.functional.cross_entropy(one[4](features), y) + STRENGTH * far
                slopes = torch.autograd.grad(loss, list(one.parameters()))
                with torch.no_grad():
                    for p, g in zip(one.parameters(), slopes, strict=True):
                        p -= RATE * g
            with torch.no_grad():
                features = one[:4](x)
            for j in range(4):
                if (y == j).any():
                    n = int((y == j).sum())
                    sums[j] += n * features[y == j].mean(0)
                    counts[j] += n
        prototypes = (sums / counts.clamp(min=1)[:, None]).float()
        known = (counts > 0).float()
    return nets, prototypes, known


def test_it_is_the_algorithm_of_the_paper():
    sites = {n: co.FedProtoTrainer(model(n), d, tap="3", strength=STRENGTH) for n, d in DATA.items()}
    run = co.Collaboration(co.FedProto(4, 2), sites).run(rounds=5)
    nets, prototypes, known = textbook(5)
    assert known.tolist() == run.shared["known"].tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(run.shared["prototypes"], prototypes, atol=1e-6)
    for name, one in nets.items():
        for k, p in one.named_parameters():
            np.testing.assert_allclose(run.local(name)["personal"][k], p.detach(), atol=1e-6)


def test_a_class_keeps_its_prototype_when_nobody_has_it_any_more():
    state = {"prototypes": np.ones((3, 2), "float32"), "known": np.array([1, 1, 0], "float32")}
    value, weight = {"prototypes": np.full((3, 2), 5.0)}, {"prototypes": np.array([[2.0], [0.0], [0.0]])}
    after = co.FedProto(3, 2).update(state, co.Contribution("prototype", value, weight), co.Round("", 0))
    assert after["prototypes"][:, 0].tolist() == [5, 1, 1]
    assert after["known"].tolist() == [1, 1, 0]


def test_only_prototypes_travel():
    sites = {n: co.FedProtoTrainer(model(n), d, tap="3") for n, d in DATA.items()}
    run = co.Collaboration(co.FedProto(4, 2), sites).run(rounds=3)
    assert run.ledger.bytes_up < 3 * 2 * 600 + 2000
