"""GLAD: workers' abilities and tasks' difficulties."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from comity.core.checks import number, whole, word
from comity.core.contribution import Array
from comity.crowd.answers import REPEATED, Answers, read_answers

HALVINGS, MOST_EASE = 8, 30.0


@dataclass(eq=False)
class GLAD:
    """Labels from workers of unlike ability on tasks of unlike difficulty (Whitehill et al., NeurIPS 2009).

    Worker j is right about task i with probability σ(α_j·β_i) (their eq. 1): α in (-inf, inf) is ability, below 0
    for who is wrong more often than not, and 1/β_i > 0 difficulty. Wrong answers are equally likely. α and
    log β have the prior Normal(1, 1), classes are equally likely beforehand. The E-step is eq. 3; the M-step goes
    `n_steps` times over all abilities and then all difficulties with one Newton step each. Departure: the paper
    climbs the gradient; here a step that would lower its own part of the bound is halved or not made, so that
    the loss, -(log-likelihood + log-priors), never rises.

    Attributes:
        n_iter: the most iterations, >= 1.
        n_steps: Newton steps of each M-step, >= 1.
        tol: stop when the loss falls by less, nats for each answer, >= 0.
        repeated: what counts where a worker answered a task more than once: the "last" answer, or "all".
        labels_: task to label; a tie goes to the class that appears first in the answers.
        probas_: (tasks, classes) float64, P(class | answers); rows sum to 1.
        skills_: worker to ability α.
        difficulties_: task to difficulty 1/β.
        priors_: (classes,) float64, all the same.
        loss_history_: the loss before each iteration's M-step, nats for each answer.
        converged_: whether it stopped by `tol`.
        left_out_: rows that did not count because the worker answered the task again.
        tasks_, workers_, classes_: the ids in the order of the axes.

    Raises:
        ConfigError: a setting is out of its range.

    Example:
        >>> import comity as co
        >>> rows = [(t, w, t % 2) for t in range(6) for w in ("ann", "bob")] + [(t, "eve", 0) for t in range(6)]
        >>> found = co.GLAD().fit(rows)
        >>> [found.labels_[t] for t in range(6)], found.skills_["eve"] < found.skills_["ann"]
        ([0, 1, 0, 1, 0, 1], True)
    """

    n_iter: int = 100
    n_steps: int = 3
    tol: float = 1e-5
    repeated: str = "last"
    labels_: dict[Any, Any] = field(init=False, repr=False)
    probas_: Array = field(init=False, repr=False)
    skills_: dict[Any, float] = field(init=False, repr=False)
    difficulties_: dict[Any, float] = field(init=False, repr=False)
    priors_: Array = field(init=False, repr=False)
    loss_history_: list[float] = field(init=False, repr=False)
    converged_: bool = field(init=False, repr=False)
    left_out_: int = field(init=False, repr=False)
    tasks_: tuple[Any, ...] = field(init=False, repr=False)
    workers_: tuple[Any, ...] = field(init=False, repr=False)
    classes_: tuple[Any, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.n_iter = whole("n_iter", "GLAD", self.n_iter, 1)
        self.n_steps = whole("n_steps", "GLAD", self.n_steps, 1)
        self.tol = number("tol", "GLAD", self.tol, "[0, inf)")
        word("repeated", "GLAD", self.repeated, REPEATED)

    def fit(self, answers: Any) -> "GLAD":
        """Estimate.

        Args:
            answers: a frame, a path, a mapping of columns, each with task, worker and label; or rows of these three.

        Raises:
            ConfigError: it is no table of answers.
        """
        read = read_answers(answers, self.repeated)
        steps, losses = _Steps(read), []
        ability, ease = np.ones(steps.workers), np.ones(steps.tasks)
        self.converged_ = False
        for _ in range(self.n_iter):
            q, loss = steps.expect(ability, ease)
            losses.append(loss)
            self.converged_ = len(losses) > 1 and losses[-2] - loss < self.tol
            if self.converged_:
                break
            for _ in range(self.n_steps):
                ability, ease = steps.maximise(q, ability, ease)
        self.probas_, self.loss_history_ = q, losses
        self.tasks_, self.workers_, self.classes_, self.left_out_ = (
            read.tasks,
            read.workers,
            read.classes,
            read.repeated,
        )
        self.priors_ = np.full(steps.classes, 1 / steps.classes)
        self.labels_ = read.by_task(read.likeliest(q))
        self.skills_ = read.by_worker(ability)
        self.difficulties_ = dict(zip(read.tasks, np.exp(-ease).tolist(), strict=True))
        return self

    def fit_predict(self, answers: Any) -> dict[Any, Any]:
        """`fit`, and task to label."""
        return self.fit(answers).labels_


class _Steps:
    """The two steps over one table. Ability is α (workers,), ease is log β (tasks,), q is (tasks, classes)."""

    def __init__(self, read: Answers) -> None:
        self.tasks, self.workers, self.classes = read.shape
        self.task, self.worker = read.task, read.worker
        self.cell = read.task * self.classes + read.label
        self.others = np.log(max(self.classes - 1, 1))

    def expect(self, ability: Array, ease: Array) -> tuple[Array, float]:
        """The classes' probabilities, and the loss of the abilities and eases given."""
        x = ability[self.worker] * np.exp(ease)[self.task]
        wrong = np.bincount(self.task, -_softplus(x) - self.others, self.tasks) - np.log(self.classes)
        gain = x + self.others
        joint = np.bincount(self.cell, gain, self.tasks * self.classes).reshape(self.tasks, self.classes)
        top = joint.max(axis=1, keepdims=True)
        q = np.exp(joint - top)
        total = q.sum(axis=1, keepdims=True)
        likelihood = float((wrong + (top + np.log(total))[:, 0]).sum())
        priors = -0.5 * float(((ability - 1) ** 2).sum() + ((ease - 1) ** 2).sum())
        return q / total, -(likelihood + priors) / len(self.task)

    def maximise(self, q: Array, ability: Array, ease: Array) -> tuple[Array, Array]:
        """One Newton step for each ability, then one for each ease."""
        right = q.ravel()[self.cell]
        scale = np.exp(ease)[self.task]

        def of_ability(a: Array) -> tuple[Array, Array, Array]:
            return self._bound(right, a[self.worker] * scale, scale, self.worker)

        ability = _climbed(of_ability, ability)
        mine = ability[self.worker]

        def of_ease(b: Array) -> tuple[Array, Array, Array]:
            x = mine * np.exp(np.minimum(b, MOST_EASE))[self.task]
            return self._bound(right, x, x, self.task)

        return ability, _climbed(of_ease, ease)

    def _bound(self, right: Array, x: Array, slope: Array, whose: Array) -> tuple[Array, Array, Array]:
        """For each worker or task: its part of the bound, the derivative, and the curvature (Fisher's)."""
        n = self.workers if whose is self.worker else self.tasks
        s = np.exp(-_softplus(-x))
        value = np.bincount(whose, right * x - _softplus(x), n)
        return value, np.bincount(whose, (right - s) * slope, n), np.bincount(whose, s * (1 - s) * slope**2, n)


def _climbed(bound: Callable[[Array], tuple[Array, Array, Array]], at: Array) -> Array:
    """One Newton step for each coordinate, with the prior Normal(1, 1); halved where it would go down."""
    value, slope, curve = bound(at)
    value = value - 0.5 * (at - 1) ** 2
    step = (slope - (at - 1)) / (curve + 1)
    kept: Array = at
    for _ in range(HALVINGS):
        down = bound(at + step)[0] - 0.5 * (at + step - 1) ** 2 < value
        kept = np.where(down, at, at + step)
        if not down.any():
            break
        step = np.where(down, step / 2, step)
    return kept


def _softplus(x: Array) -> Array:
    """log(1 + exp(x)) without overflow."""
    y: Array = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return y
