"""What mechanisms of privacy release, and what they do not."""

import math
from dataclasses import replace

import numpy as np
import pytest

import comity as co
from comity.channels.secagg import SecAgg
from comity.core.round import Turns
from comity.core.spec import Spec, like
from comity.core.together import Works
from comity.core.tree import norm
from comity.privacy.discrete import _hadamard, _rounded, _shortened
from comity.testing.common import stacked

HERE = co.Round("run", 0, number=3, roster=4, asked=4, expected=4.0, answered=4)
SECRET = co.testing.fixed_secret()
RNG = np.random.default_rng(0)
VALUE = {"a": RNG.normal(size=(5, 3)).astype("f4"), "b": RNG.normal(size=7).astype("f4")}
MODEL = co.Linear(inputs=4, classes=2, rate=0.5)
X = RNG.normal(size=(40, 4)).astype("f4")
SITES = {f"s{i}": co.Trainer(MODEL, (X[4 * i : 4 * i + 4], np.array([0, 1, 0, 1]))) for i in range(10)}


def sent(part, value=VALUE, here=HERE, secret=SECRET, **more):
    public = part.publish(part.init(), here) if hasattr(part, "publish") else None
    return part.encode(co.Contribution("delta", value, **more), public, {}, here, secret)[0]


def got(part, value=VALUE, here=HERE, secret=SECRET, state=None, weight=6.0):
    state = part.init() if state is None else state
    return part.decode(co.Contribution("delta", value, weight), state, here, secret)


def fed(part, **more):
    parts = {"combine": co.Mean(public=True), "evaluate": False} | more
    return co.Collaboration(co.FedAvg(MODEL), SITES, transforms=[part], **parts)


def same(a, b):
    return all(np.array_equal(a[k], b[k]) for k in a)


CENTRAL = {
    "flat": co.Gaussian(1.0, 1.0),
    "adaptive": co.Gaussian(1.0, 1.0, quantile=0.5),
    "tree": co.TreeGaussian(1.0, 1.0),
}
LOCAL = {"laplace": co.Laplace(1.0, 1.0), "discrete": co.DiscreteGaussian(1.0, 1.0)}
OTHERWISE = (replace(HERE, number=4), replace(HERE, attempt=1), replace(HERE, hub="other"))


@pytest.mark.parametrize("part", CENTRAL.values(), ids=CENTRAL)
def test_a_replay_gives_the_same_noise_and_anything_else_another(part):
    first = got(part)[0].value
    assert same(first, got(part)[0].value)
    assert not any(same(first, got(part, here=here)[0].value) for here in OTHERWISE)
    assert not same(first, got(part, secret=co.testing.fixed_secret(1))[0].value)


@pytest.mark.parametrize("part", LOCAL.values(), ids=LOCAL)
def test_a_replay_at_a_site_gives_the_same_noise_and_anything_else_another(part):
    first = sent(part).value
    assert same(first, sent(part).value)
    assert not any(same(first, sent(part, here=here).value) for here in OTHERWISE)
    assert not same(first, sent(part, secret=SECRET.side("b")).value)


def test_a_replay_of_an_answer_is_the_same_answer():
    votes = {"votes": np.eye(4)[RNG.integers(0, 4, 50)]}
    part = co.RandomisedResponse(0.5, 4, labels=50)
    assert same(sent(part, votes).value, sent(part, votes).value)
    assert not any(same(sent(part, votes).value, sent(part, votes, here=here).value) for here in OTHERWISE)


@pytest.mark.parametrize("part", [*CENTRAL.values(), *LOCAL.values()], ids=[*CENTRAL, *LOCAL])
def test_nothing_but_the_value_tells_of_data(part):
    c = sent(part, weight=123.0, metrics={"loss": (5.0, 123.0)})
    assert c.metrics == {}
    assert c.weight in (1.0, 2.0)
    if not getattr(part, "integers", False):
        after = got(part, weight=123.0)[0]
        assert (after.weight, after.metrics) == (4.0, {})


