"""Crowd labels in the loop: each answer counts once, whatever the rounds; who is asked what; reputations."""

from dataclasses import dataclass

import numpy as np
import pytest

import comity as co
from comity import running
from comity.core.contribution import Contribution
from comity.core.wire import decode_tree, encode_tree

HERE = co.Round("hand", 0)
RNG = np.random.default_rng(5)
TRUTH = RNG.integers(0, 3, 60)
RIGHT = {f"w{j}": 0.9 if j < 6 else 0.4 for j in range(10)}
SAID = {
    who: [int(k) if RNG.random() < p else int((k + RNG.integers(1, 3)) % 3) for k in TRUTH] for who, p in RIGHT.items()
}


def workers(names=RIGHT):
    return {who: co.Annotator(lambda task, who=who: SAID[who][task]) for who in names}


def labelling(**settings):
    return co.Labelling(list(range(60)), classes=3, **settings)


def said(who, tasks, labels=None):
    labels = [SAID[who][t] for t in tasks] if labels is None else labels
    return Contribution("label", {"task": np.array(tasks, np.int64), "label": np.array(labels, np.int64)}, sender=who)


def lowered(*rounds, vote=None):
    """The combined value after these rounds of contributions, each lifted as at the site."""
    vote = vote or co.ReputationVote()
    state, combined = vote.init(), None
    for cohort in rounds:
        combined, state = vote.lower([vote.lift(c) for c in cohort], decode_tree(encode_tree(state)), HERE)
    return combined.value


def test_the_vote_by_hand():
    """One turn of reputations and consensus, term by term, with three classes."""
    cohort = [said("a", [0, 1], [0, 1]), said("b", [0, 1], [0, 2]), said("c", [0], [2])]
    weight = np.log(2 * 2)  # prior (2, 1): ρ = 2/3, log(ρ·(3 - 1)/(1 - ρ))
    first = np.exp([2 * weight, 0, weight]), np.exp([0, weight, weight])
    q = [x / x.sum() for x in first]
    rho = {"a": (2 + q[0][0] + q[1][1]) / 5, "b": (2 + q[0][0] + q[1][2]) / 5, "c": (2 + q[0][2]) / 4}
    found = lowered(cohort, vote=co.ReputationVote(n_iter=1))
    for who, p in rho.items():
        right, wrong = found["reputation"][who]
        assert right / (right + wrong) == pytest.approx(p, abs=1e-12)
    assert found["consensus"]["label"].tolist() == [0, 1]
    np.testing.assert_allclose(found["consensus"]["certainty"], [q[0][0], q[1][1]])


def test_a_reputation_is_what_the_worker_is_worth():
    found = lowered([said(who, range(60)) for who in SAID])
    mean = {who: a / (a + b) for who, (a, b) in found["reputation"].items()}
    assert all(sum(x) == pytest.approx(63) for x in found["reputation"].values())
    for who in SAID:
        assert mean[who] == pytest.approx(np.mean(np.array(SAID[who]) == TRUTH), abs=0.06)
    votes = co.MajorityVote().fit_predict([(t, w, SAID[w][t]) for w in SAID for t in range(60)])
    ours = (found["consensus"]["label"] == TRUTH).mean()
    assert ours > np.mean([votes[t] == TRUTH[t] for t in range(60)])


def test_rounds_lateness_and_repetition_do_not_matter():
    """All at once; one by one in another order, some late, some sent twice: the same to the bit."""
    once = lowered([said(who, range(60)) for who in SAID])
    pieces = [[said(who, range(t, t + 12))] for t in range(0, 60, 12) for who in reversed(SAID)]
    pieces += [[said("w3", range(5, 40)), said("w1", [7])], pieces[0], []]
    assert encode_tree(lowered(*pieces)) == encode_tree(once)


def test_an_answer_given_again_changes_nothing():
    first = lowered([said("w0", [1, 2], [0, 0]), said("w1", [1, 2], [1, 1])])
    after = lowered([said("w0", [1, 2], [0, 0]), said("w1", [1, 2], [1, 1])], [said("w0", [2, 2, 1], [1, 1, 1])])
    assert encode_tree(after) == encode_tree(first)
    assert lowered([said("w0", [4, 4, 3], [2, 1, 0])])["answers"]["w0"]["label"].tolist() == [0, 2]


