"""Finishing: shared parameters fitted to a site at the end, in several ways, and the best one chosen for all.

participant  contributes as the one it holds does; asked for scores, it finishes what it would be scored with, in each
             way, and scores each
hub          as before: it sees scores of more names, and nothing else
never leaves the finished parameters
bytes        as before; a few numbers more with the scores

A last full pass over few examples often loses more than it gains. New running statistics for the normalisation layers
(Schneider et al., NeurIPS 2020, with none of the old ones kept) need no labels and one pass forward; training these
layers alone is the next smaller step (FedBN keeps them at home: Li et al., ICLR 2021; "Train BatchNorm and only
BatchNorm": Frankle et al., ICLR 2021).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

import numpy as np

from comity.core.checks import number, part, refusal, shown, word
from comity.core.contribution import Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Model, Participant, Secret, Step
from comity.core.round import Round
from comity.core.together import Plan, Wish, Works
from comity.methods.training import predicted

WAYS = ("none", "recalibrate", "norms", "all")
"""Ways to finish, from the one that changes least."""
_MEASURES = {"accuracy": 1.0, "log_loss": -1.0, "mse": -1.0, "mae": -1.0}
_BEFORE = ("shared_", "valid_", "train_")
_HERE = Round("finished", 0)


def finished(
    model: Model, params: Tree, data: Any, how: str = "recalibrate", round: Round = _HERE, epochs: float = 5
) -> Any:
    """Shared parameters fitted to one site's own data; `params` is not changed.

    "none" gives them as they are. "recalibrate" recomputes the running statistics of normalisation layers over the
    rows of `data`, whose labels are not looked at. "norms" does that and then trains these layers alone. "all" trains
    everything from `params`, as a further local round would.

    Args:
        model: whose parameters they are; for "recalibrate" and "norms" it must have `norms` and `recalibrate`, as a
            TorchModel has.
        params: its parameters, `run.shared` for one.
        data: (X, y) to fit to.
        how: one of "none", "recalibrate", "norms", "all".
        round: keys the shuffles; of the site, best with its name as `me`.
        epochs: of training, >= 0, for "norms" and "all".

    Returns:
        Parameters of the model, for `predict` or `load`.

    Raises:
        ConfigError: no model or round, another way, one that the model cannot go, or a model whose buffers stay at the
            site (they would be lost: use `Tuned`).

    Example:
        >>> import numpy as np, torch, comity as co
        >>> net = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
        >>> model = co.TorchModel(net, torch.nn.functional.cross_entropy)
        >>> X, y = np.array([[4.0, 1.0], [6.0, 1.0], [5.0, 4.0]], "float32"), np.array([0, 1, 1])
        >>> mine = co.finished(model, model.init(co.Round("", 0)), (X, y), "recalibrate")
        >>> mine["0.running_mean"].tolist(), mine["0.running_var"].tolist()
        ([5.0, 2.0], [1.0, 3.0])
    """
    part("model", "finished", model, ("fit()", "predict()"), "co.TorchModel(...)")
    word("how", "finished", how, WAYS)
    if not isinstance(round, Round):
        raise refusal("round", "finished", "a co.Round", round, 'Use co.Round("", 0, me="ann").')
    _way_fits(model, how, "'how' of finished")
    if hasattr(model, "local_init") and model.local_init():
        must = "must keep its statistics with the parameters"
        raise ConfigError(f"The 'model' of finished {must}. Got buffers that stay at the site. Use co.Tuned.")
    number("epochs", "finished", epochs, "[0, inf)")
    return _Finish(how, data, round, epochs)(model, params, None)[0]


@dataclass(frozen=True, eq=False)
class _Finish:
    """One way to finish, on one site's data. A weight whose mask is 0 does not move."""

    how: str
    data: Any
    round: Round
    epochs: float
    mask: Mapping[str, Any] | None = None

    def __call__(self, model: Any, params: Tree, buffers: Tree) -> tuple[Any, Any]:
        """Parameters and local buffers, finished."""
        if self.how in ("recalibrate", "norms"):
            params, buffers = self._recalibrated(model, params, buffers)
        if self.how in ("none", "recalibrate"):
            return params, buffers
        held = {**(self.mask or {}), **(_others(model, params) if self.how == "norms" else {})}
        step = Step(mask=held or None, epochs=self.epochs)
        if fit_local := getattr(model, "fit_local", None):
            params, buffers, _ = fit_local(params, buffers, self.data, self.round, step=step)
            return params, buffers
        return model.fit(params, self.data, self.round, step)[0], buffers

    def _recalibrated(self, model: Any, params: Tree, buffers: Tree) -> tuple[Any, Any]:
        pair = isinstance(self.data, tuple | list)
        if pair and len(self.data) != 2:
            raise refusal("data", "", "(X, y)", self.data, "Use two arrays.")
        x = self.data[0] if pair else self.data
        if both := getattr(model, "recalibrate_local", None):
            found: tuple[Any, Any] = both(params, buffers, x)
            return found
        return model.recalibrate(params, x), buffers


