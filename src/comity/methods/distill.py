"""Distillation: many teachers, public inputs, one student at the hub (Hinton, Vinyals and Dean, 2015).

participant  answers for a batch of the public inputs with its probabilities, as a `Predictor` does
hub          combines them, keeps them as soft targets, and trains its student on all it has targets for
never leaves the teachers, their examples; the student stays at the hub until it is done
bytes        the batch down, 4·rows·classes up, for each participant and round; the whole set once down with `Once`
"""

from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import numpy as np

from comity.combine.ensemble import Average
from comity.core.calibration import tempered
from comity.core.checks import flag, number, part, refusal, shown, whole
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Combiner, Model, Step
from comity.core.round import Round
from comity.core.spec import Leaf, Spec
from comity.methods.steps import first, start_fits

MOST = 16.0
"""No probability, and no logarithm of one that a pool makes, is larger."""

POOL = ("needs", "init()", "lift()", "lower()")


@dataclass(frozen=True)
class Distill:
    """Trains a student on what an ensemble says of public inputs; `run.shared` is the student's parameters.

    The targets are the combined probabilities at `temperature`, p^(1/T) normalised: for one network those of the
    paper. The loss of a row is T²·CE(targets, softmax(z / T)), and where a row has a label of its own (1 - hard) times
    that plus hard·CE(label, softmax(z)). The teachers are asked about the next `batch` rows in each round and about all
    of them again after ceil(rows / batch) rounds; the student goes on from where it was.

    Attributes:
        model: the student. Other temperatures than 1, labels with a temperature and hints need a model that takes
            Step(loss=...), as TorchModel does; with temperature=1 it need only take soft labels, as Linear and MLP do.
        public_x: (rows, ...) inputs that everybody may see; no labels.
        temperature: T >= 1 makes the targets softer.
        batch: rows asked about in a round; None for all.
        epochs: passes over the known targets in each round; None for the model's own.
        labels: (rows,) the class number of each public input, -1 where it has none.
        hard: the share of the labels in the loss, in [0, 1].
        hint: (tap of the teacher, tap of the student): the student's inner representation is also drawn to the
            teacher's (FitNets: Romero et al., ICLR 2015, eq. 3), through a linear map where their widths differ.
            Departure: the map is fitted anew by least squares before each round and not by gradient. Teachers must be
            (model, params) of one architecture, best a single one, combined by `Average`.
        pull: the weight of the hint, >= 0; its loss is the mean squared difference.
        counts: ask the teachers for their class counts, as `Average(counts=True)` and `ProductPool` want them.
        combiner: how teachers are combined; `Average(counts=counts)` by default.
        start: the student's parameters to begin with, in place of the model's own.

    Raises:
        ConfigError: settings out of range, labels that do not fit; in a run, a model without classes or that cannot be
            told this loss.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.Linear(inputs=4, classes=2, rate=0.5, epochs=20)
        >>> params, _ = model.fit(model.init(co.Round("", 0)), (X, y), co.Round("", 0))
        >>> jury = {name: co.Predictor((model, params)) for name in ("a", "b")}
        >>> run = co.Collaboration(co.Distill(model, X, temperature=1.0), jury, evaluate=False).run(rounds=2)
        >>> model.predict(run.shared, X).argmax(1).tolist()
        [0, 0, 1, 1]
    """

    model: Model
    public_x: Any = field(repr=False)
    temperature: float = 3.0
    _: KW_ONLY
    batch: int | None = None
    epochs: float | None = None
    labels: Any = field(default=None, repr=False)
    hard: float = 0.5
    hint: tuple[str, str] | None = None
    pull: float = 1.0
    counts: bool = False
    combiner: Combiner = None  # type: ignore[assignment]
    start: Tree = None

    def __post_init__(self) -> None:
        part("model", "Distill", self.model, ("init()", "fit()", "predict()"), "co.Linear(...) or another model")
        object.__setattr__(self, "public_x", public_of(self.public_x, "Distill"))
        number("temperature", "Distill", self.temperature, "(0, inf)")
        number("hard", "Distill", self.hard, "[0, 1]")
        number("pull", "Distill", self.pull, "[0, inf)")
        flag("counts", "Distill", self.counts)
        if self.batch is not None:
            whole("batch", "Distill", self.batch, 1)
        if self.epochs is not None:
            number("epochs", "Distill", self.epochs, "[0, inf)")
        if self.labels is not None:
            object.__setattr__(self, "labels", _labels(self.labels, len(self.public_x)))
        taps = self.hint
        if taps is not None and not (isinstance(taps, tuple | list) and [type(t) for t in taps] == [str, str]):
            raise refusal("hint", "Distill", "(tap of the teacher, tap of the student)", taps)
        if self.combiner is None:
            object.__setattr__(self, "combiner", Average(counts=self.counts))
        part("combiner", "Distill", self.combiner, POOL, "co.Average()")
        start_fits(self.model, self.start)

    def init(self, round: Round) -> Any:
        """The student's first parameters; no row has targets yet.

        Raises:
            ConfigError: the model has no classes or cannot be told this loss, or the start has another form than it.
        """
        params = first(self.model, round, self.start)
        tried = self.public_x[:2]
        p = self.model.predict(params, tried)
        if np.ndim(p) != 2:
            raise ConfigError(f"The model of Distill must have classes. Got {type(self.model).__name__} of numbers.")
        if self.temperature != 1.0 and self.hint is None:
            uniform = np.full(p.shape, 1 / p.shape[1], "float32")
            self._fit(params, tried, self._targets(uniform, np.arange(len(tried))), round, SoftLoss(p.shape[1]))
        n = len(self.public_x)
        return {"student": params, "targets": np.zeros((n, p.shape[1]), "float32"), "hints": None}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """To a teacher, the inputs of this round; to everybody, the student."""
        if not to:
            return Contribution("model", state["student"])
        rows = self._rows(round)
        x = self.public_x if len(rows) == len(self.public_x) else self.public_x[rows]
        tap = {} if self.hint is None else {"tap": self.hint[0]}
        return Contribution("query", {"x": x, "counts": self.counts, **tap})

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """Probabilities of the rows that were asked about."""
        rows, classes = len(self._rows(round)), state["targets"].shape[1]
        return prediction(rows, classes, counts=self.counts, hint=self.hint is not None)

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Keep the targets, and train the student on all there are."""
        said: Any = combined.value
        rows = self._rows(round)
        targets = state["targets"].copy()
        targets[rows] = said["proba"]
        hints = self._hints(state, said, rows)
        known = np.flatnonzero(targets.any(axis=1))
        after = {**state, "targets": targets, "hints": hints}
        if not len(known):
            return after
        x, y = self.public_x[known], self._targets(targets[known], known)
        loss = SoftLoss(targets.shape[1], self.temperature)
        if hints is not None and self.hint is not None:
            y = np.hstack([y, hints[known]])
            inner = self.model.features(state["student"], x, self.hint[1:])[self.hint[1]].reshape(len(x), -1)
            loss = replace(loss, taps=self.hint[1:], pull=self.pull, map=_map(inner, hints[known]))
        return {**after, "student": self._fit(state["student"], x, y, round, loss)}

    def _fit(self, params: Tree, x: Array, y: Array, round: Round, loss: "SoftLoss") -> Tree:
        own = self.temperature == 1.0 and self.hint is None
        step = Step(epochs=self.epochs) if own else Step(loss=loss, epochs=self.epochs)
        try:
            return self.model.fit(params, (x, y), round, step)[0]
        except ConfigError as error:
            if own:
                raise
            text = "The model of Distill must take Step(loss=...) for a temperature other than 1, or for a hint. Got"
            raise ConfigError(f"{text} its complaint: {error} Or use temperature=1.0.") from error

    def _rows(self, round: Round) -> Array:
        n = len(self.public_x)
        b = n if self.batch is None else min(self.batch, n)
        return (round.number * b + np.arange(b)) % n

    def _targets(self, proba: Array, rows: Array) -> Array:
        """(rows, classes) soft labels where the model's own loss is used, else (rows, 2·classes): soft beside hard."""
        soft, hot = tempered(proba, self.temperature), np.zeros(proba.shape)
        if self.labels is not None:
            y = self.labels[rows]
            own = np.flatnonzero(y >= 0)
            hot[own, y[own]] = self.hard
            soft[own] *= 1 - self.hard
        if self.temperature == 1.0 and self.hint is None:
            return (soft + hot).astype("float32")
        return np.hstack([soft, hot]).astype("float32")

    def _hints(self, state: Any, said: Any, rows: Array) -> Any:
        if self.hint is None:
            return None
        hints = state["hints"]
        hints = np.zeros((len(self.public_x), said["hint"].shape[1]), "float32") if hints is None else hints.copy()
        hints[rows] = said["hint"]
        return hints


