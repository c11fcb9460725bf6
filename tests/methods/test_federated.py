"""What all of these methods share: their laws, resuming, lost replies, starts, statistics, what travels, settings."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

import comity as co
from comity import running
from comity.core.contribution import Contribution
from comity.core.tree import leaves, norm, ravel, tree_map
from comity.core.wire import encode, encode_tree

RNG = np.random.default_rng(4)
SIZES = (8, 25, 14, 11)
DATA = {f"p{i}": (RNG.normal(size=(n, 4)).astype("float32"), RNG.integers(0, 3, n)) for i, n in enumerate(SIZES)}
MLP = co.MLP(4, 3, hidden=(5,), rate=0.1, batch=4)
SECRET = co.testing.fixed_secret()


def torch_model(norm=False, buffers="average", seed=0):
    torch = pytest.importorskip("torch")
    torch.manual_seed(seed)
    middle = [torch.nn.BatchNorm1d(5)] if norm else []
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), *middle, torch.nn.ReLU(), torch.nn.Linear(5, 3))
    loss, sgd = torch.nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1)
    return co.TorchModel(net, loss=loss, optimizer=sgd, batch=4, buffers=buffers)


def last(model):
    return (sorted(model.init(co.Round("", 0)))[-1].split(".")[0],)


METHODS = {
    "Scaffold": (co.Scaffold, co.ScaffoldTrainer),
    "FedDyn": (co.FedDyn, co.FedDynTrainer),
    "QFedAvg": (co.QFedAvg, co.QFedAvgTrainer),
    "FedRep": (lambda model, **more: co.FedRep(model, head=last(model), **more), co.FedRepTrainer),
    "APFL": (co.FedAvg, co.APFL),
    "IFCA": (co.IFCA, co.IFCATrainer),
    "FedProto": (
        lambda model, **more: co.FedProto(3, 5, **more),
        lambda model, data, **more: co.FedProtoTrainer(model, data, str(int(last(model)[0]) - 1), **more),
    ),
}  # fmt: skip
MODELS = {
    "linear": lambda: co.Linear(4, 3, rate=0.1, batch=4),
    "mlp": lambda: MLP,
    "batchnorm": lambda: torch_model(True),
    "local buffers": lambda: torch_model(True, "local"),
}
NOT = {("FedRep", "linear"), ("FedProto", "linear"), ("FedProto", "mlp")}
CELLS = [(name, model) for name in METHODS for model in MODELS if (name, model) not in NOT]
HUBS = [name for name in METHODS if name != "FedProto"]


def collaboration(name, model, **parts):
    hub, who = METHODS[name]
    return co.Collaboration(hub(model), {n: who(model, d) for n, d in DATA.items()}, seed=3, **parts)


def usual(name):
    return torch_model() if name == "FedProto" else MLP


@pytest.mark.parametrize(("name", "model"), CELLS)
def test_the_laws_of_methods_hold(name, model):
    model, (hub, who) = MODELS[model](), METHODS[name]
    co.testing.check_method(hub(model), lambda: {n: who(model, d, test=d, valid=d) for n, d in DATA.items()})


@pytest.mark.parametrize(("name", "model"), [cell for cell in CELLS if cell[1] in ("linear", "batchnorm")])
def test_it_learns_in_the_loop_with_some_asked(name, model):
    made = MODELS[model]()
    fed = collaboration(name, made, select=co.sample(2))
    first, later = fed.run(rounds=1).metrics, fed.run(rounds=15)
    assert later.ledger.refused == later.ledger.dropped == []
    assert later.metrics["train_log_loss"] < first["train_log_loss"]


@pytest.mark.parametrize("name", METHODS)
def test_in_pieces_as_in_one(name, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    fed = collaboration(name, usual(name), select=co.sample(2))
    straight = fed.run(rounds=5, folder=tmp_path / "straight")
    for rounds in (1, 2, 5):
        pieces = fed.run(rounds=rounds, folder=tmp_path / "pieces")
    assert encode_tree(pieces.state) == encode_tree(straight.state)
    assert pieces.metrics == straight.metrics
    for n in DATA:
        assert encode_tree(pieces.local(n)) == encode_tree(straight.local(n))


@dataclass(frozen=True)
class Refused:
    """Its answer of the third round does not count."""

    who: Any

    def contribute(self, shared, local, round, secret):
        c, after = self.who.contribute(shared, local, round, secret)
        bad = round.number == 2 and shared.kind != "score"
        return (Contribution(c.kind, {}, 1.0) if bad else c), after


@pytest.mark.parametrize("name", METHODS)
def test_a_drawer_counts_only_if_its_answer_did(name):
    fed = collaboration(name, usual(name))
    lossy = fed.replace(participants={**fed.participants, "p1": Refused(fed.participants["p1"])}).run(rounds=3)
    two = fed.run(rounds=2)
    assert [r.sender for r in lossy.ledger.refused] == ["p1"]
    assert encode_tree(lossy.local("p1")) == encode_tree(two.local("p1"))
    keeps = name != "QFedAvg"
    assert bool(lossy.local("p0")) == keeps
    if name not in ("QFedAvg", "IFCA"):
        assert encode_tree(lossy.local("p0")) != encode_tree(two.local("p0"))


@pytest.mark.parametrize("make", [lambda: MLP, torch_model])
def test_the_control_variate_is_that_of_option_two(make):
    """(x - y)/(K·rate) with mini-batches and plain SGD, of which SCAFFOLD need not know the rate."""
    model, sites = make(), {n: co.ScaffoldTrainer(make(), d) for n, d in DATA.items()}
    shared = Contribution("model", co.Scaffold(model).init(co.Round("", 0)))
    for n, who in sites.items():
        c, local = who.contribute(shared, {}, co.Round("", 0, me=n), SECRET)
        steps = -(-len(DATA[n][1]) // 4)
        np.testing.assert_allclose(ravel(local["control"]), -ravel(c.value["params"]) / (steps * 0.1), atol=2e-6)


def test_scaffolds_hub_agrees_with_its_sites_when_answers_are_lost():
    """c is the mean of all c_i after every round, whoever was refused."""
    fed = collaboration("Scaffold", MLP, select=co.sample(3))
    found = fed.replace(participants={**fed.participants, "p1": Refused(fed.participants["p1"])}).run(rounds=6)
    own = [ravel(found.local(n)["control"]) if found.local(n) else 0 for n in DATA]
    np.testing.assert_allclose(ravel(found.state["control"]), sum(own) / len(DATA), atol=1e-6)
    assert norm(found.state["control"]) > 0.01


@pytest.mark.parametrize("name", HUBS)
def test_a_start_is_where_it_begins(name):
    start = tree_map(lambda x: (x + 1).astype(x.dtype), MLP.init(co.Round("", 9)))
    hub, who = METHODS[name]
    more = {"spread": 0.0} if name == "IFCA" else {}
    fed = co.Collaboration(hub(MLP, start=start, **more), {n: who(MLP, d) for n, d in DATA.items()}, evaluate=False)
    shared = fed.run(rounds=0).shared
    for tree in shared.values() if name == "IFCA" else [shared]:
        assert tree.keys() <= start.keys()
        assert all(np.array_equal(tree[k], start[k]) for k in tree)


@pytest.mark.parametrize("name", ["Scaffold", "FedDyn", "QFedAvg", "APFL"])
def test_statistics_move_by_their_mean_whatever_the_method(name):
    """One round: the same running statistics as FedAvg's with the same mean, for the same local steps."""
    model = torch_model(True)
    mean = {"combine": co.Mean(uniform=True)}
    plain = co.Collaboration(co.FedAvg(model), {n: co.Trainer(model, d) for n, d in DATA.items()}, seed=3, **mean)
    found = collaboration(name, model, **mean).run(rounds=1)
    if name == "FedDyn":  # its pull towards the start is felt from the second local step on
        far = [np.abs(found.shared[k] - plain.run(rounds=1).shared[k]).max() for k in model.statistics]
        assert max(far) < 1e-2
        assert all(not found.state["h"][k].any() for k in model.statistics)
        assert all(not found.local("p1")["gradient"][k].any() for k in model.statistics)
        return
    for k in model.statistics:
        np.testing.assert_allclose(found.shared[k], plain.run(rounds=1).shared[k], atol=1e-6)
    if name == "Scaffold":
        assert not any(found.local("p1")["control"][k].any() for k in model.statistics)


