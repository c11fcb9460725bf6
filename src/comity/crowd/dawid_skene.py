"""Dawid and Skene: labels and workers' errors, each estimated from the other."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from comity.core.checks import number, whole, word
from comity.core.contribution import Array
from comity.crowd.answers import REPEATED, Answers, read_answers

ERRORS = ("confusion", "two-coin", "one-coin")
TINY = 1e-300


@dataclass(eq=False)
class DawidSkene:
    """Labels from workers who err each in an own way, by expectation-maximisation (Dawid & Skene, 1979).

    A worker j answers l to a task of class k with probability e_jkl, independently of everything else; classes
    have the prior p_k. From the shares of the votes on, an M-step (their eqs. 2.3 and 2.4) and an E-step (2.5)
    take turns, the E-step on logarithms. How errors may look is `errors`:

    - "confusion": each row e_jk is free: classes·(classes - 1) numbers for each worker (the paper's model).
    - "two-coin": one accuracy e_jkk for each true class, wrong answers equally likely. With two classes, that is
      sensitivity and specificity, the same as "confusion".
    - "one-coin": one accuracy for each worker, wrong answers equally likely (Zhang, Chen, Zhou & Jordan, JMLR 2016).

    Departure: each cell e_jkl begins with `smoothing` answers (the paper has none), so that no probability is 0.
    What is minimised is then -(log-likelihood + smoothing·Σ log e) and it never rises from one step to the next.

    With few answers a worker, "one-coin" is often better than "confusion"; with many, often far worse, as it
    cannot tell a bias towards one class from a mistake.

    Attributes:
        errors: "confusion", "two-coin" or "one-coin".
        n_iter: the most iterations, >= 1.
        tol: stop when the loss falls by less, nats for each answer, >= 0.
        smoothing: answers in each cell of a worker's confusion matrix before it has given one, > 0.
        repeated: what counts where a worker answered a task more than once: the "last" answer, or "all".
        labels_: task to label; a tie goes to the class that appears first in the answers.
        probas_: (tasks, classes) float64, P(class | answers); rows sum to 1.
        skills_: worker to the probability in [0, 1] of a right answer, over the classes as often as they occur.
        errors_: (workers, true classes, answered classes) float64; rows of the last axis sum to 1.
        priors_: (classes,) float64; sum to 1.
        loss_history_: the loss before each iteration's M-step, nats for each answer.
        converged_: whether it stopped by `tol`.
        left_out_: rows that did not count because the worker answered the task again.
        tasks_, workers_, classes_: the ids in the order of the axes.

    Raises:
        ConfigError: a setting is out of its range.

    Example:
        >>> import comity as co
        >>> truth = {"t1": "a", "t2": "b", "t3": "a", "t4": "b"}
        >>> rows = [(t, w, k) for t, k in truth.items() for w in ("ann", "bob")]
        >>> rows += [(t, "eve", "a" if k == "b" else "b") for t, k in truth.items()]     # always wrong
        >>> found = co.DawidSkene(smoothing=0.1).fit(rows)
        >>> found.labels_ == truth, found.errors_[2].round(1).tolist()
        (True, [[0.0, 1.0], [1.0, 0.0]])
    """

    errors: str = "confusion"
    n_iter: int = 100
    tol: float = 1e-5
    smoothing: float = 0.01
    repeated: str = "last"
    labels_: dict[Any, Any] = field(init=False, repr=False)
    probas_: Array = field(init=False, repr=False)
    skills_: dict[Any, float] = field(init=False, repr=False)
    errors_: Array = field(init=False, repr=False)
    priors_: Array = field(init=False, repr=False)
    loss_history_: list[float] = field(init=False, repr=False)
    converged_: bool = field(init=False, repr=False)
    left_out_: int = field(init=False, repr=False)
    tasks_: tuple[Any, ...] = field(init=False, repr=False)
    workers_: tuple[Any, ...] = field(init=False, repr=False)
    classes_: tuple[Any, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        word("errors", "DawidSkene", self.errors, ERRORS)
        self.n_iter = whole("n_iter", "DawidSkene", self.n_iter, 1)
        self.tol = number("tol", "DawidSkene", self.tol, "[0, inf)")
        self.smoothing = number("smoothing", "DawidSkene", self.smoothing, "(0, inf)")
        word("repeated", "DawidSkene", self.repeated, REPEATED)

    def fit(self, answers: Any) -> "DawidSkene":
        """Estimate.

        Args:
            answers: a frame, a path, a mapping of columns, each with task, worker and label; or rows of these three.

        Raises:
            ConfigError: it is no table of answers.
        """
        read = read_answers(answers, self.repeated)
        steps = _Steps(read, FORMS[self.errors], self.smoothing)
        votes = read.votes()
        q = (votes / votes.sum(axis=1, keepdims=True)).T
        losses: list[float] = []
        self.converged_ = False
        for _ in range(self.n_iter):
            q, loss = steps.expect(*steps.maximise(q))
            losses.append(loss)
            self.converged_ = len(losses) > 1 and losses[-2] - loss < self.tol
            if self.converged_:
                break
        self.errors_, self.priors_ = steps.maximise(q)
        self.loss_history_, self.probas_ = losses, np.ascontiguousarray(q.T)
        self.tasks_, self.workers_, self.classes_, self.left_out_ = (
            read.tasks,
            read.workers,
            read.classes,
            read.repeated,
        )
        self.labels_ = read.by_task(read.likeliest(self.probas_))
        self.skills_ = read.by_worker(np.einsum("jkk,k->j", self.errors_, self.priors_))
        return self

    def fit_predict(self, answers: Any) -> dict[Any, Any]:
        """`fit`, and task to label."""
        return self.fit(answers).labels_


class _Steps:
    """The two steps over one table; q is (classes, tasks)."""

    def __init__(self, read: Answers, form: Callable[[Array, float], Array], smoothing: float) -> None:
        self.tasks, self.workers, self.classes = read.shape
        self.task, self.cell = read.task, read.worker * self.classes + read.label
        self.form, self.smoothing = form, smoothing

    def maximise(self, q: Array) -> tuple[Array, Array]:
        """Errors (workers, true, answered) and priors (classes,) from the classes' probabilities."""
        counts = np.empty((self.workers, self.classes, self.classes))
        for k in range(self.classes):
            seen = np.bincount(self.cell, q[k][self.task], self.workers * self.classes)
            counts[:, k] = seen.reshape(self.workers, self.classes)
        return self.form(counts, self.smoothing), q.mean(axis=1)

    def expect(self, errors: Array, priors: Array) -> tuple[Array, float]:
        """The classes' probabilities, and the loss of the errors and priors given."""
        logs = np.log(errors)
        joint = np.empty((self.classes, self.tasks))
        for k in range(self.classes):
            joint[k] = np.bincount(self.task, logs[:, k].ravel()[self.cell], self.tasks)
        joint += np.log(np.maximum(priors, TINY))[:, None]
        top = joint.max(axis=0)
        q = np.exp(joint - top)
        total = q.sum(axis=0)
        likelihood = float((top + np.log(total)).sum() + self.smoothing * logs.sum())
        return q / total, -likelihood / len(self.task)


def _confusion(counts: Array, smoothing: float) -> Array:
    counts = counts + smoothing
    shares: Array = counts / counts.sum(axis=2, keepdims=True)
    return shares


def _two_coin(counts: Array, smoothing: float) -> Array:
    classes = counts.shape[2]
    right, given = np.einsum("jkk->jk", counts), counts.sum(axis=2)
    return _coins((right + smoothing) / (given + classes * smoothing))


def _one_coin(counts: Array, smoothing: float) -> Array:
    classes = counts.shape[2]
    right, given = np.einsum("jkk->j", counts), counts.sum(axis=(1, 2))
    share = (right + classes * smoothing) / (given + classes**2 * smoothing)
    return _coins(np.repeat(share[:, None], classes, axis=1))


def _coins(right: Array) -> Array:
    """Accuracies (workers, true classes) to errors; wrong answers are equally likely."""
    classes = right.shape[1]
    wrong = np.maximum((1 - right) / max(classes - 1, 1), TINY)
    errors = np.repeat(wrong[:, :, None], classes, axis=2)
    errors[:, np.arange(classes), np.arange(classes)] = right
    return errors


FORMS = {"confusion": _confusion, "two-coin": _two_coin, "one-coin": _one_coin}
