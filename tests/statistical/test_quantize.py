"""Stochastic rounding: unbiased, with the variance that is stated, over many draws from fixed seeds.

False alarms: each mean is compared with six standard errors of its own distribution, so that one comparison fails by
chance with a probability below 2e-9 (a normal tail); all of them together (under 20,000 numbers) below 1e-4.
"""

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution

DRAWS, SIGMAS = 2000, 6.0
RNG = np.random.default_rng(5)
X = np.concatenate([RNG.normal(size=200), RNG.normal(size=150) * 1e-3, np.zeros(20), [1e4, -3.0]]).astype("float32")


def draws(codec, x, n=DRAWS):
    """(n, numbers) float64: what arrives of the same contribution in n rounds."""
    c = Contribution("delta", {"w": x})
    out = np.empty((n, x.size))
    for i in range(n):
        turn = co.Round("draws", 0, number=i, me="ann")
        sent, _ = codec.encode(c, None, {}, turn, None)
        out[i] = codec.decode(sent, None, turn, None)[0].value["w"]
    return out


def assert_unbiased(got, x, most):
    """`most` is the largest step of each number: an error is bounded by it, and its variance by a quarter square."""
    error = got - x.astype(np.float64)
    assert (np.abs(error) <= most * (1 + 1e-5)).all()
    assert (error.var(0) <= most**2 / 4 * (1 + SIGMAS / np.sqrt(len(got)))).all()
    tolerance = SIGMAS * most / 2 / np.sqrt(len(got)) + 1e-6 * np.abs(x)
    assert (np.abs(error.mean(0)) <= tolerance).all()
    shares = error[:, most > 0] / most[most > 0]
    assert abs(shares.mean()) <= SIGMAS / 2 / np.sqrt(shares.size), "and all numbers together lean to no side"


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integers_are_unbiased_within_their_steps(bits):
    codec = co.Quantize(up=bits, block=64, least=1)
    tops = np.repeat(np.maximum.reduceat(np.abs(X), np.arange(0, X.size, 64)), 64)[: X.size]
    got = draws(codec, X)
    assert_unbiased(got, X, tops * (1 + 2**-7) / (2 ** (bits - 1) - 1))
    assert got.std(0).max() > 0


def test_small_leaves_are_unbiased_in_bfloat16():
    got = draws(co.Quantize(up=8, least=10**6), X)
    assert_unbiased(got, X, np.abs(X) * 2.0**-7)
    assert got.std(0).max() > 0


@pytest.mark.parametrize(("levels", "bucket"), [(1, 372), (4, 100), (16, 512), (200, 64)])
def test_qsgd_is_unbiased_within_its_levels(levels, bucket):
    norms = np.sqrt(np.add.reduceat(X.astype(float) ** 2, np.arange(0, X.size, bucket)))
    got = draws(co.QSGD(levels, bucket), X)
    assert_unbiased(got, X, np.repeat(norms, bucket)[: X.size] / levels)


@pytest.mark.parametrize("d", [16, 256, 1024])
@pytest.mark.parametrize("levels", [1, 4, 16, 64])
def test_qsgd_keeps_the_variance_bound_and_the_sparsity_of_the_paper(d, levels):
    for x in (RNG.normal(size=d), RNG.standard_cauchy(size=d), np.ones(d)):
        x = x.astype("float32")
        got = draws(co.QSGD(levels, d), x, 200)
        square = float((x.astype(float) ** 2).sum())
        errors = ((got - x) ** 2).sum(1)
        bound = min(d / levels**2, np.sqrt(d) / levels) * square
        assert errors.mean() <= bound + SIGMAS * errors.std() / np.sqrt(len(got))
        kept = np.count_nonzero(got, axis=1)
        assert kept.mean() <= levels * (levels + np.sqrt(d)) + SIGMAS * kept.std() / np.sqrt(len(got))


def test_members_and_rounds_draw_apart_and_the_mean_of_many_is_nearer():
    c = Contribution("delta", {"w": X[:200]})
    codec = co.Quantize(up=4, least=1)

    def arrives(name, number):
        turn = co.Round("draws", 0, number=number, me=name)
        return codec.decode(codec.encode(c, None, {}, turn, None)[0], None, turn, None)[0].value["w"]

    got = np.stack([arrives(f"p{i}", 0) for i in range(400)])
    one, all_of_them = np.abs(got[0] - X[:200]).mean(), np.abs(got.mean(0) - X[:200]).mean()
    assert all_of_them < one / 10, "a twentieth is expected"
    assert not np.array_equal(arrives("p0", 0), arrives("p0", 1))
    assert np.array_equal(arrives("p0", 0), arrives("p0", 0))


def test_a_biased_rounding_would_be_found():
    codec = co.Quantize(up=4, least=1)
    tops = np.repeat(np.maximum.reduceat(np.abs(X), np.arange(0, X.size, 64)), 64)[: X.size]
    got = draws(codec, X, 300) + 0.3 * tops / 7
    with pytest.raises(AssertionError):
        assert_unbiased(got, X, tops * (1 + 2**-7) / 7)
