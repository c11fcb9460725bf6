"""Mechanisms of privacy: their laws as transforms, and that no accepted chain lets a norm pass the clip."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import comity as co
from comity.channels.secagg import SecAgg
from comity.core.tree import norm, tree_map
from comity.privacy.bounds import discrete_gaussian_noise
from comity.privacy.clipping import clipped

CLIP, SLACK = 0.5, 1e-9
SITES = {name: co.Trainer(co.Linear(inputs=2, classes=2), (np.eye(2, dtype="f4"), np.arange(2))) for name in "abc"}
BOUNDING = {
    "Gaussian": co.Gaussian(CLIP, 0.0),
    "adaptive": co.Gaussian(CLIP, 0.0, quantile=0.5),
    "Tree": co.TreeGaussian(CLIP, 0.0, participations=1000),
    "Discrete": co.DiscreteGaussian(CLIP, 0.0, drops=0.0),
    "rotated": co.DiscreteGaussian(CLIP, 0.0, drops=0.0, rotate=True),
}
OTHERS = {
    "TopK": co.TopK(0.2),
    "TopK-": co.TopK(0.2, feedback=False),
    "Sparse": co.Sparse(),
    "Quantize": co.Quantize(least=1),
    "QSGD": co.QSGD(),
    "Half": co.Half(),
    "Once": co.Once(),
    "Deflate": co.Deflate(),
    "FixedPoint": co.FixedPoint(bound=1.0),
    "Laplace": co.Laplace(1.0, 1.0),
}
ALL = BOUNDING | OTHERS
KEEP = ("TopK-", "Sparse", "Once", "Deflate")
SHAPE = {"a": (9,), "b": {"c": (4, 3), "d": ()}}


def accepted(names, channel):
    """The transforms of a collaboration with this chain, FixedPoint put last by itself; None where it is refused."""
    method, chain = co.FedAvg(SITES["a"].model), [ALL[name] for name in names]
    try:
        return co.Collaboration(
            method, SITES, combine=co.Mean(public=True), transforms=chain, channel=channel
        ).parts.transforms
    except co.ConfigError:
        return None


CHAINS = {
    (*names, type(channel).__name__): chain
    for n in (1, 2, 3)
    for names in itertools.permutations(ALL, n)
    if set(names) & set(BOUNDING)
    for channel in (co.Plain(), SecAgg(threshold=1.0))
    if (chain := accepted(names, channel))
}


def test_the_laws_of_transforms_hold():
    for noise in (0.0, 1.0):
        co.testing.check_transform(co.Gaussian(1.0, noise))
        co.testing.check_transform(co.Gaussian(1.0, noise, quantile=0.5))
        co.testing.check_transform(co.DiscreteGaussian(1.0, noise))
        co.testing.check_transform(co.DiscreteGaussian(0.1, noise, rotate=True))
        co.testing.check_transform(co.TreeGaussian(1.0, noise, participations=30))
    co.testing.check_transform(co.Laplace(1.0, 1.0))
    votes = co.Contribution("label", {"votes": np.eye(4, 3, dtype="float32")})
    co.testing.check_transform(co.RandomisedResponse(1.0, 3, labels=4), votes)


def test_which_may_follow_a_clip_and_which_not():
    sums = {"Gaussian", "adaptive", "Tree"}
    for bound in sums:
        assert {name for name in ALL if (bound, name, "Plain") in CHAINS} == {*KEEP, *sums} - {bound}
        assert {name for name in ALL if (bound, name, "SecAgg") in CHAINS} == {"FixedPoint", *sums} - {bound}
        assert {name for name in OTHERS if (name, bound, "Plain") in CHAINS} == {"Laplace"}
    for ring in ("Discrete", "rotated"):
        assert (ring, "SecAgg") in CHAINS
        assert not [names for names in CHAINS if ring in names and "Plain" in names]
        assert not [names for names in CHAINS if ring in names[1:] and sums & set(names[: names.index(ring)])]
    assert len(CHAINS) > 80


def around(chain, rounds, sizes):
    """The norms of what is sealed, with all undone that came after the last clip, over so many rounds of one site."""
    last = max(i for i, t in enumerate(chain) if hasattr(t, "bounds"))
    locals_, rng, secret = [{} for _ in chain], np.random.default_rng(0), co.testing.fixed_secret().side("a")
    for number in range(rounds):
        here = co.Round("", 0, number=number, me="a", roster=3, asked=3, expected=3.0)
        scale = sizes[number % len(sizes)]
        value = tree_map(lambda s, scale=scale: np.asarray(rng.standard_t(2, s) * scale, np.float32), SHAPE)
        c = co.Contribution("delta", value)
        for i, t in enumerate(chain):
            public = t.publish(t.init(), here) if hasattr(t, "publish") else None
            c, locals_[i] = t.encode(c, public, locals_[i], here, secret)
        for t in reversed(chain[last + (not getattr(chain[last], "integers", False)) :]):
            c, _ = t.decode(c, t.init(), here, secret)
        yield norm(c.value)


@pytest.mark.parametrize("first", sorted({names[0] for names in CHAINS}))
def test_what_is_sealed_never_passes_the_clip_over_50_rounds(first):
    for names, chain in CHAINS.items():
        if names[0] == first:
            worst = max(around(chain, 50, (0.01, 1.0, 100.0)))
            assert worst <= CLIP * (1 + SLACK), f"{names}: {worst}"
            assert worst > 0, f"{names}: nothing was sent"


def test_error_feedback_after_a_clip_would_pass_it():
    """The chain that is refused: what was held back comes later, all at once."""
    assert ("Gaussian", "TopK", "Plain") not in CHAINS
    clip, top, local, worst = co.Gaussian(CLIP, 0.0), co.TopK(0.05), {}, 0.0
    for number in range(50):
        here = co.Round("", 0, number=number)
        c, _ = clip.encode(co.Contribution("delta", np.ones(100)), None, {}, here, None)
        sent, local = top.encode(c, None, local, here, None)
        worst = max(worst, norm(top.decode(sent, None, here, None)[0].value))
    assert worst > 3 * CLIP


@given(
    st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=6),
    st.floats(1e-200, 1e200),
    st.sampled_from(["f8", "f4", "f2"]),
    st.sampled_from([1, 2]),
)
def test_a_clip_holds_and_leaves_alone_what_is_within(numbers, clip, dtype, order):
    with np.errstate(over="ignore"):
        x = np.array(numbers).astype(dtype)
    if not np.isfinite(x).all():
        with pytest.raises(co.ContributionError, match="infinity"):
            clipped({"x": x}, clip, order)
        return
    clip = max(clip, {"f8": 0.0, "f4": 1e-30, "f2": 1e-2}[dtype])
    found, size = clipped({"x": x}, clip, order)
    unit = float(max(np.abs(found["x"]).max(), np.finfo("f8").tiny))
    again = float(np.linalg.norm(np.asarray(found["x"], float) / unit, order)) * unit
    assert again <= clip
    assert found["x"].dtype == x.dtype
    assert size > clip * (1 - 1e-6) or np.array_equal(found["x"], x)
    assert size <= clip * (1 + 1e-6) or clip < 1e-150 or again >= clip * (0.999 if dtype != "f2" else 0.9)


@given(
    st.integers(1, 5),
    st.floats(0.0, 20.0),
    st.sampled_from([1e-6, 1.0, 1e6]),
    st.booleans(),
    st.lists(st.floats(-1e7, 1e7), min_size=3, max_size=3),
)
def test_no_sum_of_noised_integers_leaves_the_range(asked, noise, clip, rotate, row):
    if 0 < noise < 1e-3:
        noise = 1e-3
    t = co.DiscreteGaussian(clip, noise, drops=0.0, rotate=rotate)
    here, secret = co.Round("", 0, asked=asked), co.testing.fixed_secret()
    words = t.encode(co.Contribution("delta", np.array(row)), None, {}, here, secret)[0].value
    largest = max(int(np.abs(np.asarray(x, np.int64)).max(initial=0)) for x in (words.values() if rotate else [words]))
    assert largest * asked < 2**31


def test_what_a_sum_of_coarse_shares_lacks_of_a_gaussian_cannot_be_told():
    """The spend of DiscreteGaussian is its noise, because every share has four steps or more."""
    for shares in (1, 3, 1000, 10**6):
        for noise in (1e-3, 1.0, 1e6):
            norm_ = 4.0 * math.sqrt(shares) / noise
            found = discrete_gaussian_noise(4.0, sensitivity=norm_, shares=shares, dimension=2**40)
            assert found == pytest.approx(noise, rel=1e-12)


@pytest.mark.parametrize(
    "part",
    [co.Gaussian(1.0, 1.0), co.DiscreteGaussian(1.0, 1.0), co.TreeGaussian(1.0, 1.0), co.Laplace(1.0, 1.0)],
    ids=lambda t: type(t).__name__,
)
@pytest.mark.parametrize("bad", [np.array([1.0, np.nan]), np.array([np.inf]), "text", None], ids=str)
def test_what_is_no_number_is_refused_before_anything_is_sent(part, bad):
    here, secret = co.Round("", 0, asked=3), co.testing.fixed_secret()
    with pytest.raises(co.ContributionError, match=r"NaN|numbers"):
        part.encode(co.Contribution("delta", {"x": bad, "y": np.ones(2)}), None, {}, here, secret)


def test_weights_by_data_are_refused():
    for t in (*BOUNDING.values(), OTHERS["Laplace"]):
        channel = SecAgg(threshold=1.0) if getattr(t, "integers", False) else co.Plain()
        with pytest.raises(co.ConfigError, match="public=True"):
            co.Collaboration(
                co.FedAvg(SITES["a"].model), SITES, combine=co.Mean(cap=9.0), transforms=[t], channel=channel
            )
