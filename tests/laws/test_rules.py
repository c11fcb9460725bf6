"""Every refusal, by parts that only say what they are."""

from types import SimpleNamespace

import pytest

import comity as co
from comity.core.errors import ConfigError
from comity.core.rules import RULES, Parts, check, refusals


def part(name, **said):
    return type(name, (), said)()


METHOD = SimpleNamespace(send="model")
SUM, GROUPS, EACH = (part(n, needs=v) for n, v in (("Mean", "sum"), ("Median", "groups"), ("Collect", "each")))
PUBLIC = part("Mean", needs="sum", denominator="expected")
BY_WEIGHT = part("Mean", needs="sum", denominator="weight")
OPEN, BLIND = part("Plain", reveals="each"), part("SecAgg", reveals="sum")
CLEAR = part("Plain", reveals="each", transparent=True)
IN_GROUPS = part("SecAgg", reveals="groups")
RING = part("SecAgg", reveals="sum", ring=True)
NOISE = part("Gaussian", decodes="sum", contracts=False, bounds=lambda s: s, spend=lambda r: None)
CLIP = part("Clip", decodes="sum", contracts=True, bounds=lambda s: s)
SPARSE = part("TopK", decodes="each", contracts=True)
FEEDBACK = part("TopK", decodes="each", contracts=False)
SHIFT = part("Shift", decodes="sum", contracts=False)
INTEGERS = part("FixedPoint", decodes="sum", contracts=True, integers=True)
SHARES = part("DiscreteGaussian", decodes="sum", contracts=False, integers=True, hides="sum", drops=0.1)
HUB, PEERS = part("Everyone"), part("Ring", peers=True)


def parts(combiner=SUM, channel=OPEN, *transforms, method=METHOD, select=HUB, **numbers):
    return Parts(method, combiner, transforms, channel, select, **numbers)


FINE = [
    parts(),
    parts(GROUPS),
    parts(EACH),
    parts(GROUPS, IN_GROUPS),
    parts(GROUPS, part("SecAgg", reveals="groups", ring=True), INTEGERS),
    parts(SUM, BLIND),
    parts(SUM, OPEN, CLIP, SPARSE),
    parts(PUBLIC, BLIND, NOISE),
    parts(PUBLIC, RING, NOISE, INTEGERS),
    parts(part("Mean", needs="sum", denominator="weight", cap=10.0), RING, INTEGERS),
    parts(PUBLIC, part("SecAgg", reveals="sum", ring=True, threshold=0.9), SHARES),
    parts(PUBLIC, part("TwoServer", reveals="sum", ring=True), SHARES, quorum=0.9),
    parts(BY_WEIGHT, OPEN, CLIP),
    parts(SUM, CLEAR, SPARSE, method=SimpleNamespace(send="delta", ages=True), late=3),
    parts(select=PEERS),
    parts(quorum=1, retries=0, deadline=0.5),
    parts(quorum=0.0),
]
DELTAS = part("FedAvg", send="delta")
WRONG = {
    "Collect needs each contribution; SecAgg reveals only their sum. Use combine=Mean(), or channel=Plain()": parts(
        EACH, BLIND
    ),
    "Collect needs each contribution; SecAgg reveals sums of groups. Use combine=Mean()": parts(EACH, IN_GROUPS),
    "Median needs each contribution; SecAgg reveals only their sum. Use SecAgg(groups=8): Median then sees": parts(
        GROUPS, BLIND
    ),
    "TopK is decoded one by one; SecAgg reveals only the sum.": parts(SUM, BLIND, SPARSE),
    "TopK is decoded one by one; SecAgg": parts(GROUPS, IN_GROUPS, SPARSE),
    "Gaussian acts on the sum; Median makes no sum. Use combine=Mean().": parts(GROUPS, OPEN, NOISE),
    "TopK is decoded one by one, Clip on the sum. Put Clip first.": parts(SUM, OPEN, SPARSE, CLIP),
    "TopK may raise the norm after Clip has bounded it. Leave TopK out, or use one that": parts(
        SUM, OPEN, CLIP, FEEDBACK
    ),
    "Shift may raise the norm after Clip has bounded it. Put Clip after Shift, or use a Shift that": parts(
        SUM, OPEN, CLIP, SHIFT
    ),
    "SecAgg adds integers in a ring. Put FixedPoint(bound=...) last among the transforms.": parts(SUM, RING),
    "SecAgg adds integers in a ring.": parts(SUM, RING, INTEGERS, CLIP),
    "SecAgg adds in a ring: a weight without a cap could overflow it. Use Mean(uniform=True), or Mean(cap=...).": parts(
        BY_WEIGHT, RING, INTEGERS
    ),
    "SecAgg adds in a ring of one cohort; here each peer is a hub. Use channel=Plain().": parts(
        PUBLIC, RING, INTEGERS, select=PEERS
    ),
    "FixedPoint makes integers for a ring; Plain is none. Leave it out, or use SecAgg().": parts(SUM, OPEN, INTEGERS),
    "FixedPoint makes integers, and nothing may change them any more. Put it after Clip.": parts(
        PUBLIC, RING, INTEGERS, CLIP, INTEGERS
    ),
    "DiscreteGaussian puts a share of the noise into each; a group has too little. Use one sum of all.": parts(
        PUBLIC, part("SecAgg", reveals="groups", ring=True), SHARES
    ),
    "DiscreteGaussian has noise enough where at most 10% drop out; SecAgg opens a sum of 70%.": parts(
        PUBLIC, part("SecAgg", reveals="sum", ring=True, threshold=0.7), SHARES
    ),
    "DiscreteGaussian has noise enough where at most 10% drop out; TwoServer opens a sum of the quorum, 50%.": parts(
        PUBLIC, part("TwoServer", reveals="sum", ring=True), SHARES
    ),
    "Gaussian noises one sum; here each peer is a hub": parts(PUBLIC, OPEN, NOISE, select=PEERS),
    "Gaussian with weights by data size: the total weight would be private. Use Mean(public=True).": parts(
        BY_WEIGHT, OPEN, NOISE
    ),
    'FedAvg sends deltas; peers mix whole models. Use FedAvg(..., send="model").': parts(method=DELTAS, select=PEERS),
    "The 'quorum' must be a share from 0 to 1. Got 1.5.": parts(quorum=1.5),
    "The 'quorum' must be a share from 0 to 1. Got -0.1.": parts(quorum=-0.1),
    "The 'quorum' must be a share from 0 to 1. Got nan.": parts(quorum=float("nan")),
    "The 'quorum' must be a share from 0 to 1. Got 'most'.": parts(quorum="most"),
    "The 'retries' must be an int >= 0. Got -1.": parts(retries=-1),
    "The 'retries' must be an int >= 0. Got 1.5.": parts(retries=1.5),
    "The 'deadline' must be seconds > 0, or None to wait for everybody. Got 0.": parts(deadline=0),
    "The 'deadline' must be seconds > 0, or None to wait for everybody. Got 'soon'.": parts(deadline="soon"),
    "SecAgg seals for one cohort; what comes after the others can be in no sum of theirs.": parts(SUM, BLIND, late=3),
    "Clip acts on the sum of one round; a late answer belongs to another.": parts(SUM, CLEAR, CLIP, late=3),
    "Ring needs everybody's answer before it goes on: nobody may be late.": parts(SUM, CLEAR, select=PEERS, late=3),
    "SimpleNamespace takes no change that could be added to a later state.": parts(SUM, CLEAR, late=3),
}


