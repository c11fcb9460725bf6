"""Labelling: workers label open tasks round by round, those that are least certain first.

participant  answers the tasks that it is asked, or skips them: {"task": (n,), "label": (n,)} int64, kind "label"
hub          keeps who answered what, works out labels, certainty and reputations (ReputationVote), asks on
never leaves what a worker did not answer; its own copy of its answers is in its drawer
bytes        down: the contents of at most `per_round` tasks; up: 16 bytes an answer
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from comity.combine.truth import ReputationVote
from comity.core.checks import is_number, number, part, refusal, shown, whole
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ComityError, ConfigError
from comity.core.parts import Combiner, Secret
from comity.core.round import Round
from comity.core.spec import Leaf, Spec
from comity.core.wire import encode_tree, size


@dataclass(frozen=True)
class Labelling:
    """Which tasks are open, who is asked which, and the labels so far.

    A task is open while it has fewer than `answers` answers and its label is less certain than `certain`. In each
    round every worker is asked open tasks that it has not answered, the least certain first and in a random
    order among equals. Where a task needs fewer answers than there are workers asked, each worker is asked it
    with that probability only: a task gets `answers` answers on average, some more. Labels are not shown to a
    worker before it has answered: it is only told what became of the tasks that it did answer.

    `run.shared` is `{"label": (tasks,) int64, "certainty": (tasks,) float64}`; a task without an answer has label -1
    and certainty 0. `table(run.state)` is the table of answers for `co.DawidSkene` and the like.

    Attributes:
        tasks: id to what a worker is shown, a Tree (text, an array, ...); or a list or an array of contents, whose
            ids are 0, 1, ... At least one.
        classes: how many labels there are, >= 2; they are 0, 1, ...
        per_round: the most tasks that one worker is asked in a round, >= 1.
        answers: after so many answers a task is closed, >= 1; None asks everybody.
        certain: a task whose label is so certain is closed, in (0, 1]; 1 closes none.
        combiner: must give what `ReputationVote` gives.

    Raises:
        ConfigError: a setting is out of its range.

    Example:
        >>> import comity as co
        >>> words = {"t1": "cat", "t2": "dog", "t3": "cow"}
        >>> workers = {name: co.Annotator(lambda word: int("o" in word)) for name in ("ann", "bob", "eve")}
        >>> run = co.Collaboration(co.Labelling(words, classes=2), workers).run(rounds=2)
        >>> run.shared["label"], run.metrics["agreement"]
        (array([0, 1, 1]), 1.0)
    """

    tasks: Any = field(metadata={"data": True}, repr=False)
    classes: int
    per_round: int = 100
    answers: int | None = None
    certain: float = 1.0
    combiner: Combiner = field(default_factory=ReputationVote)

    def __post_init__(self) -> None:
        rows = isinstance(self.tasks, Sequence) or (isinstance(self.tasks, np.ndarray) and self.tasks.ndim > 0)
        if not (rows or isinstance(self.tasks, Mapping)) or isinstance(self.tasks, str | bytes) or not len(self.tasks):
            raise refusal("tasks", "Labelling", "at least one, in {id: content}, a list or an array", self.tasks)
        whole("classes", "Labelling", self.classes, 2)
        whole("per_round", "Labelling", self.per_round, 1)
        if self.answers is not None:
            whole("answers", "Labelling", self.answers, 1, hint="None asks everybody.")
        number("certain", "Labelling", self.certain, "(0, 1]")
        part("combiner", "Labelling", self.combiner, ("needs", "init()", "lift()", "lower()"), "co.ReputationVote()")
        self._travels()

    def fingerprint(self) -> dict[str, Any]:
        """What the recipe says: the settings, and of the tasks how many and their sha256, never what they are."""
        tasks = self._contents(np.arange(len(self.tasks)))
        digest = hashlib.sha256(encode_tree(tasks)).hexdigest()
        own = {"classes": self.classes, "per_round": self.per_round, "answers": self.answers, "certain": self.certain}
        return {"tasks": [len(self.tasks), digest], **own, "combiner": self.combiner}

    def _travels(self) -> None:
        """Refuse contents that no message can carry."""
        contents = list(self.tasks.values()) if isinstance(self.tasks, Mapping) else self.tasks
        for i, content in enumerate([contents] if isinstance(contents, np.ndarray) else contents):
            try:
                size(Contribution("label", content))
            except (ComityError, TypeError, ValueError) as error:
                must = "a Tree: text, numbers, arrays"
                raise ConfigError(f"Each of the 'tasks' of Labelling must be {must}. Number {i}: {error}") from error

    def init(self, round: Round) -> Any:
        """No answers."""
        n = len(self.tasks)
        return {
            "answers": {},
            "reputation": {},
            "label": np.full(n, -1, np.int64),
            "certainty": np.zeros(n),
            "count": np.zeros(n, np.int64),
        }

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """To a worker: tasks to answer, and the labels of those it answered. To all: labels and certainty."""
        if not to:
            return Contribution("label", {"label": state["label"], "certainty": state["certainty"]})
        seen = state["answers"][to]["task"] if to in state["answers"] else np.zeros(0, np.int64)
        asked = self._chosen(state, seen, round.to(to))
        known = {"task": seen, "label": state["label"][seen]}
        return Contribution("label", {"task": asked, "content": self._contents(asked), "known": known})

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """Numbers of tasks and labels that exist. Also tasks of earlier rounds: late answers count."""
        task, label = (Leaf((None,), "int64", 0, n - 1) for n in (len(self.tasks), self.classes))
        return Spec({"task": task, "label": label}, kind="label", metrics=frozenset({"answered"}))

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Keep the labels, the answers and the reputations."""
        value: Any = combined.value
        if not isinstance(value, Mapping) or not {"consensus", "answers"} <= value.keys():
            raise ConfigError(
                "Labelling needs a combiner that gives the consensus and the answers. Got another combined value. "
                "Use combine=co.ReputationVote()."
            )
        found, n = value["consensus"], len(self.tasks)
        label, certainty = np.full(n, -1, np.int64), np.zeros(n)
        label[found["task"]], certainty[found["task"]] = found["label"], found["certainty"]
        given = [np.zeros(0, np.int64), *(x["task"] for x in value["answers"].values())]
        count = np.bincount(np.concatenate(given), minlength=n)
        kept = {"answers": value["answers"], "reputation": value.get("reputation", {})}
        return {**kept, "label": label, "certainty": certainty, "count": count}

    def table(self, state: Any) -> dict[str, list[Any]]:
        """The answers as columns task (its id), worker and label.

        Args:
            state: the method's state, `run.state`.
        """
        ids = list(self.tasks) if isinstance(self.tasks, Mapping) else range(len(self.tasks))
        rows = [
            (ids[i], who, k)
            for who, x in state["answers"].items()
            for i, k in zip(x["task"].tolist(), x["label"].tolist(), strict=True)
        ]
        return {name: [row[i] for row in rows] for i, name in enumerate(("task", "worker", "label"))}

    def _chosen(self, state: Any, seen: Array, round: Round) -> Array:
        """The open tasks that a worker is asked, in their order."""
        open_ = state["certainty"] < self.certain if self.certain < 1 else np.ones(len(self.tasks), bool)
        draw = round.mine("labelling").random(len(self.tasks))
        if self.answers is not None:
            open_ &= draw * max(round.asked, 1) < self.answers - state["count"]
        open_[seen] = False
        order = np.lexsort((draw, state["certainty"]))
        return np.sort(order[open_[order]][: self.per_round])

    def _contents(self, at: Array) -> Any:
        """What is shown: an array of rows where the tasks are one, else a Tree of one content for each task."""
        if isinstance(self.tasks, np.ndarray):
            return self.tasks[at]
        contents = list(self.tasks.values()) if isinstance(self.tasks, Mapping) else self.tasks
        return {str(i): contents[i] for i in at.tolist()}