@dataclass(frozen=True)
class SoftLoss:
    """Soft targets beside hard ones beside hints, as the columns of y, in the array library of the outputs."""

    classes: int
    temperature: float = 1.0
    taps: tuple[str, ...] = ()
    pull: float = 0.0
    map: Any = None

    def __call__(self, outputs: Any, features: Any, batch: Any) -> Any:
        """The mean over the rows of T²·CE(soft, z / T) + CE(hard, z) + pull·mean((inner·map - hint)²)."""
        k, t, y = self.classes, self.temperature, batch[1]
        if tuple(outputs.shape) != (len(y), k):
            raise ConfigError(f"The model must put out one logit for each of {k} classes. Got {tuple(outputs.shape)}.")
        loss = -(y[:, :k] * (outputs / t).log_softmax(1)).sum(1) * t**2
        loss = loss - (y[:, k : 2 * k] * outputs.log_softmax(1)).sum(1)
        for tap in self.taps:
            inner = features[tap].reshape(len(y), -1)
            inner = inner if self.map is None else inner @ outputs.new_tensor(self.map)
            loss = loss + self.pull * ((inner - y[:, 2 * k :]) ** 2).mean(1)
        return loss.mean()


def prediction(rows: int, classes: int, *, counts: bool, hint: bool = False) -> Spec:
    """What a member's prediction must look like, whatever combiner lifted it."""
    value = {"proba": Leaf((rows, classes), "float32", -MOST, MOST), "seen": Leaf((classes,), "float32", 0.0, 1.0)}
    if counts:
        value["counts"] = Leaf((classes,), "float32", 0.0)
    if hint:
        value["hint"] = Leaf((rows, None), "float32")
    return Spec(value, kind="prediction", weights="any")


