"""Boosting: gradient-boosted trees from histograms that are sums (Friedman, Annals of Statistics 2001).

participant  sends, for each node that is to be split, sums of its rows' gradients and hessians by column and bin
             (XGBoost: Chen and Guestrin, KDD 2016; histograms as in LightGBM: Ke et al., NeurIPS 2017), whole numbers
hub          adds them, splits the nodes of a level, and shares the trees
never leaves rows, labels, predictions; but sums over few rows tell of these rows: hide them in the sum of all
bytes        up, a round of one level: half of its nodes times all bins times 8 (the other half is a difference);
             down: the trees so far, 4 bytes a split and 4 a leaf, and the edges of the bins
"""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import Mean
from comity.core.checks import number, refusal, whole
from comity.core.contribution import Array, Contribution, Metrics, Tree
from comity.core.fits import Unchanged
from comity.core.parts import Combiner, Past, Secret, Spend
from comity.core.rng import keyed_seed
from comity.core.round import Round
from comity.core.scores import scores
from comity.core.spec import Leaf, Spec
from comity.methods.bins import LOOKS, counts, edges_of, finer, first_cells
from comity.methods.margins import (
    REACH,
    Known,
    bins_of,
    bits_of,
    dtype_of,
    edges_given,
    first_margins,
    inputs_of,
    laid,
    outputs_of,
    pair_of,
    predicted,
    start_fits,
)
from comity.methods.trees import PARTS, Splits, best, no_trees, stump, with_sisters

WHO = 2**31


