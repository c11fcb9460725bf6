"""comity: parties who keep their data still learn together.

>>> import comity as co
>>> co.Contribution("score", None, metrics={"accuracy": (45.0, 50.0)}).metrics["accuracy"]
(45.0, 50.0)
"""

from importlib import import_module as _import
from typing import Any as _Any

__version__ = "0.1.0"

_FRONT = {
    "comity.adapters.numpy": ("Linear", "MLP"),
    "comity.adapters.sklearn": ("EstimatorModel", "SklearnModel"),
    "comity.adapters.torch.model": ("TorchModel",),
    "comity.channels.plain": ("Plain",),
    "comity.collaboration": ("Collaboration", "Run"),
    "comity.combine.collect": ("Collect",),
    "comity.combine.mean": ("Mean",),
    "comity.combine.robust": ("Median",),
    "comity.combine.vote": ("Vote",),
    "comity.comparison.compare": ("Comparison", "compare"),
    "comity.comparison.predict": ("predict",),
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
    "comity.data.partition": ("by_column", "dirichlet", "iid"),
    "comity.data.tables": ("read_table",),
    "comity.engines.local": ("Local", "Population"),
    "comity.ledger.audit": ("Audit", "audit"),
    "comity.ledger.record": ("Ledger",),
    "comity.loop.select": ("every", "everyone", "poisson", "sample"),
    "comity.methods.fedavg": ("Adam", "FedAvg", "Momentum", "Trainer"),
    "comity.methods.query": ("Query",),
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
