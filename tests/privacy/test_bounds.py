"""Bounds of integer noise and of sampling are above what numbers show, and not far."""

import dp_accounting as dp
import numpy as np
import pytest
from scipy.special import ive
from scipy.stats import norm

from comity.core.errors import ConfigError
from comity.privacy.bounds import discrete_gaussian_noise, skellam_noise, subsampled

ORDERS = np.array([2.0, 3.0, 5.0, 9.0, 17.0])


def divergence(log_p, log_q, order):
    """Rényi divergence of two distributions on the same points, given by their logarithms."""
    return np.logaddexp.reduce(order * log_p - (order - 1) * log_q) / (order - 1)


@pytest.mark.parametrize(("std", "step"), [(1.0, 1), (2.0, 1), (4.0, 3), (10.0, 5)])
def test_skellam_noise_is_at_most_what_it_loses(std, step):
    at = np.arange(-300, 301)
    log = np.log(np.maximum(ive(np.abs(at), std**2), 1e-300))
    far, near = log[:-step], log[step:]
    seen = np.maximum(far, near) > np.log(1e-250)
    for order in ORDERS[:3]:
        whole = max(divergence(far[seen], near[seen], order), divergence(near[seen], far[seen], order))
        bound = order / (2 * skellam_noise(std, sensitivity=step) ** 2)
        assert whole <= bound
        assert bound <= whole * (1 + 4 / std**2) or std < 10


@pytest.mark.parametrize(("std", "shares"), [(0.6, 1), (0.6, 3), (1.0, 5), (3.0, 20)])
def test_a_sum_of_discrete_gaussians_is_at_most_what_it_loses(std, shares):
    at = np.arange(-60, 61)
    one = np.exp(-(at**2) / (2 * std**2))
    total = one / one.sum()
    for _ in range(shares - 1):
        total = np.convolve(total, one / one.sum())
    log = np.log(np.maximum(total, 1e-250))
    keep = log > np.log(1e-120)
    log = log[keep]
    for order in ORDERS[:3]:
        bound = order / (2 * discrete_gaussian_noise(std, shares=shares) ** 2)
        assert divergence(log[:-1], log[1:], order) <= bound * (1 + 1e-9)
    ideal = std * np.sqrt(shares)
    assert discrete_gaussian_noise(std, shares=shares) <= ideal
    if std >= 3:
        assert discrete_gaussian_noise(std, shares=shares) == pytest.approx(ideal)
    wide = discrete_gaussian_noise(0.6, shares=10, dimension=10_000)
    assert wide < discrete_gaussian_noise(0.6, shares=10) < 0.6 * np.sqrt(10)


@pytest.mark.parametrize(("rate", "noise"), [(0.01, 1.0), (0.1, 2.0), (0.5, 4.0)])
def test_sampling_before_any_mechanism(rate, noise):
    curve = np.arange(0, 18) / (2 * noise**2)
    bound = subsampled(curve, rate, np.append(ORDERS, 2.5))
    exact = dp.rdp.RdpAccountant(ORDERS).compose(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise))).rdp
    assert np.isinf(bound[-1])
    assert (bound[:-1] >= exact - 1e-12).all()
    assert bound[0] == pytest.approx(exact[0])
    assert (bound[:-1] <= ORDERS / (2 * noise**2)).all()
    assert rate > 0.1 or (bound[:-1] <= 3 * exact).all()


def test_a_share_is_what_a_library_calls_a_gaussian():
    at = np.linspace(-60, 61, 200_001)
    log_p, log_q = norm.logpdf(at, 0, 3.0), norm.logpdf(at, 1, 3.0)
    found = divergence(log_p + np.log(at[1] - at[0]), log_q + np.log(at[1] - at[0]), 3.0)
    assert found == pytest.approx(3.0 / (2 * discrete_gaussian_noise(3.0) ** 2), rel=1e-6)


def test_what_is_refused():
    for call in (
        lambda: discrete_gaussian_noise(0.4),
        lambda: discrete_gaussian_noise(1.0, shares=0),
        lambda: discrete_gaussian_noise(1.0, sensitivity=0.0),
        lambda: skellam_noise(0.0),
        lambda: skellam_noise(1.0, sensitivity=-1.0),
    ):
        with pytest.raises(ConfigError, match="must be"):
            call()
