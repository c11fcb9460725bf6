"""comity: parties who keep their data still learn together.

>>> import comity as co
>>> co.Contribution("score", None, metrics={"accuracy": (45.0, 50.0)}).metrics["accuracy"]
(45.0, 50.0)
"""

from importlib import import_module as _import
from typing import Any as _Any

__version__ = "0.1.0"

_FRONT = {
    "comity.adapters.ensemble": ("Ensemble",),
    "comity.adapters.numpy": ("Linear", "MLP"),
    "comity.adapters.sklearn": ("EstimatorModel", "SklearnModel"),
    "comity.adapters.torch.fold": ("fold",),
    "comity.adapters.torch.lora": ("lora",),
    "comity.adapters.torch.model": ("TorchModel",),
    "comity.adapters.torch.shrink": ("shrink",),
    "comity.channels.ckks": ("CKKS",),
    "comity.channels.helper": ("Helper",),
    "comity.channels.plain": ("Plain",),
    "comity.channels.secagg": ("SecAgg",),
    "comity.channels.twoserver": ("TwoServer",),
    "comity.collaboration": ("Collaboration", "Run", "load"),
    "comity.combine.bulyan": ("Bulyan",),
    "comity.combine.clipping": ("CenteredClipping",),
    "comity.combine.collect": ("Collect",),
    "comity.combine.ensemble": ("Average", "LogPool", "ProductPool"),
    "comity.combine.geometric": ("GeometricMedian",),
    "comity.combine.krum": ("Krum", "MultiKrum"),
    "comity.combine.mean": ("Mean",),
    "comity.combine.metropolis": ("Metropolis",),
    "comity.combine.reputation": ("ReputationMean",),
    "comity.combine.robust": ("Median", "TrimmedMean"),
    "comity.combine.truth": ("ReputationVote",),
    "comity.combine.vote": ("Vote",),
    "comity.comparison.compare": ("Comparison", "compare"),
    "comity.comparison.predict": ("predict",),
    "comity.compress.deflate": ("Deflate",),
    "comity.compress.fixedpoint": ("FixedPoint",),
    "comity.compress.half": ("Half",),
    "comity.compress.once": ("Once",),
    "comity.compress.qsgd": ("QSGD",),
    "comity.compress.quantize": ("Quantize",),
    "comity.compress.sparse": ("Sparse",),
    "comity.compress.topk": ("TopK",),
    "comity.core.contribution": ("Contribution",),
    "comity.core.errors": (
        "BadShare",
        "BudgetExceeded",
        "ChannelError",
        "ComityError",
        "ConfigError",
        "ContributionError",
        "LedgerError",
        "TooFewParticipants",
        "WireError",
    ),
    "comity.core.parts": ("Private", "Spend", "Step", "Until"),
    "comity.core.recipe": ("recipe",),
    "comity.core.round": ("Round",),
    "comity.core.spec": ("Leaf", "Spec"),
    "comity.crowd.dawid_skene": ("DawidSkene",),
    "comity.crowd.glad": ("GLAD",),
    "comity.crowd.majority": ("MajorityVote",),
    "comity.data.arrow": ("framed", "from_arrow", "to_arrow"),
    "comity.data.partition": ("by_column", "dirichlet", "iid"),
    "comity.data.shards": ("Shards",),
    "comity.data.skew": ("feature_noise", "feature_shift", "quantity", "shards"),
    "comity.data.tables": ("read_table",),
    "comity.deploy.ticket": ("Ticket",),
    "comity.engines.local": ("Local", "Population"),
    "comity.engines.ray": ("Ray",),
    "comity.engines.simulated": ("Simulated",),
    "comity.ledger.audit": ("Audit", "audit"),
    "comity.ledger.links": ("Link",),
    "comity.ledger.minutes": ("minutes",),
    "comity.ledger.record": ("Ledger",),
    "comity.listeners.mlflow": ("MLflow",),
    "comity.listeners.progress": ("Progress",),
    "comity.listeners.tensorboard": ("TensorBoard",),
    "comity.loop.select": ("every", "everyone", "poisson", "sample"),
    "comity.loop.topology": ("graph", "one_of", "ready", "ring", "turns"),
    "comity.methods.apfl": ("APFL",),
    "comity.methods.boosting": ("Boosting", "BoostingTrainer"),
    "comity.methods.distill": ("Distill",),
    "comity.methods.ditto": ("Ditto",),
    "comity.methods.ensemble": ("Predictor",),
    "comity.methods.experience": ("Arena", "Player", "Pool"),
    "comity.methods.features": (
        "ColumnFeatures",
        "FourierFeatures",
        "ModelFeatures",
        "PatchFeatures",
        "TableFeatures",
    ),
    "comity.methods.fedavg": ("FedAvg", "Trainer"),
    "comity.methods.fedbn": ("FedBN", "FedBNTrainer"),
    "comity.methods.feddf": ("FedDF",),
    "comity.methods.feddyn": ("FedDyn", "FedDynTrainer"),
    "comity.methods.fedltn": ("FedLTN", "TicketTrainer"),
    "comity.methods.fedmd": ("FedMD", "FedMDTrainer"),
    "comity.methods.fedproto": ("FedProto", "FedProtoTrainer"),
    "comity.methods.fedprox": ("FedProx",),
    "comity.methods.fedrep": ("FedRep", "FedRepTrainer"),
    "comity.methods.fedsgd": ("FedSGD", "GradientTrainer"),
    "comity.methods.fields": ("Field",),
    "comity.methods.ifca": ("IFCA", "IFCATrainer"),
    "comity.methods.jumpstart": ("jumpstart",),
    "comity.methods.labelling": ("Annotator", "Labelling"),
    "comity.methods.lotteryfl": ("LotteryFL", "LotteryTrainer"),
    "comity.methods.optimizers": ("Adagrad", "Adam", "Momentum", "Yogi"),
    "comity.methods.own_tickets": ("PersonalTicketTrainer", "PersonalTickets"),
    "comity.methods.private": ("PrivateTrainer",),
    "comity.methods.pseudo": ("PseudoLabels",),
    "comity.methods.qfedavg": ("QFedAvg", "QFedAvgTrainer"),
    "comity.methods.query": ("Query",),
    "comity.methods.reinforcement": ("ActorCritic", "QLearning"),
    "comity.methods.relay": ("Agent", "Relay", "carry_out"),
    "comity.methods.ridge": ("Ridge", "RidgeTrainer"),
    "comity.methods.samples": ("Contributor", "Samples"),
    "comity.methods.scaffold": ("Scaffold", "ScaffoldTrainer"),
    "comity.methods.tickets": ("SharedTicketTrainer", "Tickets"),
    "comity.methods.tuning": ("Tuned", "finished"),
    "comity.privacy.accounting": ("Privacy", "calibrate", "epsilon", "spent"),
    "comity.privacy.budget": ("Budget",),
    "comity.privacy.discrete": ("DiscreteGaussian",),
    "comity.privacy.gaussian": ("Gaussian",),
    "comity.privacy.local": ("Laplace", "RandomisedResponse"),
    "comity.privacy.tree": ("TreeGaussian",),
    "comity.racing": ("Race", "race"),
    "comity.region": ("Region",),
    "comity.service.limits": ("Limits",),
    "comity.service.network": ("Network",),
    "comity.service.site": ("join",),
    "comity.summary": ("stats",),
}
_HOME = {name: module for module, names in _FRONT.items() for name in names}
__all__ = sorted([*_HOME, "testing"])


def __getattr__(name: str) -> _Any:
    """Load a public name on first use, so that `import comity` stays light."""
    if name == "testing":
        return _import("comity.testing")
    if name not in _HOME:
        from comity.core.errors import nearest

        raise AttributeError(f"comity has no '{name}'.{nearest(name, __all__)}")
    value = getattr(_import(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
