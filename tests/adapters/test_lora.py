"""LoRA: equal to the base at first, small on the wire, merged to the same, and full fine-tuning where the rank is."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import comity as co
from comity.adapters.torch.lora import LowRank, lora, merge

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
WORDS = RNG.integers(0, 9, size=(24, 5))
HERE = co.Round("lora", 0)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3))


class Reader(nn.Module):
    """Token embedding, one attention layer whose weights other code reads, a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(9, 8, padding_idx=0)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3, bias=False)

    def forward(self, x):
        return self.head(self.block(self.tokens(x.long())).mean(1))


def model(module, **settings):
    return co.TorchModel(
        module,
        nn.functional.cross_entropy,
        **{"optimizer": partial(torch.optim.SGD, lr=0.1), "batch": 8, **settings},
    )


def federated(m, rounds=3, **parts):
    sizes = {"a": slice(0, 4), "b": slice(4, 12), "c": slice(12, 24)}
    sites = {n: co.Trainer(m, (X[rows], Y[rows])) for n, rows in sizes.items()}
    return co.Collaboration(co.FedAvg(m), sites, **parts).run(rounds=rounds)


def moved(tuned):
    """The same network with changes that are not zero."""
    torch.manual_seed(5)
    with torch.no_grad():
        for m in tuned.modules():
            if isinstance(m, LowRank):
                m.B.normal_()
    return tuned


READERS = {"all": None, "tokens": ("tokens",), "attention": ("out_proj", "linear1", "tokens", "head")}


@pytest.mark.parametrize("targets", READERS.values(), ids=READERS)
def test_at_first_it_is_the_base(targets):
    base = Reader()
    tuned, x = lora(base, rank=3, alpha=7.0, targets=targets), torch.from_numpy(WORDS)
    for mode in (True, False):
        torch.testing.assert_close(tuned.train(mode)(x), base.train(mode)(x), rtol=0, atol=1e-6)
    assert torch.equal(lora(net())(torch.from_numpy(X)), net()(torch.from_numpy(X)))


def test_only_a_and_b_are_trained_and_travel():
    base, before = net(), copy.deepcopy(net().state_dict())
    run, whole = federated(model(lora(base, rank=2))), federated(model(base))
    assert {k: v.shape for k, v in run.shared.items()} == {"0.A": (2, 6), "0.B": (64, 2), "2.A": (2, 64), "2.B": (3, 2)}
    numbers, every = 2 * (6 + 64) + 2 * (64 + 3), 6 * 64 + 64 + 64 * 3 + 3
    saved = whole.ledger.bytes_up - run.ledger.bytes_up
    assert abs(saved - 9 * 4 * (every - numbers)) < 9 * 60
    assert all(torch.equal(v, before[k]) for k, v in base.state_dict().items())
    assert set(model(lora(base)).frozen) == {f"{i}.layer.{w}" for i in "02" for w in ("weight", "bias")}
    for i in "02":
        assert np.abs(run.shared[f"{i}.B"]).max() > 0


def test_with_a_frozen_only_b_travels_and_a_is_held_to_its_values():
    m = model(lora(net(), rank=2, train_a=False))
    run = federated(m)
    assert sorted(run.shared) == ["0.B", "2.B"]
    assert {"0.A", "2.A"} < set(m.frozen)
    other = model(lora(net(), rank=2, train_a=False, seed=1))
    assert {k for k in m.frozen if m.frozen[k] != other.frozen[k]} == {"0.A", "2.A"}
    with pytest.raises(co.ConfigError, match=r"Got another '0\.A'"):
        co.Collaboration(co.FedAvg(m), {"a": co.Trainer(other, (X, Y))}).run(1)


@pytest.mark.parametrize("targets", READERS.values(), ids=READERS)
def test_merged_it_is_the_same_function(targets):
    tuned, x = moved(lora(Reader(), rank=3, alpha=2.0, targets=targets)), torch.from_numpy(WORDS)
    whole = merge(tuned)
    assert {k: v.shape for k, v in whole.state_dict().items()} == {k: v.shape for k, v in Reader().state_dict().items()}
    assert [type(m) for m in whole.modules()] == [type(m) for m in Reader().modules()]
    assert all(p.requires_grad for p in whole.parameters())
    for mode in (True, False):
        with torch.no_grad():
            torch.testing.assert_close(whole.train(mode)(x), tuned.train(mode)(x), rtol=0, atol=1e-6)
            assert (whole(x) - Reader().train(mode)(x)).abs().max() > 0.01


def test_merged_after_a_run_it_predicts_the_same():
    tuned = lora(net(), rank=2)
    m = model(tuned)
    run = federated(m, rounds=5)
    m.load(tuned, run.shared)
    whole = model(merge(tuned))
    np.testing.assert_allclose(whole.predict(whole.init(HERE), X), m.predict(run.shared, X), atol=1e-6)


def test_padding_stays_as_it_is():
    tuned = moved(lora(nn.Sequential(nn.Embedding(9, 8, padding_idx=0)), targets=("0",)))[0]
    x = torch.tensor([0, 1])
    assert not tuned(x)[0].any()
    tuned(x).sum().backward()
    assert not tuned.A.grad[:, 0].any()
    assert tuned.A.grad[:, 1].any()


