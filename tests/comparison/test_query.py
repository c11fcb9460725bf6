"""One question, one combined answer: side by side, as a mean, by vote."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution


@dataclass(frozen=True)
class Person:
    says: Callable[[Any], Contribution]

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> tuple[Contribution, Any]:
        assert shared.kind == "query"
        return self.says(shared.value), local


def asked(people: dict[str, Person], combine: Any, question: Any = "?", **settings: Any) -> co.Run:
    return co.Collaboration(co.Query(question), people, combine=combine, evaluate=False, **settings).run(rounds=1)


def test_collect_keeps_answers_by_name() -> None:
    people = {name: Person(lambda q, n=name: Contribution("text", {"said": f"{q['about']} {n}"})) for name in "ba"}
    assert asked(people, None, {"about": "rain"}).shared == {"b": {"said": "rain b"}, "a": {"said": "rain a"}}


def test_mean_counts_by_weight() -> None:
    people = {
        str(w): Person(lambda q, w=w: Contribution("statistics", {"x": np.array([float(w)])}, float(w)))
        for w in (1, 2, 3)
    }
    assert asked(people, co.Mean()).shared["x"] == pytest.approx((1 + 4 + 9) / 6)
    assert asked(people, co.Mean(uniform=True)).shared["x"] == pytest.approx(2.0)


def test_mean_counts_coordinate_by_coordinate() -> None:
    counts = {"a": np.array([1.0, 0.0]), "b": np.array([3.0, 2.0])}
    values = {"a": np.array([4.0, 99.0]), "b": np.array([8.0, 5.0])}
    people = {n: Person(lambda q, n=n: Contribution("statistics", {"x": values[n]}, {"x": counts[n]})) for n in counts}
    assert asked(people, co.Mean()).shared["x"].tolist() == [7.0, 5.0]


def test_vote_gives_labels() -> None:
    ballots = {"a": [[1.0, 0.0], [0.0, 0.0]], "b": [[0.0, 1.0], [0.0, 0.0]], "c": [[0.0, 1.0], [0.0, 0.0]]}
    people = {n: Person(lambda q, n=n: Contribution("label", {"votes": np.array(ballots[n])})) for n in ballots}
    assert asked(people, co.Vote()).shared["label"].tolist() == [1, -1]


def test_what_is_not_finite_is_refused() -> None:
    people = {
        n: Person(lambda q, v=v: Contribution("x", {"x": v})) for n, v in {"good": 1.0, "bad": float("nan")}.items()
    }
    run = asked(people, None)
    assert run.shared == {"good": {"x": 1.0}}
    assert [(e.sender, "nan" in e.reason) for e in run.ledger.refused] == [("bad", True)]
    with pytest.raises(co.ComityError, match="bad"):
        asked(people, None, quorum=1.0, retries=0)
