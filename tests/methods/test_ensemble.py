"""Members of an ensemble: their columns, their calibration, their weights, and one question through the loop."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

import comity as co

RNG = np.random.default_rng(0)
X = RNG.normal(size=(240, 4))
Y = (X[:, 0] + 0.3 * RNG.normal(size=240) > 0).astype(int) + (X[:, 1] > 0.5)
ASKED = RNG.normal(size=(30, 4))
NAMES = np.array(["ant", "bee", "cat"])
HERE = co.Round("test", 0, me="a")


def unlike() -> dict[str, Any]:
    return {
        "lr": LogisticRegression().fit(X[:80], Y[:80]),
        "rf": RandomForestClassifier(20, random_state=0).fit(X[80:160], Y[80:160]),
        "svc": LinearSVC().fit(X[:160], Y[:160]),
    }


def members(**settings: Any) -> dict[str, co.Predictor]:
    counts = np.bincount(Y[:80], minlength=3)
    held = X[160:], Y[160:]
    return {n: co.Predictor(e, calibrate=held, counts=counts, test=held, **settings) for n, e in unlike().items()}


def answer(member: co.Predictor, question: Any = ASKED) -> Any:
    return member.contribute(co.Contribution("query", question), {}, HERE, co.testing.fixed_secret().side("a"))[0]


def asked(people: Any, combine: Any, **settings: Any) -> co.Run:
    return co.Collaboration(co.Query(ASKED), people, combine=combine, quorum=1.0, retries=0, **settings).run(rounds=1)


@pytest.mark.parametrize("combiner", [co.Average(), co.LogPool(), co.ProductPool(), co.Vote()], ids=repr)
def test_one_question_gives_probabilities_and_labels(combiner):
    people = members()
    run = asked(people, combiner)
    p = run.shared["proba"]
    assert (p.shape, run.shared["label"].shape) == ((30, 3), (30,))
    np.testing.assert_allclose(p.sum(1), 1)
    assert run.shared["label"].tolist() == p.argmax(1).tolist()
    truth = (ASKED[:, 0] > 0).astype(int) + (ASKED[:, 1] > 0.5)
    assert (run.shared["label"] == truth).mean() > 0.7
    own = [float((m.predict(X[160:]).argmax(1) == Y[160:]).mean()) for m in people.values()]
    assert run.metrics["own_accuracy"] == pytest.approx(np.mean(own))


def test_the_laws_of_methods_hold():
    co.testing.check_method(co.Query(ASKED, combiner=co.Average()), members(), rounds=1)
    co.testing.check_method(co.Query(ASKED, combiner=co.ProductPool()), members, rounds=1)


def test_the_average_is_that_of_the_members_own_predictions():
    people = members()
    want = np.mean([m.predict(ASKED) for m in people.values()], axis=0)
    np.testing.assert_allclose(asked(people, co.Average()).shared["proba"], want, atol=1e-6)


def test_nothing_but_the_answer_leaves():
    c = answer(members()["lr"])
    assert (c.kind, c.weight, sorted(c.value)) == ("prediction", 1.0, ["counts", "proba", "seen"])
    assert {x.dtype.name for x in c.value.values()} == {"float32"}
    assert "counts" not in answer(members()["lr"], {"x": ASKED, "counts": False}).value


def test_columns_follow_the_declared_classes_and_an_unseen_class_has_none():
    two = Y < 2
    blind = LogisticRegression().fit(X[two], NAMES[Y[two]])
    c = answer(co.Predictor(blind, classes=("cat", "bee", "ant")))
    assert c.value["seen"].tolist() == [0, 1, 1]
    np.testing.assert_allclose(c.value["proba"][:, [2, 1]], blind.predict_proba(ASKED), atol=1e-6)
    assert not c.value["proba"][:, 0].any()


@pytest.mark.parametrize("labels", [NAMES, np.array([0, 2, 5])])
def test_classes_that_could_be_misread_must_be_declared(labels):
    member = co.Predictor(GaussianNB().fit(X, labels[Y]))
    with pytest.raises(co.ConfigError, match="or declared"):
        answer(member)
    with pytest.raises(co.ConfigError, match="must name all labels"):
        answer(co.Predictor(GaussianNB().fit(X, labels[Y]), classes=labels[:2]))


@pytest.mark.parametrize("estimator", [LogisticRegression(), LinearSVC(), KNeighborsClassifier(3)])
def test_probabilities_come_from_whatever_the_estimator_has(estimator):
    fitted = estimator.fit(X, Y)
    p = co.Predictor(fitted).predict(ASKED)
    np.testing.assert_allclose(p.sum(1), 1)
    assert p.argmax(1).tolist() == fitted.predict(ASKED).tolist()


@dataclass(frozen=True)
class Hard:
    """Says only labels."""

    def predict(self, x: Any) -> Any:
        return NAMES[(x[:, 0] > 0).astype(int)]


def test_a_member_that_says_only_labels_is_certain():
    p = co.Predictor(Hard(), classes=tuple(NAMES)).predict(ASKED)
    assert np.array_equal(p, np.eye(3)[(ASKED[:, 0] > 0).astype(int)])


def test_a_regressor_answers_with_numbers():
    people = {str(i): co.Predictor(LinearRegression().fit(X[i::2], X[i::2, 0] * 3)) for i in range(2)}
    got = asked(people, co.Mean(), evaluate=False).shared["value"]
    np.testing.assert_allclose(got, ASKED[:, 0] * 3, atol=1e-5)


def test_a_model_of_comity_answers_with_its_own_parameters():
    model = co.Linear(4, 3, rate=0.5, epochs=20)
    params, _ = model.fit(model.init(HERE), (X, Y), HERE)
    np.testing.assert_allclose(answer(co.Predictor((model, params))).value["proba"], model.predict(params, ASKED))
    whole = co.EstimatorModel(GaussianNB(), classes=("cat", "ant", "bee"))
    packed, _ = whole.fit(whole.init(HERE), (X, NAMES[Y]), HERE)
    turned = co.Predictor((whole, packed), classes=("ant", "bee", "cat")).predict(ASKED)
    np.testing.assert_allclose(turned, whole.predict(packed, ASKED)[:, [1, 2, 0]])


def test_calibration_lowers_the_loss_of_a_member_that_is_too_sure():
    forest = KNeighborsClassifier(1).fit(X[:100], Y[:100])
    raw, tuned = co.Predictor(forest), co.Predictor(forest, calibrate=(X[100:180], Y[100:180]))

    def loss(member: co.Predictor) -> float:
        return float(-np.log(np.maximum(member.predict(X[180:])[np.arange(60), Y[180:]], 1e-4)).mean())

    assert raw.temperature == 1.0
    assert tuned.temperature > 2
    assert loss(tuned) < loss(raw) - 0.2
    assert tuned.predict(X[180:]).argmax(1).tolist() == raw.predict(X[180:]).argmax(1).tolist()


def test_the_temperature_is_that_of_the_classes_which_were_seen():
    two, held = Y < 2, Y[160:] < 2
    wide = LogisticRegression().fit(X[two], Y[two])
    both = {n: co.Predictor(wide, classes=n, calibrate=(X[160:][held], Y[160:][held])) for n in ((0, 1), (0, 1, 2))}
    assert both[0, 1].temperature == both[0, 1, 2].temperature != 1.0
    np.testing.assert_allclose(both[0, 1].predict(ASKED), both[0, 1, 2].predict(ASKED)[:, :2])


def test_rows_of_a_class_that_was_never_seen_do_not_heat_the_calibration():
    two = Y < 2
    member = LogisticRegression().fit(X[two], Y[two])
    held = X[160:], Y[160:]
    known = held[0][held[1] < 2], held[1][held[1] < 2]
    assert co.Predictor(member, classes=(0, 1, 2), calibrate=held).temperature == pytest.approx(
        co.Predictor(member, classes=(0, 1, 2), calibrate=known).temperature
    )


def test_weights_by_accuracy_and_by_certainty():
    held = X[160:], Y[160:]
    lr = unlike()["lr"]
    right = answer(co.Predictor(lr, calibrate=held, weight="accuracy")).weight
    assert right == pytest.approx((lr.predict(held[0]) == held[1]).mean())
    c = answer(co.Predictor(lr, weight="certainty"))
    p = np.asarray(c.value["proba"], float)
    entropy = -(p * np.log(p)).sum(1)
    np.testing.assert_allclose(c.weight["proba"][:, 0], 1 - entropy / np.log(3), atol=1e-5)
    people = {n: co.Predictor(e, weight="certainty") for n, e in unlike().items()}
    sure = np.stack([answer(m).weight["proba"] for m in people.values()])
    want = (sure * np.stack([m.predict(ASKED) for m in people.values()])).sum(0) / sure.sum(0)
    np.testing.assert_allclose(asked(people, co.Average(), evaluate=False).shared["proba"], want, atol=1e-5)


def test_what_a_member_cannot_answer_is_told_by_its_name():
    people = members()
    with pytest.raises(co.TooFewParticipants, match="must be an array of inputs"):
        co.Collaboration(co.Query("?"), people, combine=co.Average(), quorum=1.0, retries=0).run(rounds=1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"estimator": GaussianNB}, "estimator"),
        ({"estimator": (3, None)}, "estimator"),
        ({"weight": -1.0}, "weight"),
        ({"weight": "acuracy"}, "accuracy"),
        ({"weight": "accuracy"}, "calibrate"),
        ({"counts": [1, -1]}, "counts"),
        ({"counts": [1, 2], "classes": (0, 1, 2)}, "counts"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(co.ConfigError, match=said):
        co.Predictor(**{"estimator": Hard(), **settings})


def test_labels_among_the_rows_that_are_no_class_are_refused():
    member = co.Predictor(unlike()["lr"], calibrate=(X[:3], np.array([0, 1, 7])))
    with pytest.raises(co.ConfigError, match="among its classes"):
        answer(member)