@dataclass(frozen=True)
class Boosting:
    """Gradient-boosted trees as if all rows lay in one place. Participants are `BoostingTrainer`.

    A tree is grown level by level, all nodes of a level in one round; with more than two classes a tree for each class
    at the same time. Gradients and hessians are rounded to whole numbers of 2**-bits before they are added (at least
    11 bits up to a million rows, 20 beyond and in regression), so that sums are exact: the trees are the same to the
    bit in whatever way the rows are spread. Bins are agreed in three rounds of counts, unless `edges` are given.

    `run.shared` are the trees, with which `predict` predicts; with `patience`, those up to the least validation loss.
    A run of `method.rounds` rounds grows all trees; `stop=method.stop` ends it where nothing more is to be done.
    Where another cohort answers than at the level before, that level is asked in full.

    Attributes:
        inputs: columns of X.
        classes: 0 for regression (y float), else how many there are, >= 2 (y whole numbers from 0).
        trees: of each class, >= 1.
        rate: the learning rate (shrinkage), in (0, 1].
        depth: levels of splits, 1 to 12; a tree has at most 2**depth leaves.
        bins: of a column, 2 to 255; missing values have one more.
        l2: λ of the leaves' weights, >= 0.
        least: the least sum of hessians of a leaf (XGBoost's min_child_weight), >= 0: in regression its rows.
        gain: the least gain of a split, >= 0.
        patience: trees without a lower validation loss after which no more are grown; 0 grows all. The loss is
            summed over the participants' `valid`.
        edges: for each column the edges of its bins, ascending; x <= edge lies below it. None: agreed upon.
        start: `run.shared` of another run, to go on from with its bins; `trees` are grown beyond its own.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> X = np.arange(40.0).reshape(-1, 1)
        >>> y = (X[:, 0] % 20 > 9).astype(int)
        >>> method = co.Boosting(inputs=1, classes=2, trees=10, depth=2, rate=0.5)
        >>> sites = {"a": co.BoostingTrainer((X[::2], y[::2])), "b": co.BoostingTrainer((X[1::2], y[1::2]))}
        >>> run = co.Collaboration(method, sites, stop=method.stop).run(method.rounds)
        >>> method.predict(run.shared, [[5.0], [15.0], [25.0], [35.0]]).argmax(1).tolist()
        [0, 1, 0, 1]
    """

    inputs: int
    classes: int = 0
    _: KW_ONLY
    trees: int = 100
    rate: float = 0.1
    depth: int = 5
    bins: int = 64
    l2: float = 1.0
    least: float = 1.0
    gain: float = 0.0
    patience: int = 0
    edges: Sequence[Any] | None = None
    start: Tree = None
    send: ClassVar[str] = "gradient"
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        who = "Boosting"
        for name, least in (("inputs", 1), ("classes", 0), ("trees", 1), ("depth", 1), ("bins", 2), ("patience", 0)):
            object.__setattr__(self, name, whole(name, who, getattr(self, name), least))
        if self.classes == 1:
            raise refusal("classes", who, "0 (regression) or >= 2", 1, "Use classes=2.")
        for name, most in (("depth", 12), ("bins", 255), ("inputs", 2**15 - 1)):
            if getattr(self, name) > most:
                raise refusal(name, who, f"at most {most}", getattr(self, name))
        for name, within in (("rate", "(0, 1]"), ("l2", "[0, inf)"), ("least", "[0, inf)"), ("gain", "[0, inf)")):
            number(name, who, getattr(self, name), within)
        if self.edges is not None:
            object.__setattr__(self, "edges", edges_given(self.edges, self.inputs))
        if self.start is not None:
            start_fits(self.start, self.inputs, self.outputs, self.depth)

    @property
    def outputs(self) -> int:
        """Trees that are grown at a time: one, or one for each of more than two classes."""
        return self.classes if self.classes > 2 else 1

    @property
    def rounds(self) -> int:
        """Rounds that grow all trees, and see the validation loss of the last."""
        looks = LOOKS if self.edges is None and self.start is None else 1
        return looks + self.trees * self.depth + bool(self.patience)

    @property
    def stop(self) -> "Finished":
        """Ends a run when all trees are grown."""
        return Finished()

    @property
    def combiner(self) -> Combiner:
        """The sum: each counts once."""
        return Mean(uniform=True)

    def init(self, round: Round) -> Any:
        """Nothing is known but the first cells, or the edges that were given."""
        begun: Any = self.start
        if begun is not None:
            return {"stage": "begin", "edges": begun["edges"], "widths": begun["widths"]}
        if self.edges is None:
            return {"stage": "bins", "cells": first_cells(self.inputs), "look": 0}
        return {"stage": "begin", **laid(self.edges)}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """What is to be counted or summed, and the trees so far; to nobody in particular, the trees."""
        if state["stage"] in ("bins", "begin"):
            said = {k: state[k] for k in ("cells", "edges", "widths") if k in state}
            return Contribution("statistics", {"stage": state["stage"], **said, "classes": self.classes})
        known = {k: state[k] for k in ("edges", "widths", "begin", "spread", *PARTS)}
        if not to:
            return Contribution("model", {**known, **self._kept(state)})
        growing = {k: state[k] for k in ("tree", "level", "asked", "bits", "stage")}
        keep = len(self._kept(state)["value"])
        return Contribution("model", {**known, **growing, "keep": keep, "classes": self.classes})

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """Counts below 2**31; sums within what so many rows can give."""
        if state["stage"] in ("bins", "begin"):
            y = Leaf((self.classes,), "int64", 0, 2**31) if self.classes else Leaf((3,), "float64")
            cells = {"counts": Leaf((self.inputs, state["cells"].shape[1] - 1), "int32", 0)} if "cells" in state else {}
            return Spec({"y": y, **cells}, kind="statistics")
        rows, unit = float(state["rows"]), 2.0 ** int(state["bits"])
        most = rows * unit * (1 if self.classes else REACH)
        shape, kind = (len(state["asked"]), bins_of(state).size), dtype_of(int(state["bits"]), self.classes)
        g, h = Leaf(shape, kind, -most, most), Leaf(shape, kind, 0, rows * unit)
        return Spec({"g": g, "h": h, "who": Leaf((), "int64", 0, WHO)}, kind="gradient")

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """One step further: finer cells, the first margins, or the next level of a tree."""
        answered: Any = combined.weight
        if not answered:
            return state
        value: Any = combined.value
        sums = {k: np.asarray(v) * float(answered) for k, v in value.items()}
        if state["stage"] == "bins":
            return self._binned(state, sums)
        if state["stage"] == "begin":
            return self._begun(state, sums)
        return state if state["stage"] == "done" else self._grown(state, sums, combined.metrics)

    def predict(self, shared: Tree, x: Any) -> Array:
        """Predictions of trees that were shared.

        Args:
            shared: `run.shared`.
            x: (rows, inputs) numbers, NaN where missing.

        Returns:
            (rows, classes) float64 probabilities, rows sum to 1; for regression (rows,) float64.

        Raises:
            ConfigError: other columns than `inputs`, or no trees yet.
        """
        return predicted(shared, inputs_of(x, self.inputs), self.classes)

    def _binned(self, state: Any, sums: Any) -> Any:
        counted, look = np.rint(sums["counts"]), int(state["look"]) + 1
        if look < LOOKS:
            return {**state, "cells": finer(state["cells"], counted), "look": look}
        return self._begun(laid(edges_of(state["cells"], counted, self.bins)), sums)

    def _begun(self, state: Any, sums: Any) -> Any:
        """The first margins: the log of the odds or of each class's share, or the mean; and how finely to round."""
        begin, spread, rows = first_margins(sums["y"], self.classes)
        known = {"edges": state["edges"], "widths": state["widths"], "begin": begin, "spread": spread, "rows": rows}
        known |= {"bits": bits_of(rows, self.classes), "least": math.inf, "subtract": 1, "who": 0}
        known |= no_trees(self.outputs, self.depth)
        if self.start is not None:
            begun: Any = self.start
            known |= {k: np.array(begun[k]) for k in ("begin", *PARTS)}
        return self._rooted({**known, "best": len(known["value"]), "first": len(known["value"])})

    def _rooted(self, state: Any) -> Any:
        """Ready for the next trees, if there are to be any."""
        done = len(state["value"]) >= self.trees + int(state["first"])
        over = done and not self.patience
        asked = np.arange(self.outputs, dtype=np.int32)
        held = {"codes": np.zeros(0, np.int32), "g": np.zeros((0, bins_of(state).size), np.int64)}
        fresh = {"tree": stump(self.outputs, self.depth), "level": 0, "asked": asked, "held": {**held, "h": held["g"]}}
        if done:
            fresh["asked"] = asked[:0]
        return {**state, **fresh, "stage": "done" if over else "last" if done else "grow"}

    def _grown(self, state: Any, sums: Any, metrics: Metrics) -> Any:
        if int(state["level"]) == 0:
            state = self._judged(state, metrics)
            if state["stage"] == "done":
                return state
        g, h = (np.rint(sums[k]).astype(np.int64) for k in ("g", "h"))
        who, level = int(np.rint(sums["who"])), int(state["level"])
        asked, halved = state["asked"], bool(level and state["subtract"])
        if halved and who != state["who"]:
            return {**state, "subtract": 0, "asked": np.sort(np.r_[asked, asked ^ 1]).astype(np.int32)}
        if halved:
            asked, g, h = with_sisters(asked, state["held"], (g, h))
        return self._split({**state, "who": who}, asked, g, h)

    def _judged(self, state: Any, metrics: Metrics) -> Any:
        """Is the loss of the trees so far the least; are they to be the last?"""
        found = metrics.get("valid_log_loss") or metrics.get("valid_mse")
        n = len(state["value"])
        if self.patience and found and found[1]:
            loss = found[0] / found[1]
            if loss < float(state["least"]):
                state = {**state, "least": loss, "best": n}
        waited = self.patience and n - int(state["best"]) >= self.patience and bool(found)
        over = waited or state["stage"] == "last"
        return {**state, "stage": "done", "asked": state["asked"][:0]} if over else state

    def _split(self, state: Any, asked: Array, g: Array, h: Array) -> Any:
        """The nodes of a level, split; and the children that are asked for next."""
        level, tree, bins = int(state["level"]), dict(state["tree"]), bins_of(state)
        sums = self._sums(state, asked, g, h)
        found = best(g, h, bins, 2.0 ** int(state["bits"]), (self.l2, self.least, self.gain))
        ks, js = asked // 2**level, asked % 2**level
        at = (ks[found.found], js[found.found] + 2**level - 1)
        for name in PARTS[:3]:
            tree[name] = tree[name].copy()
            tree[name][at] = getattr(found, name)[found.found]
        below = [np.stack([x, np.zeros_like(x)], axis=2).reshape(self.outputs, -1) for x in sums]
        for total, part in zip(below, (found.g, found.h), strict=True):
            for side in (0, 1):
                total[ks[found.found], 2 * js[found.found] + side] = part[found.found, side]
        if level + 1 == self.depth or not found.found.any():
            return self._finished(state, tree, below, level + 1)
        return {**state, "tree": tree, "level": level + 1, **self._next(state, asked, (g, h), found, below)}

    def _sums(self, state: Any, asked: Array, g: Array, h: Array) -> list[Array]:
        """(outputs, nodes of the level) int64 sums of gradients and of hessians."""
        level, first = int(state["level"]), int(bins_of(state).starts[1])
        if level == 0:
            return [x[:, :first].sum(1)[:, None] for x in (g, h)]
        totals = [state["totals"][k].copy() for k in ("g", "h")]
        if not state["subtract"]:
            for total, x in zip(totals, (g, h), strict=True):
                total[asked // 2**level, asked % 2**level] = x[:, :first].sum(1)
        return totals

    def _next(self, state: Any, asked: Array, sums: tuple[Array, Array], splits: Splits, below: list[Array]) -> Any:
        """Of each node that was split the child with the lesser hessians is asked for; both, where others answer."""
        found, lesser = splits.found, splits.h[:, 1] < splits.h[:, 0]
        children = (2 * asked + lesser)[found].astype(np.int32)
        held = {"codes": asked[found].astype(np.int32), "g": sums[0][found], "h": sums[1][found]}
        if not state["subtract"]:
            children = np.sort(np.r_[children, children ^ 1]).astype(np.int32)
            held = {k: v[:0] for k, v in held.items()}
        return {"asked": children, "held": held, "totals": {"g": below[0], "h": below[1]}}

    def _finished(self, state: Any, tree: Any, sums: list[Array], level: int) -> Any:
        """The values of the leaves, -rate·G/(H + λ); and the tree put to the others."""
        unit = 2.0 ** int(state["bits"])
        g, h = (x / unit for x in sums)
        weight = np.divide(g, h + self.l2, out=np.zeros_like(g), where=h + self.l2 > 0)
        value = np.zeros((self.outputs, 2**self.depth), np.float32)
        value[:, :: 2 ** (self.depth - level)] = -self.rate * float(state["spread"]) * weight
        new = {**tree, "value": value}
        return self._rooted({**state, **{k: np.concatenate([state[k], new[k][None]]) for k in PARTS}})

    def _kept(self, state: Any) -> dict[str, Any]:
        """The trees up to the least validation loss, where it is looked at."""
        n = int(state["best"]) if self.patience and math.isfinite(state["least"]) else len(state["value"])
        return {k: state[k][:n] for k in PARTS}


@dataclass(frozen=True)
class Finished:
    """Stops a run of `Boosting` when participants were told that no more is asked."""

    complete: ClassVar[bool] = True

    def __call__(self, past: Past, ahead: Sequence[Spend]) -> bool:
        """Did they say so?"""
        return bool(past.metric("finished"))


@dataclass(frozen=True)
class BoostingTrainer:
    """Sums the gradients of its own rows, and scores the trees on its own held-out ones.

    Its drawer stays empty: margins follow from the trees, and are only kept in memory to save time.

    Attributes:
        data: (X, y): X (rows, inputs) numbers, read as float32, NaN where missing; y (rows,) class numbers, or float.
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_". The loss on it goes with each tree's first answer.

    Where neither test nor valid is given, scores are of the training data and begin with "train_".
    """

    data: Any = field(metadata={"data": True}, repr=False)
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Counts of cells and classes, or histograms of gradients; or scores when scores are asked for.

        Raises:
            ConfigError: data that do not fit.
        """
        told: Any = shared.value
        if shared.kind == "score":
            return Contribution("score", None, metrics=self._scores(told)), local
        if told["stage"] in ("bins", "begin"):
            return Contribution("statistics", self._statistics(told)), local
        g, h = self._histograms(told)
        value = {"g": g, "h": h, "who": np.int64(keyed_seed("cohort", round.me) % WHO)}
        return Contribution("gradient", value, metrics=self._seen(told)), local

    def _statistics(self, told: Any) -> dict[str, Any]:
        x, y = pair_of(self.data, int(told["widths"].size if "widths" in told else len(told["cells"])), told["classes"])
        if told["classes"]:
            said: dict[str, Any] = {"y": np.bincount(y.astype(np.int64), minlength=int(told["classes"]))}
        else:
            said = {"y": np.array([len(y), y.sum(), (y * y).sum()], np.float64)}
        return said | ({"counts": counts(x, told["cells"])} if "cells" in told else {})

    def _histograms(self, told: Any) -> tuple[Array, Array]:
        here, classes, bits = self._at("data", told), int(told["classes"]), int(told["bits"])
        slopes = here.slopes(classes, bits, float(told["spread"])) if len(told["asked"]) else ()
        g, h = here.histograms(told["tree"], int(told["level"]), told["asked"], slopes)
        return g.astype(dtype_of(bits, classes)), h.astype(dtype_of(bits, classes))

    def _seen(self, told: Any) -> Metrics:
        """The loss on the validation rows, once for each tree."""
        if told["stage"] == "done":
            return {"finished": (1.0, 1.0)}
        if int(told["level"]) or self.valid is None or not len(self.valid[1]):
            return {}
        return {k: v for k, v in self._scored("valid", told).items() if k in ("valid_log_loss", "valid_mse")}

    def _scores(self, told: Any) -> Metrics:
        if "value" not in told:
            return {"train_rows": (float(len(self.data[1])), 1.0)}
        held = [name for name in ("test", "valid") if getattr(self, name) is not None] or ["data"]
        if told["stage"] == "done":
            told = {**told, **{k: told[k][: int(told["keep"])] for k in PARTS}}
        return {k: v for name in held for k, v in self._scored(name, told).items()}

    def _scored(self, name: str, told: Any) -> Metrics:
        here = self._at(name, told)
        said = outputs_of(here.margins, int(told["classes"]))
        return scores(said, here.y, {"test": "", "valid": "valid_"}.get(name, "train_")) if len(here.y) else {}

    def _at(self, name: str, told: Any) -> "Known":
        """Rows with their margins after the trees that were told: those of last time, moved on where it can be."""
        memory: dict[str, Known] = vars(self).setdefault("_known", {})
        bins, before = bins_of(told), memory.get(name)
        if before is None or not bins.same(before.bins):
            x, y = pair_of(getattr(self, name), len(bins.widths), told["classes"])
            before = Known(bins, bins.codes(x), y)
        memory[name] = before.after(told)
        return memory[name]
