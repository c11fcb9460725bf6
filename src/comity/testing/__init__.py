"""The laws that comity's own parts are held to, for the parts of others.

>>> import comity as co
>>> co.testing.check_combiner(co.Median())

Each check returns None, or raises AssertionError naming the part, the law and what was found.
"""

from comity.testing.channels import check_channel
from comity.testing.combiners import check_combiner
from comity.testing.engines import check_engine
from comity.testing.journals import check_journal
from comity.testing.linkproxy import LinkProxy
from comity.testing.methods import check_method
from comity.testing.secret import FixedSecret, fixed_secret
from comity.testing.transforms import check_transform

__all__ = [
    "FixedSecret",
    "LinkProxy",
    "check_channel",
    "check_combiner",
    "check_engine",
    "check_journal",
    "check_method",
    "check_transform",
    "fixed_secret",
]
