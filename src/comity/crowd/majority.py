"""Majority vote over a table of answers."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from comity.core.checks import word
from comity.core.contribution import Array
from comity.crowd.answers import REPEATED, read_answers


@dataclass(eq=False)
class MajorityVote:
    """The label that most workers gave to each task (plurality for more than two classes).

    A tie goes to the class that appears first in the answers. All workers count the same.

    Attributes:
        repeated: what counts where a worker answered a task more than once: the "last" answer, or "all".
        labels_: task to label.
        probas_: (tasks, classes) float64, the shares of the votes; rows sum to 1.
        skills_: worker to the share in [0, 1] of its answers that are the task's label.
        left_out_: rows that did not count because the worker answered the task again.
        tasks_, workers_, classes_: the ids in the order of the rows and columns.

    Raises:
        ConfigError: `repeated` is neither.

    Example:
        >>> import comity as co
        >>> rows = [("t1", "ann", "cat"), ("t1", "bob", "dog"), ("t1", "eve", "dog"), ("t2", "ann", "cat")]
        >>> vote = co.MajorityVote().fit(rows)
        >>> vote.labels_, vote.skills_
        ({'t1': 'dog', 't2': 'cat'}, {'ann': 0.5, 'bob': 1.0, 'eve': 1.0})
    """

    repeated: str = "last"
    labels_: dict[Any, Any] = field(init=False, repr=False)
    probas_: Array = field(init=False, repr=False)
    skills_: dict[Any, float] = field(init=False, repr=False)
    left_out_: int = field(init=False, repr=False)
    tasks_: tuple[Any, ...] = field(init=False, repr=False)
    workers_: tuple[Any, ...] = field(init=False, repr=False)
    classes_: tuple[Any, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        word("repeated", "MajorityVote", self.repeated, REPEATED)

    def fit(self, answers: Any) -> "MajorityVote":
        """Count.

        Args:
            answers: a frame, a path, a mapping of columns, each with task, worker and label; or rows of these three.

        Raises:
            ConfigError: it is no table of answers.
        """
        read = read_answers(answers, self.repeated)
        votes = read.votes()
        labels = read.likeliest(votes)
        right = np.bincount(read.worker, labels[read.task] == read.label) / np.bincount(read.worker)
        self.tasks_, self.workers_, self.classes_, self.left_out_ = (
            read.tasks,
            read.workers,
            read.classes,
            read.repeated,
        )
        self.probas_ = votes / votes.sum(axis=1, keepdims=True)
        self.labels_, self.skills_ = read.by_task(labels), read.by_worker(right)
        return self

    def fit_predict(self, answers: Any) -> dict[Any, Any]:
        """`fit`, and task to label."""
        return self.fit(answers).labels_