@pytest.mark.parametrize("model", ["linear", "mlp", "batchnorm", "local buffers"])
def test_apfl_with_alpha_1_is_training_alone(model):
    """The own model, its statistics and its buffers, whatever is shared."""
    model = MODELS[model]()
    sites = {n: co.APFL(model, d, alpha=1.0, rate=0.0) for n, d in DATA.items()}
    found = co.Collaboration(co.FedAvg(model), sites, seed=3).run(rounds=4)
    for n, data in DATA.items():
        alone, buffers = model.init(co.Round("any", 3)), {}
        for number in range(4):
            here = co.Round("any", 3, number=number, me=n)
            if hasattr(model, "fit_local"):
                alone, buffers, _ = model.fit_local(alone, buffers, data, here)
            else:
                alone, _ = model.fit(alone, data, here)
        np.testing.assert_allclose(ravel(found.local(n)["personal"]), ravel(alone), atol=3e-4)
        np.testing.assert_allclose(ravel(found.local(n).get("personal_buffers", {})), ravel(buffers), atol=3e-4)


def test_the_mixtures_statistics_are_its_own():
    model = torch_model(True)
    w, v = (tree_map(lambda x: RNG.normal(size=x.shape).astype(x.dtype), model.init(co.Round("", 0))) for _ in range(2))
    who = co.APFL(model, DATA["p1"])
    mixed, own = who._mixed(v, w, 0.25), who._own(v, 0 * ravel(v), 0.25, w)
    for k in v:
        plain = k not in model.statistics
        np.testing.assert_allclose(mixed[k], 0.25 * v[k] + 0.75 * w[k] if plain else v[k], atol=1e-6)
        np.testing.assert_array_equal(own[k], v[k] if plain else w[k])


