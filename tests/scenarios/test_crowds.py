"""Workers of unlike skill, and a jury whose votes are hidden: labels for questions that nobody else may answer."""

import numpy as np
import pytest
import scenario_collaborations as chaos
import scenario_protecting as toys
import scenario_shards as s

import comity as co

CHANCE = np.random.default_rng(1)
TASKS, PER_ROUND = 400, 40
TRUTH = CHANCE.integers(0, 2, TASKS)
SKILLS = {f"w{i}": skill for i, skill in enumerate([0.95] * 3 + [0.52] * 6)}
SAID = {who: np.where(CHANCE.random(TASKS) < skill, TRUTH, 1 - TRUTH) for who, skill in SKILLS.items()}


@pytest.fixture(scope="module")
def labelled():
    """Round by round, each task once."""
    method = co.Labelling(np.arange(TASKS), classes=2, per_round=PER_ROUND)
    workers = {who: co.Annotator(lambda task, said=said: int(said[task])) for who, said in SAID.items()}
    return method, co.Collaboration(method, workers, evaluate=False).run(TASKS // PER_ROUND)


def right(labels):
    return float((np.asarray(labels) == TRUTH).mean())


class Worker:
    """Says what it said."""

    classes_ = np.array([0, 1])

    def __init__(self, said):
        self.said = said

    def predict(self, x):
        return self.said[x[:, 0]]


def test_reputations_beat_the_majority(labelled):
    method, run = labelled
    jury = {who: co.Predictor(Worker(said)) for who, said in SAID.items()}
    asked = co.Query(np.arange(TASKS)[:, None], combiner=co.Vote())
    voted = right(co.Collaboration(asked, jury, evaluate=False).run(1).shared["label"])
    assert voted == right(aggregated(co.MajorityVote(), method.table(run.state)))
    assert 0.7 < voted < right(run.shared["label"]) - 0.05
    assert right(run.shared["label"]) > 0.97
    assert right(aggregated(co.DawidSkene(), method.table(run.state))) > 0.97


def aggregated(crowd, table):
    found = crowd.fit_predict(table)
    return [found[task] for task in range(TASKS)]


def test_reputations_are_near_the_skills(labelled):
    """Beta(right, wrong) of 400 answers: each within 4 standard errors, false alarm below 1e-3."""
    _, run = labelled
    found = {who: a / (a + b) for who, (a, b) in run.state["reputation"].items()}
    for who, skill in SKILLS.items():
        assert abs(found[who] - skill) < 4 * np.sqrt(skill * (1 - skill) / TASKS) + 0.01


def test_a_noisy_vote_of_hidden_votes_is_worth_more_than_one_teacher(tmp_path):
    """Teachers keep their models and their votes; the hub sees a noisy sum of votes, and pays once."""
    teachers, own = {}, []
    for name, data in s.DATA.items():
        params = s.fed(sites=s.trainers(data={name: data})).run(s.ROUNDS).shared
        teachers[name] = co.Predictor((s.MODEL, params))
        own.append(s.accuracy(params))
    x, y = s.TEST[0][:1000], s.TEST[1][:1000]
    plain = co.Collaboration(co.Query(x, combiner=co.Vote()), teachers, evaluate=False)
    noisy = {"channel": toys.Masked(), "transforms": [toys.Noise(float(np.sqrt(2 * len(x))), 0.02), toys.FixedPoint()]}
    runs = {"plain": plain, "noisy": plain.replace(**noisy)}
    labels = {name: f.run(1, folder=chaos.fresh(tmp_path / name)).shared["label"] for name, f in runs.items()}
    assert (labels["plain"] == y).mean() > np.mean(own) + 0.04
    assert (labels["noisy"] == y).mean() > np.mean(own) + 0.03
    assert (labels["noisy"] != labels["plain"]).any()
