"""Tuned: each way by hand, scores and the choice, what is not changed, many at once, personal models, settings."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

import comity as co
from comity import running
from comity.core.contribution import Contribution
from comity.core.round import Turns
from comity.core.scores import scores
from comity.core.together import Plan, Wish, Works
from comity.core.tree import tree_map
from comity.core.wire import encode, encode_tree
from comity.methods.tuning import WAYS, chosen

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
RNG = np.random.default_rng(4)
SIZES = {"p0": 20, "p1": 26, "p2": 14}
DATA = {n: ((RNG.normal(size=(k, 4)) * (i + 1) + i).astype("float32"), RNG.integers(0, 3, k))
        for i, (n, k) in enumerate(SIZES.items())}  # fmt: skip
SECRET = co.testing.fixed_secret()
MLP = co.MLP(4, 3, hidden=(5,), rate=0.1, batch=4)
PLAIN = ("none", "all")
HERE = co.Round("tuned", 3, number=7, me="p1")


def model(**settings):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.5)
    return co.TorchModel(net, F.cross_entropy, **{"optimizer": sgd, "batch": 4, **settings})


def cut(n):
    """Rows to train on, to be scored on, to choose by."""
    x, y = DATA[n]
    return {"data": (x[:-8], y[:-8]), "test": (x[-8:-4], y[-8:-4]), "valid": (x[-4:], y[-4:])}


def shared_of(m, rounds=2):
    fed = co.Collaboration(co.FedAvg(m), {n: co.Trainer(m, d) for n, d in DATA.items()}, evaluate=False, seed=3)
    return fed.run(rounds=rounds).shared


def scored(who, params, local=None, round=HERE):
    return who.contribute(Contribution("score", params), local or {}, round, SECRET)


def by_hand(m, params, data, how, epochs=5, round=HERE):
    """What each way is."""
    if how == "none":
        return params
    if how == "all":
        return m.fit(params, data, round, co.Step(epochs=epochs))[0]
    new = m.recalibrate(params, data[0])
    if how == "recalibrate":
        return new
    still = {n: np.zeros(v.shape) for n, v in params.items() if n not in m.norms}
    return m.fit(new, data, round, co.Step(mask=still, epochs=epochs))[0]


@pytest.mark.parametrize("how", WAYS)
def test_each_way_is_what_it_says(how):
    m, mine = model(), cut("p1")
    params = shared_of(m)
    before = encode_tree(params)
    new = co.finished(m, params, mine["data"], how, HERE)
    assert encode_tree(params) == before
    assert encode_tree(new) == encode_tree(by_hand(m, params, mine["data"], how))
    moved = {n for n in params if not np.array_equal(new[n], params[n])}
    statistics = set(m.statistics)
    assert moved == {"none": set(), "recalibrate": statistics, "norms": set(m.norms), "all": set(params)}[how]
    assert encode_tree(co.finished(m, params, mine["data"], how, HERE)) == encode_tree(new)


def test_labels_are_not_needed_for_new_statistics():
    m, (x, y) = model(), DATA["p1"]
    params = shared_of(m)
    assert encode_tree(co.finished(m, params, (x, y))) == encode_tree(co.finished(m, params, (x, y * 0 - 5)))


@pytest.mark.parametrize("epochs", [0, 1.5])
def test_epochs_are_those_that_are_asked_for(epochs):
    m, mine = model(), cut("p1")
    params = shared_of(m)
    for how in ("norms", "all"):
        new = co.finished(m, params, mine["data"], how, HERE, epochs)
        assert encode_tree(new) == encode_tree(by_hand(m, params, mine["data"], how, epochs))


def test_scores_of_each_way():
    m, mine = model(), cut("p1")
    params = shared_of(m)
    who = co.Tuned(co.Trainer(m, **mine), finish=("recalibrate", "norms", "all", "none"), epochs=3)
    c, local = scored(who, params)
    assert (c.kind, c.value, local) == ("score", None, {})
    expected = {}
    for how in who.finish:
        new = by_hand(m, params, mine["data"], how, 3)
        for before, (x, y) in (("", mine["test"]), ("valid_", mine["valid"])):
            found = scores(m.predict(new, x), y)
            expected |= {f"{before}{how}_{k}": v for k, v in found.items()}
            expected |= {f"{before}{k}": v for k, v in found.items() if how == "recalibrate"}
    assert c.metrics == expected
    assert len({pair for name, pair in expected.items() if name.endswith("log_loss") and "valid" not in name}) == 4
    assert encode(scored(who, params)[0]) == encode(c)


def test_without_held_out_rows_scores_are_of_the_training_data():
    m = model()
    c, _ = scored(co.Tuned(co.Trainer(m, DATA["p1"]), finish=("none", "recalibrate")), shared_of(m))
    names = {f"train_{way}{k}" for way in ("", "none_", "recalibrate_") for k in ("accuracy", "log_loss")}
    assert c.metrics.keys() == names


@pytest.mark.parametrize("how", ["recalibrate", "norms"])
def test_statistics_that_stay_at_the_site_are_finished_there(how):
    """The same as with averaged ones, where the site's own are those that would be shared."""
    averaged, local, mine = model(), model(buffers="local"), cut("p1")
    params = shared_of(averaged)
    own = {**local.local_init(), **{n: params[n] for n in averaged.statistics}}
    rest = {n: v for n, v in params.items() if n not in own}
    one, _ = scored(co.Tuned(co.Trainer(averaged, **mine), finish=(how,)), params)
    other, drawer = scored(co.Tuned(co.Trainer(local, **mine), finish=(how,)), rest, {"buffers": own})
    assert other.metrics == one.metrics
    assert drawer["buffers"] is own