def _others(model: Any, params: Any) -> dict[str, Any]:
    """A mask that holds all but the normalisation layers."""
    return {name: np.zeros(np.shape(leaf), bool) for name, leaf in params.items() if name not in model.norms}


def _way_fits(model: Any, how: str, setting: str) -> None:
    """Refuse a way that a model cannot go.

    Raises:
        ConfigError: says which it can.
    """
    if how in ("none", "all") or (getattr(model, "norms", None) and hasattr(model, "recalibrate")):
        return
    raise ConfigError(
        f"The {setting} must be 'none' or 'all' for a model without normalisation layers that keep running statistics. "
        f"Got '{how}' for {shown(model)}. Use a TorchModel of a network with BatchNorm, or one of these two."
    )


@dataclass(frozen=True)
class Tuned:
    """A participant that finishes what it is scored with, in several ways, so that one can be chosen for all.

    It contributes as `inner` does, to the bit. When scores are asked for, whatever `inner` would predict with (shared
    parameters, a personal model, a sparse ticket with its own normalisation) is first finished on its training data
    in each way, from anew: see `finished`. For each way there are scores: "recalibrate_accuracy", and for validation
    "valid_recalibrate_accuracy", and so on; those of the first way also stand under their plain names. `chosen` reads
    the best way out of them. Nothing that is finished is kept or sent. Where `inner` keeps a "mask" in its drawer, what
    it holds at zero stays there; of a mask that lies nowhere but in what is shared "all" knows nothing, and fills it.

    Scoring costs a fit for each of "norms" and "all": take scores at the end only, or every tenth round.

    Attributes:
        inner: a participant with a model, data, test and valid, such as `Trainer`, `FedProx`, `Ditto`, `FedBNTrainer`.
        finish: ways, one or several of "none", "recalibrate", "norms", "all"; the first gives the plain names.
        epochs: of training in "norms" and "all", >= 0.

    Raises:
        ConfigError: an inner participant without these, an unknown way, or one that its model cannot go.

    Example:
        >>> import numpy as np, torch, comity as co
        >>> from comity.methods.tuning import chosen
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
        >>> model, y = co.TorchModel(net, torch.nn.functional.cross_entropy), np.array([0, 0, 1, 1])
        >>> X = {"a": np.eye(4, dtype="float32"), "b": 9 - 3 * np.eye(4, dtype="float32")}
        >>> sites = {n: co.Tuned(co.Trainer(model, (x, y), valid=(x, y)), finish=("none", "all")) for n, x in X.items()}
        >>> run = co.Collaboration(co.FedAvg(model), sites).run(rounds=2)
        >>> sorted(n for n in run.metrics if n.endswith("accuracy"))
        ['valid_accuracy', 'valid_all_accuracy', 'valid_none_accuracy']
        >>> chosen(run.metrics)
        'all'
    """

    inner: Participant
    finish: Sequence[str] = WAYS
    epochs: float = 5
    data: Any = field(init=False, repr=False, compare=False, metadata={"data": True})
    test: Any = field(init=False, repr=False, compare=False, metadata={"data": True})
    valid: Any = field(init=False, repr=False, compare=False, metadata={"data": True})

    def __post_init__(self) -> None:
        part("inner", "Tuned", self.inner, ("contribute()", "model"), "co.Trainer(model, data)")
        lacking = [n for n in ("data", "test", "valid") if not hasattr(self.inner, n)]
        if not is_dataclass(self.inner) or lacking or isinstance(self.inner, Tuned):
            raise refusal("inner", "Tuned", "a participant with data, test and valid", self.inner, "Use co.Trainer.")
        part("model", type(self.inner).__name__, self.model, ("fit()", "predict()"), "co.TorchModel(...)")
        several = not isinstance(self.finish, str | bytes) and isinstance(self.finish, Sequence)
        ways = tuple(self.finish) if several else ()
        if not ways or len({*map(repr, ways)}) != len(ways):
            raise refusal("finish", "Tuned", "a tuple of different ways", self.finish, 'Use ("none", "recalibrate").')
        for how in ways:
            word("finish", "Tuned", how, WAYS)
            _way_fits(self.model, how, "'finish' of Tuned")
        number("epochs", "Tuned", self.epochs, "[0, inf)")
        for name in ("data", "test", "valid", "spend"):
            if hasattr(self.inner, name):
                object.__setattr__(self, name, getattr(self.inner, name))
        object.__setattr__(self, "finish", ways)

    @property
    def model(self) -> Model:
        """That of the inner participant."""
        own: Model = self.inner.model  # type: ignore[attr-defined]
        return own

    @property
    def drawer(self) -> str:
        """That of the inner participant."""
        return getattr(self.inner, "drawer", "participant")

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """What the inner participant contributes; or scores for each way.

        Raises:
            ConfigError: the inner participant's scores do not come from predictions of its model.
        """
        if shared.kind != "score":
            return self.inner.contribute(shared, local, round, secret)
        out: dict[str, tuple[float, float]] = {}
        for how in reversed(self.finish):
            found = self._scores(how, shared, local, round, secret)
            out |= {_named(name, how): pair for name, pair in found.items()}
        return Contribution("score", None, metrics=out | found), local

    def _scores(self, how: str, shared: Contribution, local: Any, round: Round, secret: Secret) -> Any:
        mask = local.get("mask")
        work = _Finish(how, self.data, round, self.epochs, mask if isinstance(mask, Mapping) else None)
        model = _Finishing(self.model, work)
        inner: Any = replace(self.inner, model=model)  # type: ignore[type-var]
        c, _ = inner.contribute(shared, local, round, secret)
        if model.last is None:
            who = type(self.inner).__name__
            raise ConfigError(
                f"The scores of Tuned must come from predictions of the model. Got {who}, which made none. Use {who} "
                "alone."
            )
        return c.metrics

    @property
    def alike(self) -> Hashable:
        """Those whose inner participants are alike can work together."""
        inner = getattr(self.inner, "alike", None) if type(self).contribute is Tuned.contribute else None
        return None if inner is None else ("Tuned", type(self.inner), inner)

    def contribute_many(self, works: Works, plan: Plan) -> Any:
        """What the inner participants give together."""
        first: Any = works.who[0].inner
        return first.contribute_many(_inner(works), plan)

    def plan(self, works: Works, wish: Wish) -> Plan:
        """How the inner participants do their work together."""
        first: Any = works.who[0].inner
        return first.plan(_inner(works), wish) if hasattr(first, "plan") else Plan()