def test_votes_are_answers_too():
    votes = np.array([[0.2, 0.8], [0.0, 0.0], [1.0, 0.0]])
    lifted = co.ReputationVote().lift(Contribution("label", {"votes": votes}, sender="a"))
    assert {k: v.tolist() for k, v in lifted.value.items()} == {"task": [0, 2], "label": [1, 0]}


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        {"task": np.arange(2)},
        {"task": np.arange(2), "label": np.arange(3)},
        {"task": np.arange(2), "label": np.array([0.5, 1.0])},
        {"task": np.zeros((2, 2), int), "label": np.zeros((2, 2), int)},
        {"votes": np.array([[np.nan, 1.0]])},
        {"votes": np.zeros((2, 0))},
    ],
)
def test_what_is_no_answer_is_refused(value):
    with pytest.raises(co.ContributionError, match=r"Answers must be|Votes must be finite"):
        co.ReputationVote().lift(Contribution("label", value))


def test_what_a_stranger_sends_unlifted_harms_only_itself():
    odd = Contribution("label", {"task": np.arange(5), "label": np.array([1, 2])}, sender="odd")
    found = co.ReputationVote().lower([odd, said("w0", [0], [1])], co.ReputationVote().init(), HERE)[0].value
    assert found["answers"]["odd"]["task"].tolist() == [0, 1]


def test_labels_in_the_loop():
    method = labelling(per_round=20)
    run = co.Collaboration(method, workers(), seed=1).run(rounds=3)
    at_once = lowered([said(who, range(60)) for who in SAID])
    np.testing.assert_array_equal(run.shared["label"], at_once["consensus"]["label"])
    np.testing.assert_array_equal(run.shared["certainty"], at_once["consensus"]["certainty"])
    assert run.state["count"].tolist() == [10] * 60
    table = method.table(run.state)
    assert sorted(zip(*table.values(), strict=True)) == sorted((t, w, SAID[w][t]) for w in SAID for t in range(60))
    agree = np.mean([np.array(SAID[w]) == run.shared["label"] for w in SAID])
    assert run.metrics["agreement"] == pytest.approx(agree)
    skills = co.DawidSkene("one-coin").fit(table).skills_
    assert min(skills[w] for w in list(SAID)[:6]) > max(skills[w] for w in list(SAID)[6:])


def test_no_answer_is_asked_for_twice():
    asked = []

    def answer(task):
        asked.append(task)
        return 0

    co.Collaboration(labelling(per_round=25), {"a": co.Annotator(answer)}).run(rounds=5)
    assert sorted(asked) == list(range(60))


def test_a_task_gets_as_many_answers_as_wanted_on_average():
    counts = []
    for seed in range(3):
        run = co.Collaboration(labelling(answers=4), workers(), evaluate=False, seed=seed).run(rounds=12)
        counts.append(run.state["count"])
    assert np.min(counts) >= 4
    assert 4 <= np.mean(counts) < 5
    everybody = co.Collaboration(labelling(answers=10), workers(), evaluate=False).run(rounds=1)
    assert everybody.state["count"].tolist() == [10] * 60


def test_who_is_certain_is_not_asked_again():
    run = co.Collaboration(labelling(certain=0.9, answers=3), workers(), evaluate=False).run(rounds=15)
    sure = run.shared["certainty"] >= 0.9
    assert sure.any()
    assert run.state["count"][sure].mean() < 6


def test_the_least_certain_come_first():
    method, state = labelling(per_round=10), labelling().init(HERE)
    certainty = np.linspace(0.99, 0.5, 60)
    state = {**state, "certainty": certainty, "answers": {"a": {"task": np.arange(55, 60), "label": np.zeros(5, int)}}}
    asked = method.share(state, "a", HERE).value
    assert asked["task"].tolist() == list(range(45, 55))
    assert list(asked["content"].values()) == list(range(45, 55))
    assert asked["known"]["task"].tolist() == list(range(55, 60))


def test_a_worker_sees_no_label_before_it_has_answered():
    state = {**labelling().init(HERE), "label": np.ones(60, np.int64)}
    told = labelling().share(state, "new", HERE).value
    assert told["known"] == {"task": pytest.approx([]), "label": pytest.approx([])}
    assert set(told) == {"task", "content", "known"}


def test_contents_of_any_kind():
    pictures = np.arange(24.0).reshape(6, 2, 2)
    bright = co.Annotator(lambda x: int(x.mean() > 12))
    run = co.Collaboration(co.Labelling(pictures, classes=2), {"a": bright}).run(rounds=1)
    assert run.shared["label"].tolist() == [0, 0, 0, 1, 1, 1]
    named = co.Labelling({"x": {"text": "ha"}, "y": {"text": "no"}}, classes=2)
    run = co.Collaboration(named, {"a": co.Annotator(lambda t: int("h" in t["text"]))}).run(rounds=1)
    assert named.table(run.state) == {"task": ["x", "y"], "worker": ["a", "a"], "label": [1, 0]}