def test_it_contributes_as_the_one_it_holds(tmp_path, monkeypatch):
    """State, drawers, bytes; whatever is scored in between, and in pieces as in one."""
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    m = model(buffers="local")
    plain = {n: co.Trainer(m, **cut(n)) for n in DATA}
    tuned = {n: co.Tuned(who, epochs=1) for n, who in plain.items()}
    fed = co.Collaboration(co.FedAvg(m), tuned, select=co.sample(2), evaluate=co.every(2), seed=3)
    alone = fed.replace(participants=plain, evaluate=False).run(rounds=4)
    straight = fed.run(rounds=4, folder=tmp_path / "straight")
    for rounds in (1, 2, 4):
        pieces = fed.run(rounds=rounds, folder=tmp_path / "pieces")
    assert straight.ledger.refused == straight.ledger.dropped == []
    assert encode_tree(straight.state) == encode_tree(pieces.state) == encode_tree(alone.state)
    assert straight.metrics == pieces.metrics
    for n in DATA:
        assert encode_tree(straight.local(n)) == encode_tree(pieces.local(n)) == encode_tree(alone.local(n))


@pytest.mark.parametrize(("method", "who"), [(co.FedAvg, co.Trainer), (co.FedBN, co.FedBNTrainer)])
def test_many_at_once_are_as_one_by_one(method, who, monkeypatch):
    m = model()
    people = {n: co.Tuned(who(m, d), epochs=1) for n, d in DATA.items()}
    calls, many = [], co.Tuned.contribute_many
    monkeypatch.setattr(co.Tuned, "contribute_many", lambda *given: calls.append(len(given[1])) or many(*given))
    fed = co.Collaboration(method(m), people, seed=3)
    together = fed.run(rounds=2)
    assert 3 in calls
    monkeypatch.setattr(co.Tuned, "alike", None)
    alone = fed.run(rounds=2)
    assert encode_tree(alone.state) == encode_tree(together.state)
    assert alone.metrics == together.metrics
    works = Works([people[n] for n in DATA], [method(m).share(alone.state, "", HERE)] * 3,
                  [dict(alone.local(n)) for n in DATA], Turns(HERE, list(DATA)), [SECRET] * 3)  # fmt: skip
    assert people["p1"].plan(works, Wish("sequential", 9)).executor == "sequential"
    assert len(many(people["p1"], works, Plan())) == 3


def test_those_who_are_not_alike_are_asked_alone():
    m = model()
    here, there = co.Trainer(m, DATA["p0"]), co.FedBNTrainer(m, DATA["p0"])
    assert co.Tuned(here).alike == co.Tuned(co.Trainer(m, DATA["p1"])).alike
    assert co.Tuned(here).alike not in (co.Tuned(there).alike, here.alike)
    assert co.Tuned(co.Ditto(m, DATA["p0"])).alike is None


def test_a_personal_model_is_finished_as_it_is_scored():
    """Ditto's own and the shared one beside it; FedBN's with its own layers."""
    m, mine = model(), cut("p1")
    params = shared_of(m)
    own = tree_map(lambda v: (v + np.float32(0.1)).astype("float32"), params)
    c, _ = scored(co.Tuned(co.Ditto(m, **mine), finish=("norms", "none"), epochs=2), params, {"personal": own})
    for before, start in (("", own), ("shared_", params)):
        for held, (x, y) in (("", mine["test"]), ("valid_", mine["valid"])):
            want = scores(m.predict(by_hand(m, start, mine["data"], "norms", 2), x), y)
            assert (
                c.metrics[f"{before}{held}norms_log_loss"] == c.metrics[f"{before}{held}log_loss"] == want["log_loss"]
            )
    rest = {n: v for n, v in params.items() if n not in m.norms}
    norms = {n: own[n] for n in m.norms}
    c, _ = scored(co.Tuned(co.FedBNTrainer(m, **mine), finish=("all",)), rest, {"norms": norms})
    want = scores(m.predict(by_hand(m, {**rest, **norms}, mine["data"], "all"), mine["test"][0]), mine["test"][1])
    assert c.metrics["all_log_loss"] == want["log_loss"]


