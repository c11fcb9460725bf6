"""A small collaboration of every kind of method, topology and combiner: what `test_kinds.py` kills and resumes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import comity as co
from comity.core.round import Round

RNG = np.random.default_rng(2)
NAMES = tuple(f"p{i}" for i in range(8))
DATA = {n: (RNG.normal(size=(9, 3)).astype("float32"), np.arange(9) % 2) for n in NAMES}
PUBLIC = RNG.normal(size=(12, 3)).astype("float32")
LINEAR = co.Linear(3, 2, rate=0.3, batch=4)
WHOLE = co.Linear(3, 2, rate=0.3, batch=1000)
MLP = co.MLP(3, 2, hidden=(4,), rate=0.1, batch=4)
torch.manual_seed(0)
LAYERS = torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 2)
NET = co.TorchModel(torch.nn.Sequential(*LAYERS), torch.nn.functional.cross_entropy, batch=4, buffers="local")
HEAD = (sorted(MLP.init(Round("", 0)))[-1].split(".")[0],)


class Kind(NamedTuple):
    """What runs, and for how many rounds."""

    make: Callable[[], co.Collaboration]
    rounds: int = 4


def some(who: Callable[..., Any], n: int = 4) -> dict[str, Any]:
    """So many participants, each with six examples to learn from and three to be scored on."""
    return {name: who((x[:6], y[:6]), valid=(x[6:], y[6:])) for name, (x, y) in list(DATA.items())[:n]}


def trained(who: Any, model: Any = LINEAR, **more: Any) -> Callable[..., Any]:
    return partial(who, model, **more)


def of(method: Any, sites: Any, **parts: Any) -> co.Collaboration:
    return co.Collaboration(method, sites, **{"evaluate": co.every(2), "select": co.sample(0.75), "seed": 3, **parts})


def federated(method: Any, who: Callable[..., Any], **parts: Any) -> Kind:
    return Kind(lambda: of(method, some(who), **parts))


def robust(combine: Any) -> Kind:
    everybody = {"select": co.sample(7), "combine": combine}
    return Kind(lambda: of(co.FedAvg(LINEAR, co.Momentum(1.0, 0.5)), some(trained(co.Trainer), 8), **everybody))


class OneKey(co.Helper):
    """A helper with one key in every process."""

    def __init__(self) -> None:
        super().__init__()
        self._key = X25519PrivateKey.from_private_bytes(bytes(32))
        self.key = self._key.public_key().public_bytes_raw()


class Above:
    """Says 1 for what lies above it."""

    classes_ = np.array([0, 1])

    def __init__(self, at: float) -> None:
        self.at = at

    def predict(self, x: Any) -> Any:
        return (x[:, 0] > self.at).astype(int)


def jury() -> dict[str, Any]:
    held = DATA["p0"]
    return {
        f"j{i}": co.Predictor(Above(0.3 * i), counts=np.array([4, 2 + i]), calibrate=held, test=held) for i in range(3)
    }


def asked(combine: Any) -> Kind:
    """One question over public inputs."""
    return Kind(lambda: of(co.Query(PUBLIC, combiner=combine), jury(), select=co.everyone()), 1)


def distilled() -> co.Collaboration:
    student = co.Distill(co.Linear(3, 2, rate=0.5), PUBLIC, temperature=1.0, batch=5, combiner=co.LogPool())
    return of(student, jury(), evaluate=False, transforms=[co.Once(least=64)])


def digested() -> co.Collaboration:
    models = (LINEAR, MLP, co.MLP(3, 2, hidden=(2,), rate=0.1), LINEAR)
    sites = {
        n: co.FedMDTrainer(m, DATA[n], valid=DATA["p7"], balanced=False) for n, m in zip(NAMES[:4], models, strict=True)
    }
    return of(co.FedMD(PUBLIC, classes=2), sites, transforms=[co.Once(least=64)])


def regions() -> co.Collaboration:
    """One inside another, with personal models and blobs below."""
    people = {**some(trained(co.Ditto, strength=0.1), 3), **some(trained(co.Trainer), 5)}
    inner = co.Collaboration(co.FedAvg(LINEAR), people, select=co.sample(4), transforms=[co.Once(least=64)])
    return of(co.FedAvg(LINEAR), {"north": co.Region(inner), **some(trained(co.APFL), 2)}, select=co.everyone())


def peers(select: Any, combine: Any) -> Kind:
    sites = partial(some, trained(co.Trainer, send="model"), 6)
    method = co.FedAvg(LINEAR, send="model")
    return Kind(lambda: of(method, sites(), select=select, combine=combine))


def labelled() -> co.Collaboration:
    """Workers who are right as often as they are good."""
    draws = np.random.default_rng(5).random((4, 12))
    workers = {
        f"w{j}": co.Annotator(lambda t, j=j: None if draws[j, t] > 0.95 else int(draws[j, t] < 0.4 + 0.1 * j) ^ t % 2)
        for j in range(4)
    }
    tasks = {f"t{t}": t for t in range(12)}
    return of(co.Labelling(tasks, classes=2, per_round=4, answers=3), workers)


def given() -> co.Collaboration:
    """Rows of which some are wrong, some are there already."""
    schema = {"age": co.Field("whole", low=0, high=100), "sick": co.Field("word", words=("no", "yes"))}
    ages = [[40, 61, 200, 7, 8], [61, 35, 36, 37, 7], [1, 2, -3, 4, 5]]
    words = ["no", "yes", "no", "perhaps", "yes"]
    people = {f"c{i}": co.Contributor({"age": a, "sick": words}) for i, a in enumerate(ages)}
    return of(co.Samples(schema, most=2), people)


def relayed() -> co.Collaboration:
    """Steps that branch and join."""
    flow = co.ready({"cut": [], "low": ["cut"], "high": ["cut"], "join": ["low", "high"]})
    agents = {
        "cut": co.Agent(lambda t: {"x": t["x"][t["x"] > 0]}),
        "low": co.Agent(lambda t: {"x": t["x"][t["x"] < 5]}),
        "high": co.Agent(lambda t: {"x": t["x"][t["x"] >= 5]}),
        "join": co.Agent(lambda both: {"sum": np.array([both["low"]["x"].sum(), both["high"]["x"].sum()])}),
    }
    table = {"x": np.arange(-4.0, 12.0)}
    return of(co.Relay(table, flow.before), agents, select=flow, evaluate=False)


def turns() -> co.Collaboration:
    """Who does it better is asked more often; each hands on what it made."""
    agents = {
        n: co.Agent(lambda t, k=k: {"x": t["x"] * k + 1.0}, measure=lambda a, b, k=k: {"quality": k})
        for n, k in (("a", 0.5), ("b", 0.9), ("c", 0.7))
    }
    select = co.turns(co.one_of("a", "b"), "c")
    return of(co.Relay({"x": np.ones(3)}), agents, select=select, evaluate=False)


class Line:
    """One agent walks right (1) or left (0) on cells 0..3; at 3 it is out, with reward 1."""

    possible_agents = ("a",)

    def reset(self, seed: int | None = None) -> Any:
        self.agents, self.at = ["a"], 0
        return {"a": 0}, {}

    def step(self, actions: Mapping[str, int]) -> Any:
        self.at = max(0, self.at + (1 if actions["a"] else -1))
        out = self.at == 3
        self.agents = [] if out else ["a"]
        return {"a": self.at}, {"a": float(out)}, {"a": out}, {"a": False}, {}


Q, ACTOR = co.QLearning(4, 2, rate=0.5, temperature=0.5), co.ActorCritic(4, 2)


def players(learner: Any, send: str = "experience") -> dict[str, Any]:
    few: dict[str, Any] = {"steps": 8, "episodes": 1, "send": send, "share": 0.5 if send == "experience" else 1.0}
    return {f"a{i}": co.Player(Line(), learner, **few) for i in range(3)}


def arena() -> co.Collaboration:
    policies = {"policies": {"a": Q.init(Round("", 0))}}
    sites = {f"arena{i}": co.Arena(Line(), Q, steps=8, episodes=1) for i in range(2)}
    return of(co.Query(policies), sites, select=co.everyone(), evaluate=False)


BOOSTING = co.Boosting(3, 2, trees=2, depth=2, bins=4, least=0.1)


def grown() -> co.Collaboration:
    sites = {n: co.BoostingTrainer((x[:6], y[:6]), valid=(x[6:], y[6:])) for n, (x, y) in list(DATA.items())[:3]}
    return of(BOOSTING, sites, select=co.everyone())


def solved() -> co.Collaboration:
    features = co.ColumnFeatures(3)
    sites = {n: co.RidgeTrainer(features, d, valid=DATA["p7"]) for n, d in list(DATA.items())[:4]}
    return of(co.Ridge(features, classes=2, folds=2), sites)


KINDS: dict[str, Kind] = {
    "FedAvg, Momentum": federated(co.FedAvg(LINEAR, co.Momentum(0.5, 0.9)), trained(co.Trainer)),
    "FedAvg, Adam": federated(co.FedAvg(LINEAR, co.Adam(0.1)), trained(co.Trainer), select=co.poisson(0.6), quorum=0.1),
    "FedAvg, Yogi": federated(co.FedAvg(LINEAR, co.Yogi(0.1)), trained(co.Trainer)),
    "FedAvg, Adagrad": federated(co.FedAvg(LINEAR, co.Adagrad(0.1)), trained(co.Trainer)),
    "FedAvg, torch": federated(co.FedAvg(NET), trained(co.Trainer, NET)),
    "FedSGD": federated(co.FedSGD(WHOLE), trained(co.GradientTrainer, WHOLE)),
    "FedProx": federated(co.FedAvg(LINEAR), trained(co.FedProx, mu=0.1)),
    "Ditto": federated(co.FedAvg(LINEAR), trained(co.Ditto, strength=0.1)),
    "Scaffold": federated(co.Scaffold(LINEAR), trained(co.ScaffoldTrainer)),
    "FedDyn": federated(co.FedDyn(LINEAR), trained(co.FedDynTrainer)),
    "FedDF": federated(co.FedDF(LINEAR, PUBLIC), trained(co.Trainer)),
    "QFedAvg": federated(co.QFedAvg(LINEAR), trained(co.QFedAvgTrainer)),
    "FedRep": federated(co.FedRep(MLP, head=HEAD), trained(co.FedRepTrainer, MLP, head_epochs=1)),
    "APFL": federated(co.FedAvg(LINEAR), trained(co.APFL)),
    "IFCA": federated(co.IFCA(LINEAR), trained(co.IFCATrainer)),
    "FedProto": federated(co.FedProto(2, 4), trained(co.FedProtoTrainer, NET, tap="2")),
    "Region": Kind(regions),
    "Query, Collect": asked(co.Collect()),
    "Query, Vote": asked(co.Vote()),
    "Query, Average": asked(co.Average(counts=True)),
    "Query, LogPool": asked(co.LogPool()),
    "Query, ProductPool": asked(co.ProductPool()),
    "Distill, Once": Kind(distilled),
    "FedMD, Once": Kind(digested),
    "Labelling, ReputationVote": Kind(labelled),
    "Samples": Kind(given),
    "Mean, public": robust(co.Mean(public=True)),
    "Median": robust(co.Median()),
    "TrimmedMean": robust(co.TrimmedMean(1)),
    "Krum": robust(co.Krum(1)),
    "MultiKrum": robust(co.MultiKrum(1)),
    "Bulyan": robust(co.Bulyan(1)),
    "CenteredClipping": robust(co.CenteredClipping(tau=0.2)),
    "GeometricMedian": robust(co.GeometricMedian()),
    "ReputationMean": robust(co.ReputationMean()),
    "ring": peers(co.ring(), co.Mean(uniform=True)),
    "graph, Metropolis": peers(
        *(lambda g: (g, co.Metropolis(g.neighbours)))(co.graph([(NAMES[i], NAMES[i + 1]) for i in range(5)]))
    ),
    "Relay, ready": Kind(relayed, 3),
    "Relay, turns": Kind(turns, 6),
    "Pool, QLearning": Kind(lambda: of(co.Pool(Q), players(Q))),
    "Pool, ActorCritic": Kind(lambda: of(co.Pool(ACTOR), players(ACTOR))),
    "FedBN": federated(co.FedBN(NET), trained(co.FedBNTrainer, NET)),
    "Tuned": federated(co.FedAvg(NET), lambda data, valid: co.Tuned(co.Trainer(NET, data, valid=valid), epochs=1)),
    "FedLTN, Sparse": federated(
        co.FedLTN(MLP, 0.5), trained(co.TicketTrainer, MLP, keep=0.3, threshold=0.0, tolerance=1.0),
        transforms=[co.Sparse()],
    ),
    "LotteryFL": federated(co.LotteryFL(MLP), trained(co.LotteryTrainer, MLP, keep=0.3, threshold=0.0)),
    "Tickets": federated(
        co.Tickets(MLP, 4), trained(co.SharedTicketTrainer, MLP),
        transforms=[co.Once(least=64), co.Quantize(up=4, down=8, least=4), co.Deflate()],
    ),
    "PrivateTrainer": federated(
        co.FedAvg(LINEAR), trained(co.PrivateTrainer, clip=1.0, noise=1.0, rate=0.5), evaluate=False
    ),
    "FedAvg, SecAgg": federated(
        co.FedAvg(LINEAR, bound=1.0), trained(co.Trainer), combine=co.Mean(cap=1000.0), channel=co.SecAgg(),
    ),
    "FedAvg, TwoServer": Kind(
        lambda: of(
            co.FedAvg(LINEAR, bound=0.5), some(trained(co.Trainer)), combine=co.Mean(uniform=True),
            channel=co.TwoServer(OneKey()),
        )
    ),
    "FedAvg, Gaussian": federated(
        co.FedAvg(MLP), trained(co.Trainer, MLP), combine=co.Mean(public=True),
        transforms=[co.Gaussian(0.5, 0.0, quantile=0.5)],
    ),
    "FedAvg, TreeGaussian": federated(
        co.FedAvg(MLP), trained(co.Trainer, MLP), combine=co.Mean(public=True),
        transforms=[co.TreeGaussian(0.5, 0.0, participations=100)],
    ),
    "PseudoLabels": federated(
        co.FedAvg(NET),
        lambda data, valid: co.PseudoLabels(
            co.Trainer(NET, data, valid=valid), data[0], confidence=0.4, least=2
        ),
    ),
    "PersonalTickets, Sparse": federated(
        co.PersonalTickets(MLP, 4, core=0.5, density=0.3, by=0.75), trained(co.PersonalTicketTrainer, MLP),
        transforms=[co.Sparse(), co.Quantize(up=4, down=8, least=4), co.Deflate()],
    ),
    "Tickets, jumpstart": federated(
        co.Tickets(MLP, 4, density=0.5, by=0.5), trained(co.SharedTicketTrainer, MLP),
        select=co.jumpstart(NAMES[:2], 2),
    ),
    "FedAvg, TopK, Half": federated(
        co.FedAvg(MLP), trained(co.Trainer, MLP),
        transforms=[co.TopK(0.2), co.Quantize(up=4, down=8, least=4), co.Half(), co.Deflate()],
    ),
    "FedAvg, QSGD": federated(co.FedAvg(MLP), trained(co.Trainer, MLP), transforms=[co.QSGD(4)]),
    "FedAvg, Player": Kind(lambda: of(co.FedAvg(Q), players(Q, "delta"))),
    "Arena": Kind(arena, 1),
    "Boosting": Kind(grown, BOOSTING.rounds),
    "Ridge": Kind(solved),
}  # fmt: skip
WORKS = {name: (kind.make, None) for name, kind in KINDS.items()}
PEOPLE = (
    co.Trainer, co.GradientTrainer, co.FedProx, co.Ditto, co.ScaffoldTrainer, co.FedDynTrainer, co.QFedAvgTrainer,
    co.FedRepTrainer, co.APFL, co.IFCATrainer, co.FedProtoTrainer, co.Region, co.Predictor, co.FedMDTrainer,
    co.Annotator, co.Contributor, co.Agent, co.Player, co.Arena, co.BoostingTrainer, co.RidgeTrainer,
    co.FedBNTrainer, co.Tuned, co.TicketTrainer, co.LotteryTrainer, co.SharedTicketTrainer,
    co.PersonalTicketTrainer, co.PseudoLabels, co.PrivateTrainer,
)  # fmt: skip
WORKERS = (*PEOPLE, co.Linear, co.MLP, co.TorchModel)


def parts_in(fed: co.Collaboration) -> set[str]:
    """The names of its parts, those inside its regions too."""
    people = list(fed.participants.values())
    own = (fed.method, fed.parts.combiner, *fed.parts.transforms, fed.channel, *people)
    inside = [parts_in(p.collaboration) for p in people if isinstance(p, co.Region)]
    return {type(part).__name__ for part in own}.union(*inside)
