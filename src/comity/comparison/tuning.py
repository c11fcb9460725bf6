"""Ways to make the joint model one's own, chosen on one's own validation rows.

    all    go on training everything from the joint model
    head   only the last layer, the joint representation stays (FedPer: Arivazhagan et al., arXiv 1912.00818)
    ditto  train everything, held near the joint model by λ/2·|w - w_joint|² (Ditto: Li et al., ICML 2021, eq. 2)
    trees  of joint trees: grow some more on one's own rows

What depends on batch normalisation (recalibration, FedBN) has no place here: these families have none.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from comity.collaboration import Collaboration
from comity.comparison.families import DEPTH, GROWTH, PATIENCE, Rows, improved
from comity.core.parts import Model, Step
from comity.core.round import Round
from comity.methods.boosting import Boosting, BoostingTrainer
from comity.methods.ditto import pull

EPOCHS = 10
"""At most so many epochs of tuning."""
DITTO = (0.1, 1.0)
"""The λ that are tried."""
MORE = 20
"""At most so many trees of one's own."""


def personalised(model: Model, joint: Any, rows: tuple[Rows, Rows], round: Round) -> tuple[str, Any]:
    """The joint model tuned at home.

    Args:
        model: of the joint parameters.
        joint: these parameters.
        rows: own training and validation rows.
        round: of the query, for its public randomness.

    Returns:
        How ("none" where nothing does better on the validation rows than the joint model) and the parameters.
    """
    tried = {name: improved(model, joint, rows, round, EPOCHS, step) for name, step in _steps(joint).items()}
    start = improved(model, joint, rows, round, 0)[1]
    how = min(tried, key=lambda name: tried[name][1])
    return (how, tried[how][0]) if tried[how][1] < start else ("none", joint)


def _steps(joint: Any) -> dict[str, Step]:
    steps = {"all": Step(), **{f"ditto {lam:g}": _ditto(joint, lam) for lam in DITTO}}
    return steps | ({"head": Step(mask=_head(joint))} if len(joint) > 2 else {})


def _ditto(joint: Any, lam: float) -> Step:
    return Step(adjust=pull(lam, joint))


def _head(joint: Mapping[str, Any]) -> Any:
    """1 for the last layer ("4.weight", "4.bias"), 0 for all before it."""
    last = max(int(name.split(".")[0]) for name in joint)
    return {name: np.full_like(x, float(int(name.split(".")[0]) == last)) for name, x in joint.items()}


def grown_on(model: Any, joint: Any, rows: tuple[Rows, Rows], round: Round) -> tuple[str, Any]:
    """The joint trees, and after them some that are grown at home.

    Args:
        model: of the family; says the classes.
        joint: the joint trees.
        rows: own training and validation rows.
        round: of the query, for its public seed.

    Returns:
        How ("none" where no tree lowers the loss on the validation rows) and the trees.
    """
    train, valid = rows
    if not len(valid.y):
        return "none", joint
    classes = len(model.classes or ())
    method = Boosting(
        len(joint["widths"]), classes, trees=MORE, rate=GROWTH[classes > 2], depth=DEPTH, patience=PATIENCE,
        start=joint,
    )  # fmt: skip
    own = BoostingTrainer((train.ordinal, train.fitted), valid=(valid.ordinal, valid.fitted))
    home = Collaboration(method, {"home": own}, evaluate=False, stop=method.stop, seed=round.seed)
    trees = home.run(method.rounds).shared
    return ("trees", trees) if len(trees["value"]) > len(joint["value"]) else ("none", joint)
