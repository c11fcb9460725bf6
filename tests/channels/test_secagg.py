"""SecAgg is a lawful channel, and refuses settings that cannot hold."""

import pytest
from cohorts import Cohort, numbers

import comity as co
from comity.core.errors import ConfigError, TooFewParticipants
from comity.core.recipe import describe


@pytest.mark.parametrize(
    ("channel", "least"),
    [
        (co.SecAgg(), None),
        pytest.param(co.SecAgg(malicious=False, threshold=0.6, minimum=2), None, marks=pytest.mark.slow),
        pytest.param(co.SecAgg(groups=2, minimum=2), 2, marks=pytest.mark.slow),
    ],
)
def test_the_laws_hold(channel, least):
    co.testing.check_channel(channel, least=least)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"threshold": 0.5}, r"above \(1 \+ corrupt\) / 2 = 0.55, so that no hub.*Got 0.5. Use threshold=0.7"),
        ({"threshold": 0.1, "malicious": False}, "above corrupt = 0.1"),
        ({"threshold": 0.7, "corrupt": 0.5}, "above .* = 0.75"),
        ({"threshold": 1.1}, "threshold"),
        ({"groups": 2}, "at least its minimum of 3. Got 2. Use groups=3"),
        ({"groups": 1}, "groups=None"),
        ({"minimum": 1}, "minimum"),
        ({"degree": 5}, "must be even. Got 5. Use degree=6"),
        ({"identities": {"a": b"short"}}, "32 bytes for each name.*public_key"),
        ({"identities": {"a": "zz" * 32}}, "32 bytes for each name"),
        ({"identities": ["a"]}, "mapping of names"),
    ],
)
def test_settings_that_cannot_hold(settings, says):
    with pytest.raises(ConfigError, match=says):
        co.SecAgg(**settings)


def test_a_cohort_that_is_too_small_says_what_to_do():
    with pytest.raises(TooFewParticipants, match=r"At least 9 participants must make keys known. Got 8 of 8. Ask more"):
        Cohort(co.SecAgg(minimum=9), [*numbers(8)]).through()


def test_a_recipe_shows_settings_and_no_key():
    key = bytes(range(32))
    shown = describe(co.SecAgg(identities={"a": key}))
    assert shown["threshold"] == 0.7
    assert key.hex() not in str(shown)
    assert co.SecAgg(identities={"a": key}) == co.SecAgg(identities={"a": key.hex()})