@pytest.mark.parametrize(
    "part", [co.Gaussian(1.0, 0.0), co.Gaussian(1.0, 0.0, quantile=0.5), co.TreeGaussian(1.0, 0.0)], ids=CENTRAL
)
def test_without_noise_a_clip_is_exact_and_says_that_it_has_no_privacy(part):
    small = {k: x * np.float32(0.01) for k, x in VALUE.items()}
    assert same(sent(part, small).value, small)
    assert 1 - 1e-6 < norm(sent(part).value) <= 1
    assert same(got(part)[0].value, VALUE)
    assert part.spend(HERE).noise == 0
    assert co.spent([part.spend(HERE)], 1e-5)[0].epsilon == math.inf


def test_what_is_spent_is_what_was_said():
    assert co.Gaussian(3.0, 1.5).spend(HERE) == co.Spend("gaussian", 1.5)
    assert co.Gaussian(3.0, 1.5, quantile=0.5).spend(HERE) == co.Spend("gaussian", 1.5)
    assert co.DiscreteGaussian(3.0, 1.5).spend(HERE) == co.Spend("discrete-gaussian", 1.5)
    assert co.TreeGaussian(3.0, 1.5, participations=3).spend(HERE) == co.Spend("tree", 0.5)
    assert co.RandomisedResponse(1.5, 3, labels=7).spend(HERE) == co.Spend("response", 1.5, count=7)
    assert co.Laplace(2.0, 5.0).spend(HERE) == co.Spend("laplace", 0.5)


def test_sampling_is_credited_only_for_fresh_noise_that_the_hub_adds():
    votes = co.RandomisedResponse(1.0, 2)
    assert [p for p in (*CENTRAL, *LOCAL) if getattr({**CENTRAL, **LOCAL}[p], "central", False)] == ["flat", "adaptive"]
    assert not getattr(votes, "central", False)


def test_bounds_are_narrowed():
    spec = Spec(like(VALUE, -9.0, 0.25))
    for part, most in (
        (co.Gaussian(2.0, 1.0), 2.0),
        (co.Gaussian(2.0, 1.0, quantile=0.5), 200.0),
        (co.Gaussian(2.0, 1.0, quantile=0.5, most=3.0), 3.0),
        (co.TreeGaussian(2.0, 1.0), 2.0),
        (co.DiscreteGaussian(2.0, 1.0), 2.0),
    ):
        found = part.bounds(spec)
        assert (found.value["a"].low, found.value["a"].high) == (-min(most, 9.0), 0.25)
        assert found.metrics == frozenset()


def test_an_empty_cohort_is_noised_and_charged():
    run = fed(co.Gaussian(1.0, 1.0), select=co.poisson(1e-9)).run(rounds=3)
    assert all(np.all(x != 0) for x in run.shared.values())
    assert run.ledger.rounds == 3
    assert [e.facts["sampling"] for e in run.ledger if e.kind == "spend"] == ["poisson"] * 3
    with pytest.raises(co.ChannelError, match="known shape"):
        got(CENTRAL["flat"], None)


def test_the_count_of_those_within_is_exact_without_noise():
    part = co.Gaussian(1.0, 0.0, quantile=0.5, rate=1.0)
    small, large = {"x": np.ones(1)}, {"x": np.ones(2)}
    for within in range(5):
        values = [small] * within + [large] * (4 - within)
        weights = [sent(part, value).weight for value in values]
        after = got(part, small, weight=sum(weights))[1]
        assert after["clip"] == pytest.approx(math.exp(0.5 - within / 4))
    nobody = sent(part, {"x": np.zeros(1)}, weight=0.0).weight
    here = replace(HERE, answered=7)
    after = got(part, small, here, weight=3 * nobody + sum(sent(part, v).weight for v in (small, small, small, large)))
    assert after[1]["clip"] == pytest.approx(math.exp(0.5 - 3 / 4))