def test_gradients_are_those_of_the_whole_weight():
    """dL/dB = s·dL/dW·A' and dL/dA = s·B'·dL/dW, W being the whole weight of the merged network."""
    tuned = moved(lora(net(), rank=3, alpha=6.0))
    whole = merge(tuned)
    for module in (tuned, whole):
        nn.functional.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(Y)).backward()
    for i in (0, 2):
        own, g = tuned[i], whole[i].weight.grad
        torch.testing.assert_close(own.B.grad, 2.0 * g @ own.A.T, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(own.A.grad, 2.0 * own.B.T @ g, rtol=1e-4, atol=1e-6)
        assert own.layer.weight.grad is None


def test_where_the_rank_suffices_it_is_full_fine_tuning():
    """A square and orthonormal and frozen: W's steps are B's, and the average of changes is that of weights."""
    base = nn.Sequential(nn.Linear(6, 3))
    tuned = lora(base, rank=6, train_a=False)
    with torch.no_grad():
        tuned[0].A.copy_(torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0])
    still = copy.deepcopy(base)
    still[0].bias.requires_grad_(False)
    low, full = federated(model(tuned)), federated(model(still))
    change = low.shared["0.B"] @ tuned[0].A.detach().numpy()
    np.testing.assert_allclose(change, full.shared["0.weight"] - base[0].weight.detach().numpy(), atol=1e-6)
    assert np.abs(change).max() > 0.01


@pytest.mark.parametrize("train_a", [True, False])
def test_the_average_of_a_and_b_is_that_of_the_changes_only_with_a_frozen(train_a):
    base = nn.Sequential(nn.Linear(6, 3))
    m = model(lora(base, rank=2, train_a=train_a), epochs=20)
    sites = [(X[:12], Y[:12]), (X[12:], Y[12:])]
    after = [m.fit(m.init(HERE), site, HERE)[0] for site in sites]
    fixed = lora(base, rank=2)[0].A.detach().numpy()
    changes = [t["0.B"] @ t.get("0.A", fixed) for t in after]
    mean = {k: (after[0][k] + after[1][k]) / 2 for k in after[0]}
    far = np.abs(mean["0.B"] @ mean.get("0.A", fixed) - sum(changes) / 2).max()
    assert far > 1e-3 if train_a else far < 1e-6


def test_other_layers_may_be_trained_whole_beside_it():
    tuned = lora(net(), rank=2, targets=("0",))
    tuned[2].requires_grad_(True)
    assert sorted(model(tuned).init(HERE)) == ["0.A", "0.B", "2.bias", "2.weight"]


def test_a_layer_with_two_names_is_changed_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.one = nn.Linear(6, 6)
            self.two = self.one

        def forward(self, x):
            return self.two(torch.relu(self.one(x)))

    tuned = moved(lora(Twice()))
    assert tuned.one is tuned.two
    assert sorted(n for n, p in tuned.named_parameters() if p.requires_grad) == ["one.A", "one.B"]
    whole, x = merge(tuned), torch.from_numpy(X)
    assert whole.one is whole.two
    torch.testing.assert_close(whole(x), tuned(x), rtol=0, atol=1e-5)


def test_a_is_drawn_from_its_own_seed_and_double_stays_double():
    one, same, other = lora(net()), lora(net()), lora(net(), seed=1)
    assert torch.equal(one[0].A, same[0].A)
    assert not torch.equal(one[0].A, other[0].A)
    base = nn.Linear(400, 300)
    drawn = torch.get_rng_state()
    wide = lora(base, rank=100)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert wide.A.std().item() == pytest.approx(400**-0.5, rel=0.02)
    assert lora(net().double())[0].A.dtype == torch.float64


def test_rank_and_scale_are_in_the_recipe():
    a, b = model(lora(net(), rank=4)).fingerprint(), model(lora(net(), rank=4, alpha=8)).fingerprint()
    assert "rank=4, scale=1" in a["modules"]["0"]
    assert "rank=4, scale=2" in b["modules"]["0"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: lora(net(), rank=0), "'rank' of lora"),
        (lambda: lora(net(), alpha=0), "'alpha' of lora"),
        (lambda: lora(net(), train_a=1), "'train_a' of lora"),
        (lambda: lora(net(), seed=0.5), "'seed' of lora"),
        (lambda: lora("net"), "'net' of lora"),
        (lambda: lora(lora(net())), "without changes of lora"),
        (lambda: lora(nn.ReLU()), "must have a Linear layer"),
        (lambda: lora(net(), targets=("1",)), "Got '1'. There are 0, 2"),
        (lambda: lora(Reader(), targets=("hed",)), "Did you mean 'head'"),
        (lambda: lora(net(), targets="0"), "'targets' of lora must be a tuple"),
        (lambda: lora(net(), targets=()), "'targets' of lora must be a tuple"),
        (lambda: lora(net(), targets=5), "'targets' of lora must be a tuple"),
        (lambda: lora(nn.Sequential(nn.Embedding(3, 2, max_norm=1.0)), targets=("0",)), "max_norm"),
        (lambda: merge(net()), "'net' of merge"),
        (lambda: merge(5), "'net' of merge"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(co.ConfigError, match=says):
        call()
