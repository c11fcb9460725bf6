"""A table of answers as numbers: who said what about which task."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comity.core.checks import shown, word
from comity.core.contribution import Array
from comity.core.errors import ConfigError, nearest

COLUMNS = ("task", "worker", "label")
REPEATED = ("last", "all")


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers by number, sorted by task and worker.

    Attributes:
        tasks: the tasks' own ids, sorted.
        workers: the workers' own ids, sorted.
        classes: the labels that somebody gave, sorted.
        task: (answers,) int64, the place of each answer's task in `tasks`.
        worker: (answers,) int64, likewise.
        label: (answers,) int64, likewise in `classes`.
        first: (classes,) int64, the classes in the order in which they first appear.
        repeated: how many rows were left out because the same worker answered the same task again.
    """

    tasks: tuple[Any, ...]
    workers: tuple[Any, ...]
    classes: tuple[Any, ...]
    task: Array
    worker: Array
    label: Array
    first: Array
    repeated: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many tasks, workers and classes there are."""
        return len(self.tasks), len(self.workers), len(self.classes)

    def votes(self) -> Array:
        """(tasks, classes) float64: how many answers each class has."""
        tasks, _, classes = self.shape
        counts = np.bincount(self.task * classes + self.label, minlength=tasks * classes)
        return counts.reshape(tasks, classes).astype(float)

    def likeliest(self, probas: Array) -> Array:
        """(tasks,) int64: the class of the largest (tasks, classes) value; of equal ones, that which appears first."""
        chosen: Array = self.first[probas[:, self.first].argmax(axis=1)]
        return chosen

    def by_task(self, labels: Array) -> dict[Any, Any]:
        """Task id to label, of the classes' numbers (tasks,)."""
        return {task: self.classes[k] for task, k in zip(self.tasks, labels.tolist(), strict=True)}

    def by_worker(self, x: Array) -> dict[Any, float]:
        """Worker id to number, of (workers,)."""
        return dict(zip(self.workers, x.tolist(), strict=True))


def read_answers(answers: Any, repeated: str = "last") -> Answers:
    """A table of answers, however it comes.

    Args:
        answers: a frame (polars, pandas, ...) or a path to one as `co.read_table` takes it, a mapping, each with
            the columns task, worker and label (others are not looked at), or rows (task, worker, label). Frames
            and files are read as `co.read_table` reads them: 1, 1.0 and "1" are the same there. In mappings and
            rows an id may be anything hashable that can be sorted with the others of its column, or else all
            are sorted as they print.
        repeated: what counts where a worker answered a task more than once: the "last" answer, or "all".

    Raises:
        ConfigError: a column is missing, columns differ in length, there is no answer, or one lacks something.

    Example:
        >>> rows = [("t1", "ann", "cat"), ("t1", "bob", "dog"), ("t1", "ann", "dog")]
        >>> read = read_answers(rows)
        >>> read.classes, read.votes().tolist(), read.repeated
        (('dog',), [[2.0]], 1)
    """
    word("repeated", "", repeated, REPEATED)
    columns = _columns(answers)
    _complete(columns)
    if repeated == "last":
        columns, left_out = _last(columns)
    else:
        left_out = 0
    (tasks, task), (workers, worker), (classes, label) = (_coded(c) for c in columns)
    order, first = np.lexsort((label, worker, task)), np.unique(label, return_index=True)[1].argsort()
    return Answers(tasks, workers, classes, task[order], worker[order], label[order], first, left_out)


def _columns(answers: Any) -> list[Any]:
    if isinstance(answers, Mapping):
        for name in COLUMNS:
            if name not in answers:
                raise ConfigError(f"Answers must have the columns task, worker and label. Got no '{name}'."
                                  f"{nearest(name, map(str, answers))}")  # fmt: skip
        return _even([_listed(answers[name]) for name in COLUMNS])
    if isinstance(answers, bytes) or (isinstance(answers, np.ndarray) and not answers.ndim):
        raise ConfigError(f"Answers must be a table of task, worker and label. Got {shown(answers)}.")
    if isinstance(answers, Sequence | np.ndarray) and not isinstance(answers, str):
        return _rows(answers)
    from comity.data.tables import column, read_table

    table = read_table(answers)
    return [column(table, name, "the answers").to_list() for name in COLUMNS]


def _rows(rows: Any) -> list[Any]:
    made = [tuple(row) if isinstance(row, Sequence | np.ndarray) and not isinstance(row, str) else () for row in rows]
    for number, row in enumerate(made):
        if len(row) != 3:
            got = f"Row {number + 1} is {shown(rows[number])}: it is none"
            raise ConfigError(f"Each row must be (task, worker, label). {got}.")
    return [[row[i].item() if isinstance(row[i], np.generic) else row[i] for row in made] for i in range(3)]


def _listed(column: Any) -> list[Any]:
    if hasattr(column, "tolist") and np.ndim(column):
        return list(column.tolist())
    if isinstance(column, str | bytes) or not isinstance(column, Iterable) or hasattr(column, "tolist"):
        raise ConfigError(f"The columns of answers must be lists or arrays. Got {shown(column)}. Give one for each.")
    return list(column)


def _even(columns: list[list[Any]]) -> list[Any]:
    lengths = [len(c) for c in columns]
    if len(set(lengths)) > 1:
        said = ", ".join(f"{name} {n}" for name, n in zip(COLUMNS, lengths, strict=True))
        raise ConfigError(f"The columns of answers must be of one length. Got {said}.")
    return columns


def _complete(columns: list[list[Any]]) -> None:
    if not columns[0]:
        raise ConfigError("Answers must have at least one row. Got none.")
    for name, column in zip(COLUMNS, columns, strict=True):
        gone = [i for i, x in enumerate(column) if x is None or (isinstance(x, float) and math.isnan(x))]
        if gone:
            raise ConfigError(
                f"Every answer must have a task, a worker and a label. Got a table: {len(gone)} of {len(column)} have "
                f"no {name}, the first is row {gone[0] + 1}. Leave these rows out."
            )


def _last(columns: list[list[Any]]) -> tuple[list[Any], int]:
    """The last answer of each (task, worker)."""
    tasks, workers = columns[:2]
    try:
        kept = {(t, w): i for i, (t, w) in enumerate(zip(tasks, workers, strict=True))}
    except TypeError as error:
        raise ConfigError(f"Tasks and workers must be hashable. Got an {error}. Use words or numbers.") from None
    gone = len(tasks) - len(kept)
    return ([[c[i] for i in kept.values()] for c in columns] if gone else columns), gone


def _coded(column: list[Any]) -> tuple[tuple[Any, ...], Array]:
    """The distinct values in order, and the place of each."""
    try:
        distinct: set[Hashable] = set(column)
    except TypeError as error:
        raise ConfigError(f"Tasks, workers and labels must be hashable. Got an {error}. Use words.") from None
    names = _sorted(distinct)
    place: Callable[[Any], int] = {name: i for i, name in enumerate(names)}.__getitem__
    return names, np.fromiter(map(place, column), np.int64, len(column))


def _sorted(values: set[Any]) -> tuple[Any, ...]:
    try:
        return tuple(sorted(values))
    except TypeError:
        return tuple(sorted(values, key=lambda v: (type(v).__name__, str(v))))