def test_a_clip_follows_the_quantile_of_the_norms():
    """Andrew et al., figure 1: it comes within a few rounds, and stays, whatever it began with."""
    sizes = np.geomspace(0.1, 10.0, 101)
    for start in (0.01, 1.0, 100.0):
        part = co.Gaussian(start, 0.5, quantile=0.5, most=1000.0)
        here, state, clips = replace(HERE, asked=101, answered=101, expected=101.0), part.init(), []
        for number in range(100):
            here = replace(here, number=number)
            told = [
                part.encode(co.Contribution("d", np.array([s])), part.publish(state, here), {}, here, SECRET)[0]
                for s in sizes
            ]
            c = co.Contribution("d", sum(t.value for t in told), sum(t.weight for t in told))
            _, state = part.decode(c, state, here, SECRET)
            clips.append(state["clip"])
        assert 0.7 < np.median(clips[60:]) < 1.4


def test_a_site_refuses_a_clip_beyond_what_was_agreed():
    part = co.Gaussian(1.0, 1.0, quantile=0.5, most=5.0)
    for clip in (6.0, 0.0, -1.0, math.nan):
        with pytest.raises(co.ContributionError, match="clip"):
            part.encode(co.Contribution("d", np.ones(1)), {"clip": clip}, {}, HERE, SECRET)


@pytest.mark.parametrize("rounds", [1, 5, 8, 13, 64])
def test_prefixes_have_the_noise_of_as_many_nodes_as_their_number_has_ones(rounds):
    part, state, total = co.TreeGaussian(1.0, 2.0), None, 0.0
    zeros = {"x": np.zeros(20_000)}
    for number in range(rounds):
        c, state = got(part, zeros, replace(HERE, number=number), state=state)
        total = total + c.value["x"]
    nodes = bin(rounds).count("1")
    assert len(state["open"]) == nodes
    assert np.std(total) == pytest.approx(2.0 * math.sqrt(nodes), rel=0.03)


def test_a_node_keeps_the_attempt_that_opened_it():
    part, zeros = co.TreeGaussian(1.0, 2.0), {"x": np.zeros(5)}
    first, state = got(part, zeros, replace(HERE, number=0, attempt=2))
    second, _ = got(part, zeros, replace(HERE, number=1), state=state)
    alone = got(part, zeros, replace(HERE, number=1))[0]
    assert np.allclose(second.value["x"] + first.value["x"], alone.value["x"])


def test_a_site_takes_part_no_more_often_than_agreed():
    part, local = co.TreeGaussian(1.0, 1.0, participations=2), {}
    c, zeros = co.Contribution("delta", VALUE), co.Contribution("delta", {"a": np.zeros(2)}, 0.0)
    for _ in range(2):
        _, local = part.encode(c, None, local, HERE, SECRET)
    assert part.encode(zeros, None, local, HERE, SECRET)[1] == local
    with pytest.raises(co.ContributionError, match="2 times"):
        part.encode(c, None, local, HERE, SECRET)
    with pytest.raises(co.TooFewParticipants, match="times at most"):
        fed(part, quorum=1.0, retries=0).run(rounds=3)
    assert fed(part).run(rounds=2).ledger.rounds == 2


@pytest.mark.parametrize("size", [1, 2, 64, 1024])
def test_a_rotation_keeps_norms_and_is_its_own_inverse(size):
    x = RNG.normal(size=size)
    once = _hadamard(x.copy())
    assert np.linalg.norm(once) == pytest.approx(np.linalg.norm(x))
    assert np.allclose(_hadamard(once.copy()), x)
    signs = np.array([[(-1) ** (i & j).bit_count() for i in range(size)] for j in range(size)]) if size < 100 else None
    assert signs is None or np.allclose(once, signs @ x / math.sqrt(size))


