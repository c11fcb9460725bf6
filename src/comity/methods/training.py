"""What a participant does with a shared model, whatever the method: fit it, say what changed, score it.

`Trainer`, `FedProx` and `Ditto` share it; buffers with the policy "local" stay in the drawer, under "buffers".
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from comity.core.checks import part, shown
from comity.core.contribution import Array, Contribution, Metrics, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Model, Step
from comity.core.round import Round
from comity.core.scores import scores
from comity.core.together import Plan, Stack, Together, Wish, Works
from comity.core.tree import ravel, tree_map


def model_fits(who: Any, *needs: str) -> None:
    """Refuse a method or a participant whose model lacks what it needs; `init` is always needed.

    Raises:
        ConfigError: says what it lacks.
    """
    part("model", type(who).__name__, who.model, (*needs, "init()"), "co.Linear(...) or another model")


def rows_fit(who: Any, *names: str) -> None:
    """Refuse, of a participant whose data no model looks at, what is no (X, y) with a y for each row.

    Args:
        who: the participant.
        names: of its attributes; all but "data" may be None.

    Raises:
        ConfigError: names the attribute.
    """
    for name in names:
        rows = getattr(who, name)
        if rows is None and name != "data":
            continue
        pair: Any = rows if isinstance(rows, tuple | list) and len(rows) == 2 else (None, None)
        x, y = (len(v) if hasattr(v, "__len__") and _has_rows(v) else -1 for v in pair)
        if x < 0 or x != y or getattr(pair[1], "ndim", 1) != 1:
            got = f"{shown(pair[0])} and {shown(pair[1])}" if pair is rows else shown(rows)
            must = "(X, y), a y for each row"
            raise ConfigError(f"The '{name}' of {type(who).__name__} must be {must}. Got {got}. Use arrays.")


def numbers_of(name: str, values: Any, dtype: str) -> Array:
    """An array of real numbers; what is beyond the dtype becomes infinity.

    Raises:
        ConfigError: words, dates, complex numbers, or rows of unlike lengths.
    """
    try:
        found = np.asarray(values)
        if found.dtype.kind in "fiubO":
            with np.errstate(over="ignore"):
                return found.astype(dtype, copy=False)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(f"{name} must be numbers. Got {shown(values)}, in which some are none. Use numbers in rows.")


def _has_rows(values: Any) -> bool:
    return not isinstance(values, str | bytes) and getattr(values, "shape", None) != ()


class Examples(Protocol):
    """A participant with a model and examples of its own; test and valid may be None."""

    @property
    def model(self) -> Model:
        """What it trains."""
        ...

    @property
    def data(self) -> Any:
        """(X, y) to train on."""
        ...

    @property
    def test(self) -> Any:
        """(X, y) for the reported scores."""
        ...

    @property
    def valid(self) -> Any:
        """(X, y) for choices."""
        ...


def trained(
    who: Examples, shared: Contribution, local: Any, round: Round, *, step: Step | None = None, send: str = "delta"
) -> tuple[Contribution, Tree]:
    """The answer of a participant that trains: a delta (or a model) weighted by examples; or scores when asked.

    Args:
        who: whose model and examples.
        shared: the parameters from the hub.
        local: the participant's drawer.
        round: what everybody may know.
        step: how its training differs from the model's own.
        send: "delta" or "model".
    """
    buffers = local.get("buffers", {})
    if shared.kind == "score":
        return Contribution("score", None, metrics=held_out(who, shared.value, buffers)), local
    params, buffers, metrics = fitted(who, shared.value, buffers, round, step)
    value = params if send == "model" else difference(params, shared.value)
    return weighed(who, send, value, metrics), ({**local, "buffers": buffers} if buffers else local)


def trained_many(works: Works, plan: Plan, *, send: str) -> Sequence[tuple[Contribution, Tree]]:
    """What `trained` gives for each of these, whose model is one and has `fit_many`; none is asked for scores."""
    model: Any = works.who[0].model
    before = [s.value for s in works.shared]
    fits = model.fit_many(before, _buffers(works), [_ready(w) for w in works.who], works.rounds, plan)
    rows = fits.rows
    if send != "model":
        start = before[0]
        same = all(b is start for b in before)
        rows -= ravel(start, fits.layout) if same else np.stack([ravel(b, fits.layout) for b in before])
    metrics = {k: v for k, v in fits.metrics.items() if k != "examples"}
    stack = Stack(send, rows, fits.layout, fits.metrics["examples"][:, 0].copy(), metrics)
    drawers: Sequence[Any] = works.local
    pairs = zip(drawers, fits.local, strict=True)
    return Together(stack, [{**drawer, "buffers": own} if own else drawer for drawer, own in pairs])


def planned(works: Works, wish: Wish) -> Plan:
    """How these, whose model is one, do their work: what the model measures, where it can."""
    model: Any = works.who[0].model
    if not hasattr(model, "plan"):
        return Plan()
    data = [_ready(w) for w in works.who]
    plan: Plan = model.plan([s.value for s in works.shared], _buffers(works), data, works.rounds, wish)
    return plan


def _buffers(works: Works) -> list[Any]:
    """The buffers that each keeps."""
    drawers: Sequence[Any] = works.local
    return [drawer.get("buffers", {}) for drawer in drawers]


class Kept:
    """Something made of a participant's data and kept beside them; it stays behind when the participant is sent."""

    def __init__(self, value: Any = None) -> None:
        """Keep a value."""
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, ()


def _ready(who: Any) -> Any:
    """The data as the model takes them, made once for each participant where the model can."""
    kept = vars(who).setdefault("_ready", Kept())
    if kept.value is None:
        ready = getattr(who.model, "ready", None)
        kept.value = who.data if ready is None else ready(who.data)
    return kept.value


def weighed(who: Examples, kind: str, value: Tree, metrics: Metrics) -> Contribution:
    """A contribution weighted by examples: those that the fit counted, else the rows of y."""
    weight = float(metrics["examples"][0]) if "examples" in metrics else float(len(who.data[1]))
    return Contribution(kind, value, weight, {k: v for k, v in metrics.items() if k != "examples"})


def fitted(
    who: Examples, params: Tree, buffers: Tree, round: Round, step: Step | None = None
) -> tuple[Any, Any, Metrics]:
    """The parameters and local buffers after training on the participant's data, and what the fit measured."""
    how = {} if step is None else {"step": step}
    if fit_local := getattr(who.model, "fit_local", None):
        params, buffers, metrics = fit_local(params, buffers, _ready(who), round, **how)
        return params, buffers, metrics
    params, metrics = who.model.fit(params, who.data, round, **how)
    return params, buffers, metrics


def held_out(who: Examples, params: Tree, buffers: Tree, prefix: str = "") -> Metrics:
    """Scores on test ("") and valid ("valid_"); where there is neither, on the training data ("train_")."""
    held = {"": who.test, "valid_": who.valid}
    sets = {k: v for k, v in held.items() if v is not None} or {"train_": who.data}
    out: dict[str, tuple[float, float]] = {}
    for name, (x, y) in sets.items():
        out |= scores(predicted(who.model, params, buffers, x), np.asarray(y), f"{prefix}{name}") if len(y) else {}
    return out


def predicted(model: Model, params: Tree, buffers: Tree, x: Any) -> Any:
    """The model's predictions, with the site's own buffers where it takes them."""
    if predict_local := getattr(model, "predict_local", None):
        return predict_local(params, buffers, x)
    return model.predict(params, x)


def difference(after: Any, before: Any) -> Any:
    """after - before, leaf for leaf."""
    return tree_map(np.subtract, after, before)
