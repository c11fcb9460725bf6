"""Pseudo-labels: sites with few labels or none learn from what the shared model is sure of.

participant  labels its own inputs with the model that it was sent, keeps what the model is sure of, and lets the
             participant it holds train on its labelled rows and these
hub          as before; beside other metrics it sees "pseudo", the share of the inputs that was used
never leaves inputs, labels, pseudo-labels
bytes        as before

A site that is sure of nothing and has no labels answers with no change and the weight 0; where whole models are sent,
with the one that it was sent, which weighs as one pseudo-labelled row.
"""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np

from comity.core.checks import flag, number, part, refusal, shown, whole
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Model, Participant, Secret, Step
from comity.core.round import Round
from comity.core.tree import tree_map
from comity.methods.training import numbers_of, predicted, rows_fit

_HOLDS = ("model", "data")
_FREE = {"none", "recalibrate"}


@dataclass(frozen=True)
class PseudoLabels:
    """A participant that also trains on inputs without labels, labelled by the model that it is sent.

    In each round it predicts its unlabelled inputs x with the parameters w from which the participant it holds would
    train (for a personal ticket: under its mask, with its own normalisation), and trains that participant on

        its labelled rows, and {(x, argmax p(x)): max p(x) >= confidence},  p = predict(w', x)

    from w: w' is w with the running statistics of normalisation layers recomputed over its own inputs. Sites whose
    inputs are shifted (another scanner, another light) need this most: with the statistics of others a model is sure
    where it is wrong. Labels are made anew in each round, and not kept.

    Pseudo-labels are those of Lee (ICML 2013 workshop), the threshold that of FixMatch (Sohn et al., NeurIPS 2020,
    eq. 4): labels come from inputs as they are; give the participant it holds strong augmentation, or a module that
    changes its inputs in training, and it learns from changed ones. In a federation: FedMatch (Jeong et al., ICLR
    2021), SemiFL (Diao et al., NeurIPS 2022). Departures: labelled and pseudo-labelled rows are shuffled together,
    where FixMatch adds two losses and counts what it is not sure of in the mean; of each class are used at most
    `balance` times the median number over the classes found (drawn at random), as a model that prefers a class
    otherwise teaches itself to prefer it more; and there is no training at the hub, which has no rows.

    Its weight is that of the participant it holds, times (labelled + trust · pseudo-labelled) / (both): many sites
    without labels would otherwise outvote the few with them in the first rounds, when a model is often sure and wrong,
    and it would go on to teach itself its mistakes. Where weights do not count (`FedBN`, Mean(uniform=True)) trust has
    no effect; a weight of 0 still is none.

    For the same reason labelled sites should be asked in every round, and had better train alone at first: `begin`, or
    co.jumpstart(the labelled ones, rounds), which saves the bytes of the others too.

    Attributes:
        inner: a participant that trains a model of classes: `Trainer`, `FedProx`, `SharedTicketTrainer`,
            `TicketTrainer`, `FedBNTrainer`, `Ditto` and the like; its data may be None or have no rows. Not one that
            chooses by labels what to train (`IFCATrainer`) where there are none; a `TicketTrainer` without labelled or
            validation rows prunes only with threshold=0. A `Tuned` around one may finish by "none" and "recalibrate".
        unlabelled: (rows, ...) inputs as those of data.
        confidence: least probability of the likeliest class, in (0, 1].
        recalibrate: labels come from a model with statistics of its own inputs, where the model can `recalibrate`.
        balance: how often the median a class may be used, > 0; math.inf for no limit.
        trust: what a pseudo-labelled row weighs beside a labelled one, in (0, 1].
        least: with fewer rows that it is sure of, it uses none of them, >= 1.
        begin: rounds before the first in which it makes labels, >= 0.

    Scores are those of the participant it holds; a `Tuned` in it recomputes statistics over labelled and unlabelled
    inputs.

    Raises:
        ConfigError: a setting out of range, inputs that are no rows of finite numbers, a participant that it cannot
            hold or, in a run, one that does not train, or a model that predicts no classes.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.repeat(np.eye(4, dtype="float32"), 5, 0), np.repeat([0, 0, 1, 1], 5)
        >>> model = co.Linear(inputs=4, classes=2, rate=2.0, epochs=5)
        >>> sites = {"few": co.Trainer(model, (X[::5], y[::5])), "none": co.PseudoLabels(co.Trainer(model, None), X)}
        >>> run = co.Collaboration(co.FedAvg(model), sites).run(rounds=30)
        >>> run.ledger.metric("pseudo")[0], run.ledger.metric("pseudo")[-1], run.metrics["train_accuracy"]
        (0.0, 1.0, 1.0)
    """

    inner: Participant
    unlabelled: Any = field(metadata={"data": True}, repr=False)
    _: KW_ONLY
    confidence: float = 0.95
    recalibrate: bool = True
    balance: float = 2.0
    trust: float = 0.1
    least: int = 10
    begin: int = 0
    test: Any = field(init=False, repr=False, compare=False, metadata={"data": True})
    valid: Any = field(init=False, repr=False, compare=False, metadata={"data": True})

    def __post_init__(self) -> None:
        part("inner", "PseudoLabels", self.inner, ("contribute()", "model"), "co.Trainer(model, data)")
        core, finish = _innermost(self.inner), getattr(self.inner, "finish", ())
        if hasattr(self.inner, "unlabelled") or not _holds(core):
            must = "a participant made of a model and data"
            raise refusal("inner", "PseudoLabels", must, self.inner, "Use co.Trainer(model, data).")
        if hasattr(core, "spend"):
            must = "without noise: which rows are labelled, and whether any, would be released as they are"
            raise refusal("inner", "PseudoLabels", must, core, "Use co.Trainer(model, data).")
        part("model", type(core).__name__, self.model, ("fit()", "predict()"), "co.TorchModel(...)")
        if more := sorted(set(finish) - _FREE):
            must = "finish without labels: by 'none' or 'recalibrate'"
            raise ConfigError(f"The 'inner' of PseudoLabels must {must}. Got '{more[0]}'. Use one of these.")
        if core.data is not None:
            rows_fit(core, "data")
        object.__setattr__(self, "unlabelled", _rows(self.unlabelled))
        self._looked_at(core.data)
        object.__setattr__(self, "confidence", number("confidence", "PseudoLabels", self.confidence, "(0, 1]"))
        object.__setattr__(self, "recalibrate", flag("recalibrate", "PseudoLabels", self.recalibrate))
        number("balance", "PseudoLabels", self.balance, "(0, inf]", hint="Use math.inf for no limit.")
        number("trust", "PseudoLabels", self.trust, "(0, 1]")
        object.__setattr__(self, "least", whole("least", "PseudoLabels", self.least, 1))
        object.__setattr__(self, "begin", whole("begin", "PseudoLabels", self.begin))
        for name in ("test", "valid"):
            object.__setattr__(self, name, getattr(core, name, None))

    def _looked_at(self, data: Any) -> None:
        """Let the model look at what it will be given, where it can: a run would only do that with `data`."""
        check = getattr(self.model, "check", None)
        inputs = {"unlabelled": (self.unlabelled, np.zeros(len(self.unlabelled), np.int64))}
        rows = {} if data is None or not len(data[1]) else {"data": data}
        if not callable(check):
            return
        for name, pair in (rows | inputs).items():
            try:
                check(pair)
            except ConfigError as error:
                raise ConfigError(f"The '{name}' of PseudoLabels cannot be used. {error}") from error

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
        """What the inner participant contributes with pseudo-labelled rows beside its own; or its scores.

        Raises:
            ConfigError: the inner participant does not train its model, or the model predicts no classes.
        """
        if shared.kind == "score":
            scorer: Participant = _with(self.inner, data=self._scored())
            return scorer.contribute(shared, local, round, secret)
        labelled, begun = self._labelled(), _Begun(self.model)
        data = labelled if len(labelled[1]) else (self.unlabelled[:1], np.zeros(1, np.int64))
        idle, _ = _with(self.inner, model=begun, data=data).contribute(shared, local, round, secret)
        if begun.params is None:
            who = type(_innermost(self.inner)).__name__
            raise ConfigError(
                f"The 'inner' of PseudoLabels must train its model. Got {who}, which did not. Use {who} alone."
            )
        found = self._pseudo(begun.params, begun.buffers, round)
        rows, made = len(labelled[1]), len(found[1])
        seen = {"pseudo": (float(made), float(len(self.unlabelled)))}
        if not rows + made:
            return replace(self._nothing(idle), metrics={**idle.metrics, **seen}), local
        c, after = _with(self.inner, data=_joined(labelled, found)).contribute(shared, local, round, secret)
        share = (rows + self.trust * made) / (rows + made)
        weight = c.weight if share == 1 else _times(c.weight, share)
        return replace(c, weight=weight, metrics={**c.metrics, **seen}), after

    def _labelled(self) -> tuple[Any, Any]:
        """The rows with labels; there may be none."""
        data = _innermost(self.inner).data
        return (self.unlabelled[:0], np.zeros(0, np.int64)) if data is None else (data[0], data[1])

    def _scored(self) -> Any:
        """What scores may look at: the rows with labels; of a Tuned the inputs of all, whose labels are not used."""
        labelled = self._labelled()
        if not hasattr(self.inner, "inner"):
            return labelled
        return _joined(labelled, (self.unlabelled, np.zeros(len(self.unlabelled), np.int64)))

    def _pseudo(self, params: Any, buffers: Any, round: Round) -> tuple[Any, Array]:
        """The inputs whose class the model is sure of, in their order, and these classes."""
        x = self.unlabelled
        if round.number < self.begin:
            return x[:0], np.zeros(0, np.int64)
        p = self._probabilities(params, buffers)
        label = p.argmax(axis=1)
        sure = self._balanced(np.flatnonzero(p.max(axis=1) >= self.confidence), label, round)
        sure = sure if len(sure) >= self.least else sure[:0]
        return x[sure], label[sure]

    def _probabilities(self, params: Any, buffers: Any) -> Array:
        model: Any = self.model
        if self.recalibrate and getattr(model, "norms", None) and hasattr(model, "recalibrate"):
            both = getattr(model, "recalibrate_local", None)
            x = self.unlabelled
            params, buffers = both(params, buffers, x) if both else (model.recalibrate(params, x), buffers)
        p = np.asarray(predicted(model, params, buffers, self.unlabelled))
        if p.ndim != 2 or p.shape[1] < 2:
            must = "must predict classes, (rows, classes) probabilities"
            raise ConfigError(f"The model of PseudoLabels {must}. Got {shown(p)}. Use the participant alone.")
        return p

    def _balanced(self, sure: Array, label: Array, round: Round) -> Array:
        """Of each class at most `balance` times the median number over the classes found, drawn at random."""
        kinds, count = np.unique(label[sure], return_counts=True)
        if self.balance == math.inf or not len(kinds):
            return sure
        most = max(1, math.ceil(self.balance * float(np.median(count))))
        drawn = sure[round.mine("pseudo").permutation(len(sure))]
        return np.sort(np.concatenate([drawn[label[drawn] == kind][:most] for kind in kinds]))

    def _nothing(self, idle: Contribution) -> Contribution:
        """What changes nothing. A delta weighs nothing; a whole model has to, or no model is left of a silent round."""
        if idle.kind != "delta":
            return replace(idle, weight=_times(idle.weight, self.trust))
        return replace(idle, value=tree_map(np.zeros_like, idle.value), weight=_times(idle.weight, 0.0))