def test_apfl_with_alpha_0_is_the_shared_model_and_can_leave_it():
    still = {n: co.APFL(MLP, d, alpha=0.0, rate=0.0) for n, d in DATA.items()}
    found = co.Collaboration(co.FedAvg(MLP), still, seed=3).run(rounds=3)
    assert found.metrics["train_log_loss"] == found.metrics["shared_train_log_loss"]
    assert encode_tree(found.local("p1")["personal"]) == encode_tree(MLP.init(co.Round("any", 3)))
    free = {n: co.APFL(MLP, d, alpha=0.0, rate=5.0) for n, d in DATA.items()}
    left = co.Collaboration(co.FedAvg(MLP), free, seed=3).run(rounds=6)
    assert {left.local(n)["alpha"] for n in DATA} != {0.0}


def test_all_heads_begin_alike_whenever_they_join():
    shared = co.Contribution("model", co.FedRep(MLP, head=("2",)).init(co.Round("", 3))["params"])
    first = MLP.init(co.Round("", 3))
    for number in (0, 5):
        who, here = co.FedRepTrainer(MLP, DATA["p1"], head_epochs=0, epochs=1), co.Round("", 3, number=number, me="p1")
        _, local = who.contribute(shared, {}, here, SECRET)
        assert all(np.array_equal(local["head"][k], first[k]) for k in ("2.bias", "2.weight"))


def test_what_travels():
    """The head stays; SCAFFOLD sends two models; of IFCA only one of k is not zero; prototypes are no model."""

    def up(name, model):
        fed = collaboration(name, model)
        state = fed.method.init(co.Round("", 0, roster=4))
        told = fed.method.share(state, "p1", co.Round("", 0))
        return fed.participants["p1"].contribute(told, {}, co.Round("", 0, me="p1"), SECRET)[0]

    model = sum(x.size for _, x in leaves(MLP.init(co.Round("", 0))))
    assert sum(x.size for _, x in leaves(up("Scaffold", MLP).value)) == 2 * model
    assert sum(x.size for _, x in leaves(up("FedDyn", MLP).value)) == model
    assert sum(x.size for _, x in leaves(up("QFedAvg", MLP).value)) == model + 1
    assert sorted(up("FedRep", MLP).value) == ["0.bias", "0.weight"]
    c = up("IFCA", MLP)
    assert sorted(c.weight.values()) == [0.0, 25.0]
    assert [norm(c.value[k]) > 0 for k in sorted(c.value)] == [c.weight[k] > 0 for k in sorted(c.value)]
    proto = up("FedProto", torch_model())
    assert proto.value["prototypes"].shape == (3, 5)
    assert proto.weight["prototypes"][:, 0].tolist() == np.bincount(DATA["p1"][1], minlength=3).tolist()
    assert len(encode(proto)) < 400


@pytest.mark.parametrize("name", METHODS)
def test_a_sum_is_enough(name):
    """Each passes secure aggregation: its combiner needs no single contribution."""
    assert METHODS[name][0](usual(name)).combiner.needs == "sum"


