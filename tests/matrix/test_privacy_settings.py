"""The settings of what makes a release private."""

import numpy as np
import pytest
from matrix_law import NO_FLAG, NO_WHOLE, NONE_NUMBERS, NUMBERS, WHOLE, hold, rows

import comity as co

INF = float("inf")
POSITIVE = {"bad": (*NONE_NUMBERS, 0, -1, INF, -INF), "good": (*NUMBERS, 1e-6, 1e6)}
NOISE = {"bad": (*NONE_NUMBERS, -1, -0.1, INF), "good": (0, 0.0, *NUMBERS, 100)}
SHARE = {"bad": (*NONE_NUMBERS, -0.1, 1, 1.0, 2, INF), "good": (0, 0.0, 0.5, np.float32(0.25))}
COUNT = {"bad": (*NO_WHOLE, 0, -1), "good": (*WHOLE, 10**9)}
OPTIONAL = tuple(v for v in NONE_NUMBERS if v is not None)


def adaptive(**settings):
    return co.Gaussian(0.5, 1.0, quantile=0.5, **settings)


ROWS = (
    *rows("Gaussian", "clip", lambda v: co.Gaussian(v, 1.0), **POSITIVE),
    *rows("Gaussian", "noise", lambda v: co.Gaussian(1.0, v), **NOISE),
    *rows(
        "Gaussian",
        "quantile",
        lambda v: co.Gaussian(1.0, 1.0, quantile=v),
        bad=(*OPTIONAL, -0.1, 1.1, INF),
        good=(None, 0, 0.5, 1, np.float32(0.9)),
    ),
    *rows("Gaussian", "rate", lambda v: adaptive(rate=v), **POSITIVE),
    *rows(
        "Gaussian",
        "bits",
        lambda v: adaptive(bits=v),
        bad=(*OPTIONAL, -1, 0, 0.5, INF),
        good=(None, 0.51, 1, 10, np.int64(3)),
    ),
    *rows(
        "Gaussian",
        "most",
        lambda v: adaptive(most=v),
        bad=(*OPTIONAL, 0, -1, 0.4, INF),
        good=(None, 0.5, 1, 10, np.float64(3)),
    ),
    *rows("DiscreteGaussian", "clip", lambda v: co.DiscreteGaussian(v, 1.0), **POSITIVE),
    *rows("DiscreteGaussian", "noise", lambda v: co.DiscreteGaussian(1.0, v), **NOISE),
    *rows("DiscreteGaussian", "drops", lambda v: co.DiscreteGaussian(1.0, 1.0, drops=v), **SHARE),
    *rows("DiscreteGaussian", "corrupt", lambda v: co.DiscreteGaussian(1.0, 1.0, corrupt=v), **SHARE),
    *rows(
        "DiscreteGaussian",
        "corrupt",
        lambda v: co.DiscreteGaussian(1.0, 1.0, corrupt=v, drops=0.5),
        bad={"with drops": 0.5},
    ),
    *rows(
        "DiscreteGaussian",
        "rotate",
        lambda v: co.DiscreteGaussian(1.0, 1.0, rotate=v),
        bad=NO_FLAG,
        good=(True, False, np.True_),
    ),
    *rows("TreeGaussian", "clip", lambda v: co.TreeGaussian(v, 1.0), **POSITIVE),
    *rows("TreeGaussian", "noise", lambda v: co.TreeGaussian(1.0, v), **NOISE),
    *rows("TreeGaussian", "participations", lambda v: co.TreeGaussian(1.0, 1.0, participations=v), **COUNT),
    *rows("RandomisedResponse", "epsilon", lambda v: co.RandomisedResponse(v, 2), **POSITIVE),
    *rows(
        "RandomisedResponse",
        "classes",
        lambda v: co.RandomisedResponse(1.0, v),
        bad=(*NO_WHOLE, 0, 1, -1),
        good=(2, 3, np.int64(2), 10**6),
    ),
    *rows("RandomisedResponse", "labels", lambda v: co.RandomisedResponse(1.0, 2, labels=v), **COUNT),
    *rows("Laplace", "epsilon", lambda v: co.Laplace(v, 1.0), **POSITIVE),
    *rows("Laplace", "bound", lambda v: co.Laplace(1.0, v), **POSITIVE),
    *rows("Laplace", "bound", lambda v: co.Laplace(v, 1.0), bad={"an epsilon far below": 1e-250}),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_settings(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)


def test_a_numpy_scalar_is_as_good_as_a_plain_number():
    assert repr(co.Gaussian(np.float32(0.5), np.int64(2))) == repr(co.Gaussian(0.5, 2.0))
    assert repr(co.TreeGaussian(1, 1, participations=np.int64(2))) == repr(co.TreeGaussian(1.0, 1.0, participations=2))