@dataclass(frozen=True)
class Twice:
    """Scores two models in turn, whose buffers are the same object."""

    model: Any
    data: Any
    test: Any = None
    valid: Any = None

    def contribute(self, shared, local, round, secret):
        (x, y), buffers, both = self.test, {}, (shared.value, local["other"], local["other"])
        found = [scores(self.model.predict_local(p, buffers, x), y, f"m{i}_") for i, p in enumerate(both)]
        return Contribution("score", None, metrics=found[0] | found[1] | found[2]), local


def test_what_is_scored_twice_is_finished_once(monkeypatch):
    m, mine = model(), cut("p1")
    params, calls, real = shared_of(m), [], co.TorchModel.recalibrate_local
    other = tree_map(lambda v: (v * 2).astype("float32"), params)
    monkeypatch.setattr(co.TorchModel, "recalibrate_local", lambda *given: calls.append(1) or real(*given))
    c, _ = scored(co.Tuned(Twice(m, **mine), finish=("recalibrate",)), params, {"other": other})
    assert len(calls) == 2
    for i, start in enumerate((params, other, other)):
        want = scores(m.predict(m.recalibrate(start, mine["data"][0]), mine["test"][0]), mine["test"][1])
        assert c.metrics[f"m{i}_log_loss"] == want["log_loss"]


@dataclass(frozen=True)
class Sparse:
    """Scores what its mask leaves of the shared parameters."""

    model: Any
    data: Any
    test: Any = None
    valid: Any = None
    drawer = "ticket"

    def contribute(self, shared, local, round, secret):
        params = {n: v * local["mask"].get(n, True) for n, v in shared.value.items()}
        return Contribution(
            "score", None, metrics=scores(self.model.predict(params, self.test[0]), self.test[1])
        ), local


def test_what_a_mask_holds_at_zero_stays_there(monkeypatch):
    m, mine = model(), cut("p1")
    params = shared_of(m)
    mask = {n: np.abs(params[n]) > 0.3 for n in ("0.weight", "3.weight")}
    seen, real = [], co.TorchModel.predict_local
    monkeypatch.setattr(co.TorchModel, "predict_local", lambda s, p, *rest: seen.append(p) or real(s, p, *rest))
    for how in WAYS:
        who = co.Tuned(Sparse(m, **mine), finish=(how,), epochs=2)
        assert who.drawer == "ticket"
        scored(who, params, {"mask": mask})
        for n, kept in mask.items():
            assert not kept.all()
            assert not seen[-1][n][~kept].any()
            assert (np.abs(seen[-1][n][kept] - params[n][kept]).max() > 0) == (how == "all")


@pytest.mark.parametrize(
    ("metrics", "by", "way"),
    [
        ({"valid_none_accuracy": 0.5, "valid_all_accuracy": 0.7, "valid_norms_accuracy": 0.6}, None, "all"),
        ({"valid_all_accuracy": 0.6, "valid_norms_accuracy": 0.6}, None, "norms"),
        ({"valid_none_accuracy": 0.6, "valid_none_log_loss": 2.0, "valid_all_log_loss": 1.0}, "log_loss", "all"),
        ({"valid_none_mse": 2.0, "valid_recalibrate_mse": 1.0}, None, "recalibrate"),
        ({"valid_none_accuracy": 0.5, "valid_norms_accuracy": 0.4, "norms_accuracy": 0.9}, None, "none"),
    ],
)
def test_the_way_is_chosen_by_validation_alone(metrics, by, way):
    assert chosen(metrics, by) == way


@pytest.mark.parametrize("metrics", [{}, {"none_accuracy": 0.9}, {"valid_accuracy": 0.9}, None])
def test_without_validation_there_is_no_choice(metrics):
    with pytest.raises(
        co.ConfigError, match=r"must be validation scores of Tuned\. Got .* Give each participant a valid"
    ):
        chosen(metrics)