def _inner(works: Works) -> Works:
    return replace(works, who=[w.inner for w in works.who])


class _Finishing:
    """A model that finishes whatever parameters it is to predict with; everything else is the model's own."""

    def __init__(self, model: Any, work: _Finish) -> None:
        self.model, self.work = model, work
        self.last: Any = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.model, name)
        return self._predict_local if name == "predict_local" else found

    def predict(self, params: Tree, x: Any) -> Any:
        """The model's predictions with finished parameters."""
        return self._predict_local(params, {}, x)

    def _predict_local(self, params: Tree, buffers: Tree, x: Any) -> Any:
        if self.last is None or self.last[0] is not params or self.last[1] is not buffers:
            self.last = params, buffers, self.work(self.model, params, buffers)
        done, own = self.last[2]
        return predicted(self.model, done, own, x)


def _named(name: str, how: str) -> str:
    """A score's name with the way put before what is measured: "valid_accuracy" -> "valid_norms_accuracy"."""
    before, rest = "", name
    while start := next((b for b in _BEFORE if rest.startswith(b)), ""):
        before, rest = before + start, rest.removeprefix(start)
    return f"{before}{how}_{rest}"


def chosen(metrics: Mapping[str, float], by: str | None = None) -> str:
    """The way to finish that was best on validation data, all parties together: one way for all.

    Args:
        metrics: of a run whose participants are `Tuned`, `run.metrics`.
        by: "accuracy", "log_loss", "mse" or "mae"; None for the accuracy, or the mse where there are no classes.

    Returns:
        The way; of ways that are equal, the one that changes least.

    Raises:
        ConfigError: there are no validation scores of any way.

    Example:
        >>> chosen({"valid_none_accuracy": 0.7, "valid_recalibrate_accuracy": 0.8, "valid_norms_accuracy": 0.8})
        'recalibrate'
    """
    if by is not None:
        word("by", "chosen", by, tuple(_MEASURES))
    known = dict(metrics) if isinstance(metrics, Mapping) else {}
    for name in (by,) if by else ("accuracy", "mse"):
        found = {how: known[f"valid_{how}_{name}"] for how in WAYS if f"valid_{how}_{name}" in known}
        if found:
            return max(found, key=lambda how: _MEASURES[name] * found[how])
    raise refusal("metrics", "chosen", "validation scores of Tuned", sorted(known), "Give each participant a valid.")