@dataclass(frozen=True)
class Annotator:
    """A worker who labels what it is shown. It answers each task once: asked again, it says the same.

    Its score is `agreement`: the share of its answers that are the task's label now. Its drawer keeps its answers,
    `run.local(name)`: `{"task": (n,), "label": (n,)}`.

    Attributes:
        answer: content to label, a whole number; None skips the task.

    Raises:
        ConfigError: `answer` cannot be called.

    Example:
        >>> import comity as co
        >>> co.Annotator(lambda text: None if not text else int("!" in text)).answer("Hello!")
        1
    """

    answer: Callable[[Any], int | None]

    def __post_init__(self) -> None:
        if not callable(self.answer):
            raise refusal("answer", "Annotator", "a function of a task's content", self.answer)

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Labels of what was asked; or how often it agrees, when asked for scores."""
        told: Any = shared.value
        mine: Any = local
        before = dict(zip(mine["task"].tolist(), mine["label"].tolist(), strict=True)) if "task" in mine else {}
        if shared.kind == "score":
            known = dict(zip(told["known"]["task"].tolist(), told["known"]["label"].tolist(), strict=True))
            both = [before[i] == k for i, k in known.items() if i in before]
            return Contribution("score", None, metrics={"agreement": (float(sum(both)), float(len(both)))}), local
        asked, given = told["task"].tolist(), {}
        for n, i in enumerate(asked):
            content = told["content"][str(i)] if isinstance(told["content"], Mapping) else told["content"][n]
            label = before[i] if i in before else self._label(content)
            if label is not None:
                given[i] = label
        metrics = {"answered": (float(len(given)), float(len(asked)))}
        return Contribution("label", _columns(given), metrics=metrics), _columns({**before, **given})

    def _label(self, content: Any) -> int | None:
        label = self.answer(content)
        if label is None:
            return None
        if not is_number(label, whole=True):
            raise ConfigError(f"An Annotator's answer must be a whole number or None. Got {shown(label)}.")
        return int(label)


def _columns(labels: Mapping[int, int]) -> dict[str, Array]:
    return {"task": np.array(list(labels), np.int64), "label": np.array(list(labels.values()), np.int64)}