def test_the_choice_is_of_all_parties_together():
    """A party of many rows weighs more: the ratio of sums."""
    m = model(epochs=2)
    people = {n: co.Tuned(co.Trainer(m, **cut(n)), epochs=2) for n in DATA}
    run = co.Collaboration(co.FedAvg(m), people, seed=3).run(rounds=3)
    sums = {how: [0.0, 0.0] for how in WAYS}
    for n in DATA:
        c, _ = scored(people[n], run.shared, None, co.Round("", 3, number=3, me=n))
        for how in WAYS:
            sums[how] = np.add(sums[how], c.metrics[f"valid_{how}_accuracy"])
    best = {how: s / n for how, (s, n) in sums.items()}
    assert {how: run.metrics[f"valid_{how}_accuracy"] for how in WAYS} == pytest.approx(best)
    assert chosen(run.metrics) == max(WAYS, key=best.get)


@pytest.mark.parametrize("m", ["batchnorm", "local buffers", "mlp"])
def test_the_laws_of_methods_hold(m):
    made = {"batchnorm": model, "local buffers": lambda: model(buffers="local"), "mlp": lambda: MLP}[m]()
    ways = PLAIN if m == "mlp" else WAYS
    co.testing.check_method(
        co.FedAvg(made), lambda: {n: co.Tuned(co.Trainer(made, **cut(n)), ways, 1) for n in DATA}, rounds=2
    )


def test_models_of_numpy_can_be_finished_too():
    mine = cut("p1")
    params = MLP.fit(MLP.init(HERE), mine["data"], HERE)[0]
    assert encode_tree(co.finished(MLP, params, mine["data"], "all", HERE, 2)) == encode_tree(
        MLP.fit(params, mine["data"], HERE, co.Step(epochs=2))[0]
    )
    c, _ = scored(co.Tuned(co.Trainer(MLP, **mine), PLAIN), params)
    assert c.metrics["accuracy"] == c.metrics["none_accuracy"]


@pytest.mark.parametrize("m", [MLP, co.Linear(4, 3), co.TorchModel(nn.Linear(4, 3), F.cross_entropy)])
def test_models_without_running_statistics_are_refused(m):
    for how in ("recalibrate", "norms"):
        with pytest.raises(co.ConfigError, match=f"'none' or 'all' for a model without .* Got '{how}' for a"):
            co.finished(m, m.init(HERE), DATA["p0"], how)
        with pytest.raises(co.ConfigError, match=f"The 'finish' of Tuned must be .* Got '{how}' for a"):
            co.Tuned(co.Trainer(m, DATA["p0"]), finish=("none", how))
    with pytest.raises(co.ConfigError, match="Got 'recalibrate' for a"):
        co.Tuned(co.Trainer(m, DATA["p0"]))


def test_buffers_that_stay_are_not_lost_in_silence():
    m = model(buffers="local")
    with pytest.raises(co.ConfigError, match=r"Got buffers that stay at the site\. Use co.Tuned"):
        co.finished(m, m.init(HERE), DATA["p0"])


@dataclass(frozen=True)
class Silent:
    """Scores without a prediction."""

    model: Any
    data: Any
    test: Any = None
    valid: Any = None

    def contribute(self, shared, local, round, secret):
        return Contribution("score", None, metrics={"size": (1.0, 1.0)}), local


def test_scores_that_are_no_predictions_are_refused():
    with pytest.raises(co.ConfigError, match=r"must come from predictions of the model\. Got Silent, which"):
        scored(co.Tuned(Silent(model(), DATA["p0"])), {})


def test_data_are_looked_at_before_anything_moves():
    m, (x, y) = model(), DATA["p0"]
    fed = co.Collaboration(co.FedAvg(m), {"a": co.Tuned(co.Trainer(m, (x, y), valid=(x[:, :3], y)))})
    with pytest.raises(co.ConfigError, match="The valid of participant 'a' cannot be used"):
        fed.run(rounds=1)
    other = model()
    with torch.no_grad():
        for module in (m.module, other.module):
            module[0].weight.requires_grad_(False)
        other.module[0].weight.add_(1)
    ours, theirs = (co.TorchModel(k.module, F.cross_entropy) for k in (m, other))
    with pytest.raises(co.ConfigError, match="must hold the frozen values"):
        co.Collaboration(co.FedAvg(ours), {"a": co.Tuned(co.Trainer(theirs, (x, y)))}).run(rounds=1)


def test_the_recipe_holds_no_data_and_the_inner_participant():
    m = model()
    fed = co.Collaboration(co.FedAvg(m), {"a": co.Tuned(co.Trainer(m, DATA["p0"]), epochs=3)})
    (said,) = co.recipe(fed)["parts"]["participants"]
    assert (said["epochs"], said["inner"]["class"]) == (3, "comity.methods.fedavg.Trainer")
    assert not {"data", "test", "valid"} & said.keys()
