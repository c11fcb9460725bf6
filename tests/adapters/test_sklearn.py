import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDClassifier, SGDRegressor
from sklearn.naive_bayes import MultinomialNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from comity.adapters import saved
from comity.adapters.sklearn import EstimatorModel, SklearnModel
from comity.core.errors import ConfigError
from comity.core.parts import Private, Step
from comity.core.round import Round
from comity.core.tree import ravel
from comity.testing import fixed_secret

HERE = Round("test", seed=3, me="a")
IRIS = load_iris(return_X_y=True)
SCALED = ((IRIS[0] - IRIS[0].mean(0)) / IRIS[0].std(0), IRIS[1])


class Guess(ClassifierMixin, BaseEstimator):
    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, x):
        return np.full(len(x), self.classes_[0])


@pytest.mark.parametrize(
    "estimator",
    [
        HistGradientBoostingClassifier(max_iter=20),
        RandomForestClassifier(n_estimators=20),
        GradientBoostingClassifier(n_estimators=5),
        LogisticRegression(max_iter=500),
        RidgeClassifier(),
        make_pipeline(
            StandardScaler(), PolynomialFeatures(2), RandomForestClassifier(n_estimators=10, max_leaf_nodes=9)
        ),
        StackingClassifier([("t", DecisionTreeClassifier())], RandomForestClassifier(n_estimators=5)),
    ],
    ids=lambda e: type(e).__name__,
)
def test_any_classifier_travels_and_predicts_the_same_after_its_bytes(estimator):
    model = EstimatorModel(estimator, classes=(0, 1, 2))
    params, metrics = model.fit(model.init(HERE), IRIS, HERE)
    saved._loaded.clear()
    p = model.predict(params, IRIS[0])
    assert p.shape == (150, 3)
    np.testing.assert_allclose(p.sum(1), 1.0, rtol=1e-6)
    assert (p.argmax(1) == IRIS[1]).mean() > 0.8
    assert metrics["examples"] == (150.0, 1.0)
    assert metrics["train_loss"][1] == 150.0
    assert model.fit(params, IRIS, HERE)[0] == params
    assert not hasattr(estimator, "n_features_in_")


@pytest.mark.parametrize("estimator", [HistGradientBoostingRegressor(), RandomForestRegressor(10), LinearRegression()])
def test_any_regressor(estimator):
    x, y = load_diabetes(return_X_y=True)
    model = EstimatorModel(estimator)
    params, metrics = model.fit({}, (x, y), HERE)
    p = model.predict(params, x)
    assert p.shape == y.shape
    assert ((p - y) ** 2).mean() < 0.6 * y.var()
    np.testing.assert_allclose(metrics["train_loss"][0], ((p - y) ** 2).sum())


@pytest.mark.parametrize("seen", [(0, 2), (1,)])
def test_a_class_that_was_never_seen_has_probability_zero(seen):
    rows = np.isin(IRIS[1], seen)
    model = EstimatorModel(LogisticRegression(max_iter=500), classes=(0, 1, 2))
    params, _ = model.fit({}, (IRIS[0][rows], IRIS[1][rows]), HERE)
    p = model.predict(params, IRIS[0])
    assert (p[:, [c for c in range(3) if c not in seen]] == 0).all()
    assert (p[:, list(seen)].sum(1) > 0.999).all()
    assert (p[rows].argmax(1) == IRIS[1][rows]).mean() > 0.95


def test_labels_may_be_strings_and_follow_the_order_of_classes():
    names = np.array(["setosa", "versicolor", "virginica"])[IRIS[1]]
    model = EstimatorModel(LogisticRegression(max_iter=500), classes=("virginica", "setosa", "versicolor"))
    params, _ = model.fit({}, (IRIS[0], names), HERE)
    assert (np.array(model.classes)[model.predict(params, IRIS[0]).argmax(1)] == names).mean() > 0.95
    with pytest.raises(ConfigError, match="rosa"):
        model.fit({}, (IRIS[0], np.where(names == "setosa", "rosa", names)), HERE)


