"""Votes that count by reputation: who was often right counts more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import added
from comity.core.checks import is_number, number, refusal, whole
from comity.core.contribution import Array, Contribution, View
from comity.core.errors import ContributionError
from comity.core.round import Round


@dataclass(frozen=True)
class ReputationVote:
    """Labels by a vote in which each worker counts by its reputation, a Beta posterior of being right.

    A contribution's value is `{"task": (n,) int, "label": (n,) int}`: which task got which label; or, from voters who
    answer the same tasks, `{"votes": (tasks, classes)}`, of which the largest of a row is the answer and a row of
    zeros abstains. The contributor's weight does not count: reputation takes its place.

    Worker j has the reputation Beta(a + r, b + s): r of its answers were right and s wrong, each by as much as the
    consensus q says. With ρ = (a + r) / (a + b + r + s), its vote weighs log(ρ·(classes - 1) / (1 - ρ)): the weights
    that are best for known ρ (Nitzan & Paroush, International Economic Review 1982). Consensus and reputations
    take turns from ρ = a / (a + b) on: the mean field approximation of Liu, Peng & Ihler (NeurIPS 2012) for workers
    with one accuracy, with ρ where the exact update has exp(digamma). Departure: more than two classes, wrong
    answers being equally likely and classes equally likely beforehand. Classes are those that somebody gave.

    Each (task, worker) counts once, whenever it comes: late answers count from then on, and an answer given again
    changes nothing, even where it differs, so that nobody can follow the consensus afterwards. Every round works
    it out anew from all answers: the result depends on which answers there are, never on the rounds they came in.

    The combined value: `consensus`, with `task` (n,), `label` (n,) and `certainty` (n,) float64 in (0, 1], q of that
    label (of equal ones, the lowest label), for the tasks that anybody answered; `answers`, worker to
    `{"task", "label"}`, all that counted so far; and `reputation`, worker to (a + r, b + s).

    Attributes:
        prior: (a, b), right and wrong answers that everybody begins with, each > 0.
        n_iter: the most turns of consensus and reputations, >= 1.
        tol: stop when no ρ moves by more, >= 0.

    Raises:
        ConfigError: a setting is out of its range.

    Example:
        >>> import numpy as np, comity as co
        >>> said = {"ann": [0, 1, 1, 0], "bob": [0, 1, 1, 0], "cy": [0, 1, 1, 0], "eve": [1, 0, 1, 1]}
        >>> tasks, vote = np.arange(4), co.ReputationVote()
        >>> heard = [co.Contribution("label", {"task": tasks, "label": np.array(x)}, sender=n) for n, x in said.items()]
        >>> combined, state = vote.lower(heard, vote.init(), co.Round("", 0))
        >>> combined.value["consensus"]["label"], state["reputation"]["eve"].round(1)
        (array([0, 1, 1, 0]), array([3., 4.]))
    """

    prior: tuple[float, float] = (2.0, 1.0)
    n_iter: int = 100
    tol: float = 1e-6
    needs: ClassVar[View] = "each"

    def __post_init__(self) -> None:
        if not (isinstance(self.prior, Sequence) and len(self.prior) == 2 and all(map(_positive, self.prior))):
            raise refusal("prior", "ReputationVote", "two finite numbers > 0", self.prior, "Use (2.0, 1.0), for one.")
        whole("n_iter", "ReputationVote", self.n_iter, 1)
        number("tol", "ReputationVote", self.tol, "[0, inf)")

    def init(self) -> dict[str, Any]:
        """Nobody has answered."""
        return {"answers": {}, "reputation": {}}

    def lift(self, c: Contribution) -> Contribution:
        """The answers as tasks and labels.

        Raises:
            ContributionError: they are neither that nor votes.
        """
        task, label = _given(c.value)
        return replace(c, value={"task": task, "label": label})

    def lower(self, gathered: Sequence[Contribution], state: Any, round: Round) -> tuple[Contribution, Any]:
        """All answers so far to labels; the state keeps the answers and the reputations."""
        answers = dict(state["answers"])
        for c in gathered:
            answers[c.sender] = _merged(answers.get(c.sender), c.value)
        answers = {who: answers[who] for who in sorted(answers)}
        consensus, reputation = self._labels(answers)
        metrics = added([c.metrics for c in gathered])
        after = {"answers": answers, "reputation": reputation}
        return Contribution("label", {"consensus": consensus, **after}, float(len(answers)), metrics), after

    def _labels(self, answers: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Array]]:
        """The consensus and the reputations that follow from these answers, whoever gave them when."""
        sizes = [len(x["task"]) for x in answers.values()]
        if not sum(sizes):
            none = np.zeros(0, np.int64)
            unknown = {who: np.array(self.prior, float) for who in answers}
            return {"task": none, "label": none, "certainty": np.zeros(0)}, unknown
        tasks, task = np.unique(np.concatenate([x["task"] for x in answers.values()]), return_inverse=True)
        classes, label = np.unique(np.concatenate([x["label"] for x in answers.values()]), return_inverse=True)
        worker = np.repeat(np.arange(len(sizes)), sizes)
        q, beta = self._consensus(worker, task * len(classes) + label, (len(sizes), len(tasks), len(classes)))
        best = q.argmax(axis=1)
        reputation = {who: beta[j] for j, who in enumerate(answers)}
        certainty = q[np.arange(len(tasks)), best]
        return {"task": tasks, "label": classes[best], "certainty": certainty}, reputation

    def _consensus(self, worker: Array, cell: Array, shape: tuple[int, int, int]) -> tuple[Array, Array]:
        """The consensus (tasks, classes) and the reputations (workers, 2)."""
        workers, tasks, classes = shape
        a, b = self.prior
        given = np.bincount(worker, minlength=workers)
        rho = np.full(workers, a / (a + b))
        for _ in range(self.n_iter):
            weight = np.log(rho) - np.log1p(-rho) + np.log(max(classes - 1, 1))
            joint = np.bincount(cell, weight[worker], tasks * classes).reshape(tasks, classes)
            q = np.exp(joint - joint.max(axis=1, keepdims=True))
            q /= q.sum(axis=1, keepdims=True)
            right = np.bincount(worker, q.ravel()[cell], workers)
            before, rho = rho, (a + right) / (a + b + given)
            if np.abs(rho - before).max() <= self.tol:
                break
        return q, np.stack([a + right, b + given - right], axis=1)


def _positive(x: Any) -> bool:
    return is_number(x) and 0 < x < np.inf


def _given(value: Any) -> tuple[Array, Array]:
    """Tasks and labels of a contribution."""
    value = value if isinstance(value, Mapping) else {}
    votes = value.get("votes")
    if isinstance(votes, np.ndarray) and votes.ndim == 2 and votes.shape[1] and votes.dtype.kind in "fiub":
        if votes.dtype.kind == "f" and not np.isfinite(votes).all():
            raise ContributionError("Votes must be finite. Got NaN or infinity. A row of zeros abstains.")
        cast = np.flatnonzero(votes.max(axis=1) > 0)
        return cast, votes[cast].argmax(axis=1)
    task, label = (value.get(name) for name in ("task", "label"))
    if not (_whole(task) and _whole(label) and len(task) == len(label)):
        raise ContributionError(
            "Answers must be {'task': (n,), 'label': (n,)} of whole numbers, or {'votes': (tasks, classes)}. "
            "Got another value."
        )
    return task.astype(np.int64), label.astype(np.int64)


def _whole(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind in "iu"


def _merged(old: Any, new: Any) -> dict[str, Array]:
    """A worker's answers sorted by task, the first of each task. Unlike lengths, from who lifts nothing, are cut."""
    task, label = np.asarray(new["task"]), np.asarray(new["label"])
    n = min(len(task), len(label))
    task, label = task[:n], label[:n]
    if old is not None:
        task, label = np.concatenate([old["task"], task]), np.concatenate([old["label"], label])
    task, first = np.unique(task, return_index=True)
    return {"task": task, "label": label[first]}
