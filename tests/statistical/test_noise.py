"""Noise has the distribution that it claims: seeds are fixed, each test fails by chance once in 10,000 such seeds."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

import comity as co
from comity.privacy import noise
from comity.privacy.noise import choices, discrete_gaussian, discrete_laplace, normals, uniform

N, ALPHA = 400_000, 1e-4


def stream(*purpose):
    return co.testing.fixed_secret(1).stream(*purpose)


def fits(found, probability):
    """The p-value of a chi-square test of integers against `probability(k)`, rare ones taken together."""
    most = int(np.abs(found).max()) + 1
    k = np.arange(-most, most + 1)
    wanted = probability(k) * len(found)
    counts = np.bincount(found + most, minlength=len(k))
    often = wanted >= 10
    counts = [*counts[often], counts[~often].sum()]
    wanted = [*wanted[often], len(found) - wanted[often].sum()]
    assert len(counts) > 2
    if wanted[-1] < 5:
        counts[-2:], wanted[-2:] = [sum(counts[-2:])], [sum(wanted[-2:])]
    return stats.chisquare(counts, wanted, sum_check=False).pvalue


def gaussian(std):
    def probability(k):
        total = sum(math.exp(-(i**2) / (2 * std**2)) for i in range(-int(20 * std) - 5, int(20 * std) + 6))
        return np.exp(-(k.astype(float) ** 2) / (2 * std**2)) / total

    return probability


def test_normals_are_normal():
    x = normals(stream("normals"), N)
    assert stats.kstest(x, "norm").pvalue > ALPHA
    assert abs(x.mean()) < 4 / math.sqrt(N)
    assert abs(x.var() - 1) < 4 * math.sqrt(2 / N)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / N)
    assert np.abs(x).max() < 8.6


def test_pairs_go_all_around_the_circle():
    x = normals(stream("pairs"), 2 * noise.PAIRS)
    cosine, sine = x.reshape(2, -1)
    turns = np.arctan2(sine, cosine) / (2 * math.pi) % 1
    assert stats.kstest(turns, "uniform").pvalue > ALPHA
    assert stats.kstest((cosine**2 + sine**2) / 2, "expon").pvalue > ALPHA
    assert abs(np.corrcoef(cosine, sine)[0, 1]) < 4 / math.sqrt(noise.PAIRS)
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 4 / math.sqrt(len(x))


def test_sine_and_cosine_are_as_good_as_those_of_the_library():
    words = stream("angle").take(16 * 1000).view("<u8").reshape(2, 1000)
    radius = np.sqrt(-2 * np.log(((words[0] >> np.uint64(11)).astype(float) + 1) * 2.0**-53))
    angle = (words[1].view(np.int64) >> 11).astype(float) * (math.pi * 2.0**-53)
    sign = np.where(words[1] & np.uint64(1), -1, 1)
    found = normals(stream("angle"), 2000)
    assert np.allclose(found[:1000], radius * np.cos(angle) * sign, rtol=0, atol=4e-15)
    assert np.allclose(found[1000:], radius * np.sin(angle), rtol=0, atol=4e-15)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 2 * noise.PAIRS - 1, 2 * noise.PAIRS + 1])
def test_any_number_of_them(size):
    for draw in (normals, lambda s, n: discrete_gaussian(s, 2.5, n), lambda s, n: discrete_laplace(s, 2.5, n), uniform):
        found = draw(stream("size"), size)
        assert found.shape == (size,)
        assert np.array_equal(found, draw(stream("size"), size))
        assert size < 3 or not np.array_equal(found, draw(stream("other"), size))


def test_the_logarithm_of_zero_is_never_taken():
    class Zeros:
        def take(self, size):
            return np.zeros(size, np.uint8)

    assert np.isfinite(normals(Zeros(), 4)).all()
    assert float(normals(Zeros(), 2)[0] ** 2 + normals(Zeros(), 2)[1] ** 2) == pytest.approx(2 * 53 * math.log(2))


@pytest.mark.parametrize("std", [0.4, 0.7, 1.0, 2.5, 3.7, 19.3])
def test_discrete_gaussians_have_their_exact_probabilities(std):
    assert fits(discrete_gaussian(stream("discrete", str(std)), std, N), gaussian(std)) > ALPHA


@pytest.mark.parametrize("std", [1e3, 123456.789, 1e6, 1e9])
def test_wide_discrete_gaussians_have_their_moments(std):
    x = discrete_gaussian(stream("wide", str(std)), std, N) / std
    assert abs(x.mean()) < 4 / math.sqrt(N)
    assert abs(x.var() - 1) < 4 * math.sqrt(2 / N)
    assert stats.kstest(x, "norm").pvalue > ALPHA


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.5, 20.0])
def test_discrete_laplace_noise_has_its_exact_probabilities(scale):
    decay = math.exp(-1 / scale)
    found = discrete_laplace(stream("laplace", str(scale)), scale, N)
    assert fits(found, lambda k: (1 - decay) / (1 + decay) * decay ** np.abs(k)) > ALPHA


def test_what_doubles_cannot_tell_is_decided_by_as_many_digits_as_it_takes(monkeypatch):
    """With a slack so wide that many are decided exactly, all come out the same: the two ways agree."""
    want = discrete_gaussian(stream("exact"), 7.3, 2000), discrete_laplace(stream("exact"), 7.3, 2000)
    calls = []
    below, floor = noise._exactly_below, noise._exact_floor
    monkeypatch.setattr(noise, "SLACK", 0.2)
    monkeypatch.setattr(noise, "_exactly_below", lambda *a: calls.append("below") or below(*a))
    monkeypatch.setattr(noise, "_exact_floor", lambda *a: calls.append("floor") or floor(*a))
    found = discrete_gaussian(stream("exact"), 7.3, 2000), discrete_laplace(stream("exact"), 7.3, 2000)
    assert calls.count("below") > 100
    assert calls.count("floor") > 100
    assert all(np.array_equal(a, b) for a, b in zip(want, found, strict=True))


class Bits:
    """A stream of 64-bit words that are given."""

    def __init__(self, *words):
        self.words = list(words)

    def take(self, size):
        return np.array([self.words.pop(0) for _ in range(size // 8)], "<u8").view(np.uint8)


def test_more_bits_are_taken_where_53_cannot_tell():
    edge = int(Fraction(1, 2) * 2**53)
    level = Fraction(math.log(2))  # exp(-this) lies a little beyond 1/2: the first 53 bits are those of 1/2
    assert math.exp(-float(level)) == 0.5
    low, high = Bits(0), Bits(2**64 - 1)
    assert noise._exactly_below(edge, level, low)
    assert not noise._exactly_below(edge, level, high)
    assert low.words == high.words == []
    assert noise._exact_floor(0, Fraction(3), Bits(2**63)) == math.floor(3 * 54 * math.log(2))


def test_choices_are_fair():
    for count in (1, 2, 3, 10, 2**53, 2**63 - 1):
        found = choices(stream("choices"), 300, count)
        assert 0 <= found.min() <= found.max() < count
    counts = np.bincount(choices(stream("fair"), N, 7))
    assert stats.chisquare(counts).pvalue > ALPHA
    assert choices(Bits(2**64 - 1, 5), 1, 3).tolist() == [2]


def test_randomised_response_tells_with_its_chances():
    votes, here = np.eye(4, dtype="f4")[np.zeros(100_000, int)], co.Round("", 0)
    part = co.RandomisedResponse(1.5, 4, labels=100_000)
    told, _ = part.encode(co.Contribution("label", {"votes": votes}), None, {}, here, co.testing.fixed_secret(1))
    counts = told.value["votes"].sum(axis=0)
    other = 1 / (math.exp(1.5) + 3)
    assert stats.chisquare(counts, 100_000 * np.array([1 - 3 * other, other, other, other])).pvalue > ALPHA
    assert set(told.value["votes"].sum(axis=1)) == {1.0}


@pytest.mark.parametrize("shares", [(900, 100, 0), (0, 0, 1000)])
def test_counts_are_estimated_without_bias(shares):
    label = np.repeat(np.arange(3), shares)
    part, secret, found = co.RandomisedResponse(1.0, 3), co.testing.fixed_secret(1), []
    for number in range(8):
        here, total = co.Round("", 0, number=number, asked=1000), np.zeros((1, 3))
        for i, kind in enumerate(label):
            c = co.Contribution("label", {"votes": np.eye(3)[[kind]]})
            total += part.encode(c, None, {}, here, secret.side(str(i)))[0].value["votes"]
        found.append(part.decode(co.Contribution("label", {"votes": total}), None, here, None)[0].value["votes"][0])
    spread = math.sqrt(1000) * math.exp(0.5) / (math.e - 1) * 1.5
    assert np.abs(np.mean(found, axis=0) - shares).max() < 4 * spread / math.sqrt(8)
    assert np.allclose(np.sum(found, axis=1), 1000)


def test_laplace_noise_has_its_scale():
    part, here = co.Laplace(0.5, 3.0), co.Round("", 0)
    x = part.encode(co.Contribution("x", np.zeros(N)), None, {}, here, co.testing.fixed_secret(1))[0].value
    assert stats.kstest(x, "laplace", args=(0, 12.0)).pvalue > ALPHA
    assert part.spend(here) == co.Spend("laplace", 2.0)


def test_the_noise_of_a_sum_has_its_deviation():
    here, secret = co.Round("", 0, asked=5, expected=5.0, answered=5), co.testing.fixed_secret(1)
    zeros = co.Contribution("delta", {"a": np.zeros((N // 2, 2)), "b": np.zeros(())}, 7.5)
    for part, std in (
        (co.Gaussian(2.0, 1.5), 3.0),
        (co.Gaussian(2.0, 1.5, quantile=0.5, bits=1.0), 2.0 / math.sqrt(1.5**-2 - 2.0**-2)),
        (co.Gaussian(2.0, 1.5, quantile=0.5), 2.0 / math.sqrt(1.5**-2 - 3.0**-2)),
        (co.TreeGaussian(2.0, 1.5), 3.0),
    ):
        x = part.decode(zeros, part.init(), here, secret)[0].value["a"]
        assert stats.kstest(x.ravel() / std, "norm").pvalue > ALPHA


@pytest.mark.parametrize("rotate", [False, True])
def test_shares_of_noise_add_up_to_that_of_the_least_that_must_answer(rotate):
    part, secret = co.DiscreteGaussian(2.0, 1.5, drops=0.25, corrupt=0.25, rotate=rotate), co.testing.fixed_secret(1)
    here, value = co.Round("", 0, asked=8), np.full(2**14, 2.0 / 2**7)
    words = []
    for i in range(8):
        c, _ = part.encode(co.Contribution("x", value), None, {}, here, secret.side(str(i)))
        words.append(np.concatenate([x.ravel() for x in c.value.values()]) if rotate else c.value)
    for answered, least in ((8, 4), (6, 4)):
        total = sum(w.astype(np.int64) for w in words[:answered])
        c = co.Contribution("x", {"rotated": total, "rest": total[:0]} if rotate else total)
        back, _ = part.decode(c, None, co.Round("", 0, asked=8, answered=answered), secret)
        rest = back.value - answered * value
        assert stats.kstest(rest / (3.0 * math.sqrt(answered / least)), "norm").pvalue > ALPHA