def public_of(x: Any, who: str) -> Array:
    """Public inputs as one array of numbers with rows.

    Raises:
        ConfigError: anything else.
    """
    try:
        out = np.ascontiguousarray(x)
    except (TypeError, ValueError):
        out = np.empty(0, "O")
    if out.ndim < 2 or not out.size or out.dtype.kind not in "fiub":
        raise ConfigError(f"The 'public_x' of {who} must be an array (rows, ...) of numbers. Got {shown(x)}.")
    if not np.isfinite(out).all():
        raise ConfigError(f"The 'public_x' of {who} must be finite. Got NaN or infinity in it. Leave those rows out.")
    return out


def _labels(labels: Any, rows: int) -> Array:
    try:
        y = np.asarray(labels)
    except ValueError:
        y = np.empty(0)
    if y.shape != (rows,) or y.dtype.kind not in "iu" or y.min() < -1:
        raise refusal("labels", "Distill", f"({rows},) class numbers, -1 for none", labels)
    return y.astype(np.int64)


def _map(inner: Array, hints: Array) -> Array | None:
    """The least-squares map from one representation to another; None where their widths are the same."""
    if inner.shape[1] == hints.shape[1]:
        return None
    f = np.asarray(inner, float)
    gram = f.T @ f
    ridge = 1e-3 * max(float(np.trace(gram)) / len(gram), 1e-12)
    return np.asarray(np.linalg.solve(gram + ridge * np.eye(len(gram)), f.T @ hints), "float32")