class _Begun:
    """A model that notes what the first fit begins from, and gives it back untrained."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.params: Any = None
        self.buffers: Any = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.model, name)
        return self._fit_local if name == "fit_local" else found

    def fit(self, params: Tree, data: Any, round: Round, step: Step | None = None) -> Any:
        """As the model's, without an epoch."""
        self._note(params, {})
        return self.model.fit(params, data, round, _still(step))

    def _fit_local(self, params: Tree, buffers: Tree, data: Any, round: Round, *, step: Step | None = None) -> Any:
        self._note(params, buffers)
        return self.model.fit_local(params, buffers, data, round, step=_still(step))

    def _note(self, params: Any, buffers: Any) -> None:
        if self.params is None:
            self.params, self.buffers = params, buffers


def _still(step: Step | None) -> Step:
    return replace(step or Step(), epochs=0)


def _innermost(who: Any) -> Any:
    """Whoever has the data: inside a `Tuned`, the participant that it holds."""
    return getattr(who, "inner", who)


def _holds(who: Any) -> bool:
    made = {f.name for f in fields(who) if f.init} if is_dataclass(who) and not isinstance(who, type) else set()
    return made.issuperset(_HOLDS)


def _with(who: Any, **given: Any) -> Any:
    """The participant with another model or other data."""
    return replace(who, inner=_with(who.inner, **given)) if hasattr(who, "inner") else replace(who, **given)