@pytest.mark.parametrize("given", FINE, ids=range(len(FINE)))
def test_what_fits_passes(given):
    assert list(refusals(given)) == []
    check(given)


@pytest.mark.parametrize("said", WRONG)
def test_what_does_not_fit_is_refused_in_words(said):
    with pytest.raises(ConfigError) as e:
        check(WRONG[said])
    assert said in str(e.value)


ORDERS = [(a, b) for a in ("sum", "each") for b in ("sum", "each")]


@pytest.mark.parametrize(("bound", "after"), ORDERS)
@pytest.mark.parametrize("more", [(), (SPARSE,)], ids=["alone", "before a sparse one"])
def test_an_order_that_is_advised_for_a_bound_is_not_refused(bound, after, more):
    clip = part("Clip", decodes=bound, contracts=True, bounds=lambda s: s)
    raising = part("Feedback", decodes=after, contracts=False)
    said = [s for s in refusals(parts(SUM, OPEN, clip, raising, *more)) if "may raise the norm" in s]
    assert len(said) == 1
    if "Put Clip after Feedback" in said[0]:
        check(parts(SUM, OPEN, raising, clip, *more))
    else:
        assert "Leave Feedback out" in said[0]
        check(parts(SUM, OPEN, clip, *more))
        check(parts(SUM, OPEN, clip, part("Feedback", decodes=after, contracts=True), *more))
        with pytest.raises(ConfigError):
            check(parts(SUM, OPEN, raising, clip, *more))


def test_every_rule_is_broken_by_some_test():
    broken = {rule for given in WRONG.values() for rule in RULES if rule(given)}
    assert broken == set(RULES)


@pytest.mark.parametrize(("quorum", "asked", "need"), [(0.5, 3, 2), (0.5, 0, 0), (1.0, 7, 7), (0, 9, 0), (0.1, 1, 1)])
def test_the_quorum_is_rounded_up(quorum, asked, need):
    assert parts(quorum=quorum).needed(asked) == need


def test_a_collaboration_checks_its_parts_before_anything_moves():
    model = co.Linear(inputs=2, classes=2)
    with pytest.raises(ConfigError, match="'quorum'"):
        co.Collaboration(co.FedAvg(model), {}, quorum=2)
    fed = co.Collaboration(co.FedAvg(model), {})
    with pytest.raises(ConfigError, match=r"has no 'combiner'. Did you mean 'combine'"):
        fed.replace(combiner=co.Median())
    with pytest.raises(ConfigError, match="sends deltas"):
        fed.replace(select=PEERS)
    assert fed.replace(combine=co.Median()).parts.combiner == co.Median()