@pytest.mark.parametrize("rotate", [False, True])
def test_integers_give_back_the_sum_and_rounding_has_no_bias(rotate):
    part = co.DiscreteGaussian(10.0, 0.0, drops=0.0, rotate=rotate)
    c = sent(part)
    names = sorted(c.value)
    assert names == (["rest", "rotated"] if rotate else ["a", "b"])
    back = part.decode(c, None, HERE, SECRET)[0].value
    assert all(np.allclose(back[k], VALUE[k], atol=1e-6) for k in VALUE)
    coarse, here = co.DiscreteGaussian(1.0, 0.0, drops=0.0, rotate=rotate), replace(HERE, asked=10**7, answered=10**7)
    value = {"x": np.full(4, 0.1)}
    many = [
        coarse.decode(sent(coarse, value, replace(here, number=i)), None, replace(here, number=i), SECRET)[0].value["x"]
        for i in range(4000)
    ]
    step = 1.0 / ((2**31 - 1) // 10**7)
    assert np.abs(np.mean(many, axis=0) - 0.1).max() < 4 * step / math.sqrt(4 * 4000)
    assert np.std(many, axis=0).max() > step / 100


@pytest.mark.parametrize(("size", "most"), [(1.0, 20.0), (19.0, 20.0), (20.0, 20.0), (7.0, 7.0), (9.0, 7.0)])
def test_rounding_is_repeated_until_it_keeps_the_norm(size, most):
    """Where steps are few a rounded vector would sometimes be longer: of norm 7 one in thirty."""
    x, stream = np.full(100, size / 10), SECRET.stream("rounding")
    found = [_rounded(x, most, stream) for _ in range(400)]
    assert max(float(np.linalg.norm(r)) for r in found) <= most
    assert len({r.tobytes() for r in found}) > 300
    shortened = min(1.0, _shortened(most, 100) / size)
    assert np.mean(found) == pytest.approx(size / 10 * shortened, rel=0.03)


def test_more_drop_outs_than_the_noise_is_for_release_nothing():
    part = co.DiscreteGaussian(1.0, 1.0, drops=0.25)
    words = {"x": np.zeros(3, np.int64)}
    assert part.decode(co.Contribution("d", words), None, replace(HERE, answered=3), SECRET)[0].weight == 3.0
    for answered in (0, 2):
        with pytest.raises(co.ChannelError, match=rf"3 of 4 must answer.*Got {answered}"):
            part.decode(co.Contribution("d", words), None, replace(HERE, answered=answered), SECRET)
    with pytest.raises(co.ChannelError):
        part.decode(co.Contribution("d", {"x": np.zeros(3)}, 0.0), None, co.Round("", 0, answered=0), SECRET)


def test_what_32_bits_cannot_hold_is_refused():
    for part, asked in ((co.DiscreteGaussian(1.0, 50.0), 10**8), (co.DiscreteGaussian(1.0, 0.0), 10**9)):
        with pytest.raises(co.ContributionError, match="32 bits must hold"):
            sent(part, {"x": np.ones(1000)}, replace(HERE, asked=asked))
    long, here = {"x": np.ones(2**16)}, replace(HERE, asked=3 * 10**7)
    with pytest.raises(co.ContributionError, match="rotate"):
        sent(co.DiscreteGaussian(1.0, 0.0), long, here)
    assert sent(co.DiscreteGaussian(1.0, 0.0, rotate=True), long, here).value["rotated"]["x"].dtype == np.int32


def test_a_rotation_gives_large_cohorts_more_steps():
    long, here = {"x": RNG.normal(size=2**14)}, replace(HERE, asked=10**5, answered=10**5)

    def off(part):
        return norm(part.decode(sent(part, long, here), None, here, SECRET)[0].value) - 1

    assert abs(off(co.DiscreteGaussian(1.0, 0.0, rotate=True))) < 1e-4


def test_labels_that_are_none_are_refused():
    part = co.RandomisedResponse(1.0, 3, labels=2)
    for value, said in (
        ({"votes": np.eye(3)}, "2 labels at most"),
        ({"votes": np.eye(4)}, "3 classes"),
        ({"votes": np.eye(3)[0]}, "votes"),
        ({"votes": np.eye(3), "more": np.ones(1)}, "votes"),
        ({"x": np.eye(3)}, "votes"),
        ({"votes": np.full((1, 3), np.nan)}, "NaN"),
        ("text", "votes"),
    ):
        with pytest.raises(co.ContributionError, match=said):
            sent(part, value)
    told = sent(part, {"proba": np.array([[0.0, 0.0, 0.0], [0.2, 0.5, 0.3]])}).value["proba"]
    assert told.sum(axis=1).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("channel", [co.Plain(), SecAgg()], ids=["Plain", "SecAgg"])
def test_a_clip_adapts_in_a_run_whatever_the_channel_reveals(channel):
    run = fed(co.Gaussian(10.0, 0.0, quantile=0.5), channel=channel).run(rounds=4)
    assert run.ledger.rounds == 4
    assert not run.ledger.refused
    clip = next(iter(run._states.values())).transforms[0]["clip"]
    assert clip == pytest.approx(10.0 * math.exp(-0.1 * 4))


@pytest.mark.parametrize("part", [co.Gaussian(0.2, 0.1), co.Gaussian(0.2, 0.1, quantile=0.3)], ids=["flat", "adaptive"])
def test_clipped_by_the_stack_or_one_by_one_all_is_the_same_to_the_bit(part):
    cohort = [co.Contribution("delta", {k: x * np.float32(s) for k, x in VALUE.items()}) for s in (0, 0.01, 1, 9)]
    cohort.append(replace(cohort[0], weight=0.0))
    names, public = [str(i) for i in range(5)], part.publish(part.init(), HERE)
    works = Works([None] * 5, cohort, [{}] * 5, Turns(HERE, names), [SECRET] * 5)
    found = part.encode_many(stacked(cohort), public, works)
    for (c, _), one in zip(found, cohort, strict=True):
        want = part.encode(one, public, {}, HERE, SECRET)[0]
        assert same({k: x.tobytes() for k, x in c.value.items()}, {k: x.tobytes() for k, x in want.value.items()})
        assert (c.weight, c.metrics) == (want.weight, {})


@pytest.mark.parametrize("rotate", [False, True])
def test_distributed_noise_learns_through_secure_aggregation(rotate):
    part = co.DiscreteGaussian(5.0, 0.0, drops=0.0, rotate=rotate)
    run, plain = fed(part, channel=SecAgg(threshold=1.0)).run(rounds=2), fed(co.Gaussian(5.0, 0.0)).run(rounds=2)
    assert all(np.allclose(run.shared[k], plain.shared[k], atol=1e-5) for k in plain.shared)
    noisy = fed(co.DiscreteGaussian(1.0, 0.5), channel=SecAgg(threshold=0.9)).run(rounds=2)
    assert [e.facts["mechanism"] for e in noisy.ledger if e.kind == "spend"] == ["discrete-gaussian"] * 2


def test_votes_are_counted_through_noise():
    tasks = 60
    truth = RNG.integers(0, 3, tasks)
    secret, total = co.testing.fixed_secret(), np.zeros((tasks, 3))
    part, vote, here = co.RandomisedResponse(2.0, 3, labels=tasks), co.Vote(), replace(HERE, answered=200)
    for i in range(200):
        c = vote.lift(co.Contribution("label", {"votes": np.eye(3)[truth]}, 5.0))
        total += part.encode(c, None, {}, here, secret.side(str(i)))[0].value["votes"]
    back, _ = part.decode(co.Contribution("label", {"votes": total}), None, here, None)
    assert np.array_equal(vote.lower(back, None, here)[0].value["label"], truth)
    assert back.value["votes"].max(axis=1).mean() == pytest.approx(200, rel=0.02)