def _rows(x: Any) -> Any:
    """Inputs as an array, with a row at least.

    Raises:
        ConfigError: they are none.
    """
    name = "The 'unlabelled' of PseudoLabels"
    found = numbers_of(name, x, "float32") if not isinstance(x, np.ndarray) or x.dtype.kind not in "fiub" else x
    if found.ndim == 0 or not len(found):
        raise refusal("unlabelled", "PseudoLabels", "inputs in rows, one at least", x, "Use the participant alone.")
    if not np.isfinite(found).all():
        raise ConfigError(f"{name} must be finite. Got NaN or infinity. Fill it in.")
    return found


def _joined(labelled: tuple[Any, Any], found: tuple[Any, Any]) -> tuple[Any, Any]:
    """Both, one after the other; where one has no rows, the other as it is."""
    if not len(found[1]) or not len(labelled[1]):
        return labelled if len(labelled[1]) else found
    x, y = (np.asarray(v) for v in labelled)
    return np.concatenate([x, found[0].astype(x.dtype, copy=False)]), np.concatenate([y, found[1].astype(y.dtype)])


def _times(weight: Any, by: float) -> Any:
    """A weight, or each of a Tree of them, times a number."""
    if isinstance(weight, Mapping):
        return {name: _times(w, by) for name, w in weight.items()}
    return np.asarray(weight * by, weight.dtype) if isinstance(weight, np.ndarray) else float(weight) * by