def test_types_of_others_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"Guess"):
        EstimatorModel(Guess(), classes=(0, 1, 2)).fit({}, IRIS, HERE)
    forged = skops.io.dumps(FunctionTransformer(func=eval).fit(IRIS[0]))
    with pytest.raises(ConfigError, match=r"eval"):
        EstimatorModel(LogisticRegression()).predict({"estimator": forged}, IRIS[0])


@pytest.mark.parametrize("data", [b"", b"no zip", skops.io.dumps(LogisticRegression())[:-30]])
def test_bytes_that_hold_no_estimator_are_refused(data):
    with pytest.raises(ConfigError, match="must be"):
        EstimatorModel(LogisticRegression()).predict({"estimator": data}, IRIS[0])


def _forged(estimator, change):
    tree = estimator.tree_ if hasattr(estimator, "tree_") else estimator.estimators_[0].tree_
    state = tree.__getstate__()
    nodes = state["nodes"].copy()
    change(nodes)
    tree.__setstate__({**state, "nodes": nodes})
    return {"estimator": skops.io.dumps(estimator)}


@pytest.mark.parametrize(
    ("name", "value"), [("left_child", 10**9), ("right_child", 0), ("left_child", -7), ("feature", 4), ("feature", -5)]
)
@pytest.mark.parametrize(
    "estimator", [DecisionTreeClassifier(), RandomForestClassifier(3)], ids=lambda e: type(e).__name__
)
def test_a_forged_tree_is_refused_before_it_is_followed(estimator, name, value):
    params = _forged(estimator.fit(*IRIS), lambda nodes: nodes[name].__setitem__(0, value))
    with pytest.raises(ConfigError, match="damaged or forged"):
        EstimatorModel(estimator, classes=(0, 1, 2)).predict(params, IRIS[0])


def test_a_forest_whose_trees_claim_more_columns_is_refused():
    forest = RandomForestClassifier(3).fit(np.tile(IRIS[0], 3), IRIS[1])
    forest.n_features_in_ = 4
    with pytest.raises(ConfigError, match="damaged or forged"):
        EstimatorModel(forest, classes=(0, 1, 2)).predict({"estimator": skops.io.dumps(forest)}, IRIS[0])


@pytest.mark.parametrize(("name", "value"), [("left", 10**6), ("right", 0), ("feature_idx", 4), ("is_categorical", 1)])
def test_a_forged_histogram_tree_is_refused(name, value):
    hgb = HistGradientBoostingClassifier(max_iter=2).fit(*IRIS)
    hgb._predictors[0][0].nodes[name][0] = value
    with pytest.raises(ConfigError, match=r"forged|categorical"):
        EstimatorModel(hgb, classes=(0, 1, 2)).predict({"estimator": skops.io.dumps(hgb)}, IRIS[0])


def test_estimators_are_loaded_once():
    model = EstimatorModel(LogisticRegression(max_iter=500), classes=(0, 1, 2))
    params, _ = model.fit({}, IRIS, HERE)
    assert saved.load(params["estimator"]) is saved.load(bytes(bytearray(params["estimator"])))
    for i in range(40):
        saved.load(skops.io.dumps(LogisticRegression(C=i + 1.0)))
    assert len(saved._loaded) == 32


STEPPED = [
    (SGDClassifier(loss="log_loss", alpha=1e-3), (0, 1, 2)),
    (SGDClassifier(loss="hinge"), (0, 1, 2)),
    (MLPClassifier((16,), learning_rate_init=0.01), (0, 1, 2)),
    (SGDRegressor(), None),
    (MLPRegressor(hidden_layer_sizes=(16,), learning_rate_init=0.01), None),
]