@pytest.mark.parametrize("name", ["FedRep", "APFL"])
def test_whole_models_instead_of_deltas(name):
    hub, who = METHODS[name]
    sites = {n: who(MLP, d, send="model") for n, d in DATA.items()}
    whole = co.Collaboration(hub(MLP, send="model"), sites, seed=3).run(rounds=3)
    delta = collaboration(name, MLP).run(rounds=3)
    for k, v in delta.shared.items():
        np.testing.assert_allclose(whole.shared[k], v, atol=1e-5)
    assert abs(whole.metrics["train_log_loss"] - delta.metrics["train_log_loss"]) < 1e-4


def test_deltas_of_a_hub_with_a_memory_never_gossip():
    class Peers:
        peers = True

        def __call__(self, roster, round, past, secret):
            return {}

        def expected(self, roster):
            return 1.0

    for name in ("Scaffold", "FedDyn", "QFedAvg", "IFCA"):
        with pytest.raises(co.ConfigError, match="sends deltas; peers mix whole models"):
            collaboration(name, MLP, select=Peers())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: co.Scaffold(MLP, rate=0), "'rate' of Scaffold"),
        (lambda: co.Scaffold(MLP, bound=-1), "'bound' of Scaffold"),
        (lambda: co.FedDyn(MLP, alpha=0), "'alpha' of FedDyn"),
        (lambda: co.QFedAvg(MLP, q=-1), "'q' of QFedAvg"),
        (lambda: co.QFedAvg(MLP, rate=np.inf), "'rate' of QFedAvg"),
        (lambda: co.FedRep(MLP, head="2"), "'head' of FedRep must be a tuple of names of layers. Got '2'"),
        (lambda: co.FedRep(MLP, head=()), "'head' of FedRep"),
        (lambda: co.FedRep(MLP, head=("2",), send="all"), "'send' of FedRep"),
        (lambda: co.FedRep(MLP, head=("9",)).init(co.Round("", 0)), r"must name some of 0.bias, .* Got \('9',\)"),
        (lambda: co.FedRep(MLP, head=("0", "2")).init(co.Round("", 0)), "some of 0.bias, .* and not all"),
        (lambda: co.FedRepTrainer(MLP, DATA["p0"], head_epochs=-1), "'head_epochs' of FedRepTrainer"),
        (lambda: co.FedRepTrainer(MLP, DATA["p0"], epochs="1"), "'epochs' of FedRepTrainer"),
        (lambda: co.APFL(MLP, DATA["p0"], alpha=1.1), r"'alpha' of APFL must be a number in \[0, 1\]"),
        (lambda: co.APFL(MLP, DATA["p0"], rate=-1), "'rate' of APFL"),
        (lambda: co.IFCA(MLP, clusters=0), "'clusters' of IFCA must be an int >= 1"),
        (lambda: co.IFCA(MLP, spread=-1), "'spread' of IFCA"),
        (lambda: co.FedProto(1, 5), "'classes' of FedProto"),
        (lambda: co.FedProto(3, 0), "'width' of FedProto"),
        (lambda: co.FedProtoTrainer(torch_model(), DATA["p0"], ""), "'tap' of FedProtoTrainer"),
        (lambda: co.FedProtoTrainer(torch_model(), DATA["p0"], "1", strength=-1), "'strength' of FedProtoTrainer"),
        (lambda: co.FedProtoTrainer(MLP, DATA["p0"], "1"), "must be one with a loss of its own. Got a"),
    ],
)  # fmt: skip
def test_settings_have_a_range(make, says):
    with pytest.raises(co.ConfigError, match=says):
        make()


def test_what_passes_the_bound_is_refused():
    for name in ("Scaffold", "FedDyn", "QFedAvg", "FedRep", "IFCA"):
        hub, who = METHODS[name]
        fed = co.Collaboration(
            hub(MLP, bound=1e-9), {n: who(MLP, d) for n, d in DATA.items()}, quorum=0, evaluate=False
        )
        assert len(fed.run(rounds=1).ledger.refused) == len(DATA), name


def test_an_own_model_that_runs_away_says_so():
    wild = co.Linear(4, classes=0, rate=1e9, batch=4, epochs=80)
    x, y = DATA["p1"]
    found = co.Collaboration(co.FedAvg(wild), {"a": co.APFL(wild, (x, y))}, quorum=0, evaluate=False).run(rounds=1)
    assert "APFL must stay finite" in found.ledger.dropped[0].reason