def test_skipped_tasks_stay_open():
    run = co.Collaboration(labelling(), {"a": co.Annotator(lambda t: None if t % 2 else 1)}).run(rounds=2)
    assert run.shared["label"].tolist() == [1, -1] * 30
    assert not run.ledger.refused
    assert not run.ledger.dropped


@dataclass(frozen=True)
class Sends:
    """Sends what nobody asked for."""

    value: dict

    def contribute(self, shared, local, round, secret):
        if shared.kind == "score":
            return Contribution("score", None, metrics={"agreement": (0.0, 0.0)}), local
        return Contribution("label", self.value), local


@pytest.mark.parametrize(
    ("participant", "reason"),
    [
        (Sends({"task": np.array([60]), "label": np.array([0])}), "task must lie from 0 to 59"),
        (Sends({"task": np.array([0]), "label": np.array([3])}), "label must lie from 0 to 2"),
        (Sends({"task": np.array([0, 1]), "label": np.array([2])}), "Answers must be"),
        (co.Annotator(lambda t: "cat"), "An Annotator's answer must be a whole number or None. Got 'cat'"),
        (co.Annotator(lambda t: 7), "label must lie from 0 to 2"),
    ],
)
def test_a_bad_answer_is_refused_and_the_rest_goes_on(participant, reason):
    run = co.Collaboration(labelling(), {**workers(["w0", "w1"]), "bad": participant}).run(rounds=1)
    assert list(run.state["answers"]) == ["w0", "w1"]
    [(_, who, why)] = [(e.round, e.sender, e.reason) for e in (*run.ledger.refused, *run.ledger.dropped)]
    assert who == "bad"
    assert reason in why


def test_another_combiner_is_refused_with_the_one_to_use():
    with pytest.raises(co.ConfigError, match=r"Use combine=co\.ReputationVote"):
        co.Collaboration(labelling(), workers(), combine=co.Collect()).run(rounds=1)


def test_in_pieces_as_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    fed = co.Collaboration(labelling(per_round=7, answers=5), workers(), select=co.sample(4), seed=2)
    straight = fed.run(rounds=8, folder=tmp_path / "straight")
    for rounds in (1, 2, 5, 8):
        pieces = fed.run(rounds=rounds, folder=tmp_path / "pieces")
    assert encode_tree(pieces.state) == encode_tree(straight.state)
    assert pieces.metrics == straight.metrics
    for who in SAID:
        assert encode_tree(pieces.local(who)) == encode_tree(straight.local(who))


def test_the_recipe_says_nothing_of_the_tasks():
    secret = co.Labelling({"patient 7": "the notes of patient 7"}, classes=2)
    fed = co.Collaboration(secret, {})
    assert "patient" not in str(co.recipe(fed))
    other = co.Labelling({"patient 7": "the notes of patient 8"}, classes=2)
    assert co.recipe(co.Collaboration(other, {}))["hash"] != co.recipe(fed)["hash"]
    more = co.Labelling({"patient 7": "the notes of patient 7"}, classes=2, answers=3)
    assert co.recipe(co.Collaboration(more, {}))["hash"] != co.recipe(fed)["hash"]


def test_the_laws_hold():
    co.testing.check_combiner(co.ReputationVote())
    co.testing.check_combiner(co.ReputationVote(prior=(1, 1)), [said(w, range(j, j + 20)) for j, w in enumerate(SAID)])
    co.testing.check_method(labelling(per_round=9, answers=4), workers)
    images = co.Labelling(np.arange(40.0).reshape(20, 2), classes=3, per_round=6, certain=0.9)
    co.testing.check_method(images, {f"{j}": co.Annotator(lambda x, j=j: int(x.sum() * j) % 3) for j in range(4)})


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: co.ReputationVote(prior=(1.0, 0.0)), "prior"),
        (lambda: co.ReputationVote(prior=2.0), "prior"),
        (lambda: co.ReputationVote(n_iter=0), "n_iter"),
        (lambda: co.ReputationVote(tol=-1), "tol"),
        (lambda: co.Labelling([], 2), "tasks"),
        (lambda: co.Labelling("text", 2), "tasks"),
        (lambda: co.Labelling(7, 2), "tasks"),
        (lambda: co.Labelling([1], 1), "classes"),
        (lambda: labelling(per_round=0), "per_round"),
        (lambda: labelling(answers=0), "answers"),
        (lambda: labelling(certain=1.5), "certain"),
        (lambda: co.Annotator(3), "answer"),
    ],
)
def test_settings_have_a_range(make, name):
    with pytest.raises(co.ConfigError, match=f"The '{name}' of (ReputationVote|Labelling|Annotator) must be"):
        make()