@pytest.mark.parametrize(("estimator", "classes"), STEPPED)
def test_estimators_that_learn_by_steps(estimator, classes):
    model = SklearnModel(estimator, classes=classes, inputs=4, epochs=100)
    start = model.init(HERE)
    before = {k: v.copy() for k, v in start.items()}
    params, metrics = model.fit(start, SCALED, HERE)
    assert all((before[k] == v).all() for k, v in start.items())
    assert np.shares_memory(ravel(params), params[min(params)])
    p = model.predict(params, SCALED[0])
    if classes:
        np.testing.assert_allclose(p.sum(1), 1.0)
        assert (p.argmax(1) == SCALED[1]).mean() > 0.9
    else:
        assert ((p - SCALED[1]) ** 2).mean() < 0.15
    assert metrics["examples"] == (150.0, 1.0)
    again, _ = model.fit(start, SCALED, HERE)
    np.testing.assert_array_equal(ravel(again), ravel(params))
    assert not hasattr(estimator, "coef_")


def test_one_pass_equals_partial_fit_by_hand():
    model = SklearnModel(SGDClassifier(loss="log_loss"), classes=(0, 1), inputs=4)
    x, y = SCALED[0], (SCALED[1] > 0).astype(int)
    params, _ = model.fit(model.init(HERE), (x, y), HERE)
    order = HERE.order(150, "shuffle", "0")
    plain = SGDClassifier(loss="log_loss", shuffle=False).partial_fit(x[order], y[order], classes=[0, 1])
    np.testing.assert_allclose(params["coef_"], plain.coef_)
    np.testing.assert_allclose(model.predict(params, x), plain.predict_proba(x))


def test_a_party_with_one_class_still_fits_the_shape_of_all():
    model = SklearnModel(SGDClassifier(loss="log_loss"), classes=(0, 1, 2), inputs=4)
    rows = SCALED[1] == 1
    params, _ = model.fit(model.init(HERE), (SCALED[0][rows], SCALED[1][rows]), HERE)
    assert params["coef_"].shape == (3, 4)


def test_refusals_say_what_to_use():
    with pytest.raises(ConfigError, match="Use EstimatorModel"):
        SklearnModel(LogisticRegression(), classes=(0, 1), inputs=4)
    with pytest.raises(ConfigError, match="Use EstimatorModel"):
        SklearnModel(MultinomialNB(), classes=(0, 1), inputs=4).init(HERE)
    model = SklearnModel(SGDClassifier(), classes=(0, 1, 2), inputs=4)
    params = model.init(HERE)
    with pytest.raises(ConfigError, match=r"Step\(private"):
        model.fit(params, IRIS, HERE, Step(private=Private(1.0, 1.0, fixed_secret().stream("test"))))
    with pytest.raises(ConfigError, match="must be named"):
        model.fit({"coef_": params["coef_"]}, IRIS, HERE)
    with pytest.raises(ConfigError, match="shape"):
        model.fit({**params, "coef_": np.zeros((3, 5))}, IRIS, HERE)
    with pytest.raises(ConfigError, match="tap"):
        model.features(params, IRIS[0], ["hidden0"])


def test_fingerprint_tells_settings_apart():
    a = EstimatorModel(LogisticRegression(C=1.0), classes=(0, 1)).fingerprint()
    b = EstimatorModel(LogisticRegression(C=2.0), classes=(0, 1)).fingerprint()
    assert a["class"] == "sklearn.linear_model._logistic.LogisticRegression"
    assert {k for k in a if a[k] != b[k]} == {"params"}
    assert SklearnModel(SGDRegressor(), classes=None, inputs=2).fingerprint()["inputs"] == 2


def test_breast_cancer_histogram_trees_with_one_hundred_iterations():
    x, y = load_breast_cancer(return_X_y=True)
    model = EstimatorModel(HistGradientBoostingClassifier(max_iter=100), classes=(0, 1))
    params, _ = model.fit({}, (x[::2], y[::2]), HERE)
    assert (model.predict(params, x[1::2]).argmax(1) == y[1::2]).mean() > 0.94
