"""Every public part is held to the laws of `comity.testing` by a test of its own room, which this table names."""

import ast
import importlib
import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
public = importlib.import_module("public_parts")
TESTS = Path(__file__).parents[1]

PROVED = {
    "equivalence/test_fedavg.py::test_the_laws_of_methods_hold": ("FedAvg", "Trainer"),
    "equivalence/test_region.py::test_the_laws_of_methods_hold": ("Region",),
    "methods/test_fedprox.py::test_the_laws_of_methods_hold": ("FedProx",),
    "methods/test_fedsgd.py::test_the_laws_of_methods_hold": ("FedSGD", "GradientTrainer"),
    "methods/test_ditto.py::test_the_laws_of_methods_hold": ("Ditto",),
    "methods/test_federated.py::test_the_laws_of_methods_hold": (
        *("Scaffold", "ScaffoldTrainer", "FedDyn", "FedDynTrainer", "QFedAvg", "QFedAvgTrainer", "FedRep"),
        *("FedRepTrainer", "APFL", "IFCA", "IFCATrainer", "FedProto", "FedProtoTrainer"),
    ),
    "methods/test_ensemble.py::test_the_laws_of_methods_hold": ("Query", "Predictor"),
    "methods/test_distill.py::test_the_laws_of_methods_hold": ("Distill",),
    "methods/test_feddf.py::test_it_keeps_the_laws_of_methods": ("FedDF",),
    "methods/test_fedmd.py::test_the_laws_of_methods_hold": ("FedMD", "FedMDTrainer"),
    "methods/test_labelling.py::test_the_laws_hold": ("Labelling", "Annotator", "ReputationVote"),
    "methods/test_samples.py::test_the_laws_hold": ("Samples", "Contributor"),
    "methods/test_relay.py::test_the_laws_hold": ("Relay", "Agent"),
    "methods/test_experience.py::test_the_laws_hold": ("Pool", "Player"),
    "methods/test_experience.py::test_an_arena_obeys_the_laws_and_gives_what_a_pool_expects": ("Arena",),
    "methods/test_boosting.py::test_the_laws_of_methods": ("Boosting", "BoostingTrainer"),
    "methods/test_ridge.py::test_the_laws_of_methods": ("Ridge", "RidgeTrainer"),
    "laws/test_combine.py::test_the_laws_hold": ("Mean", "Median", "Vote", "Collect"),
    "laws/test_ensemble.py::test_the_laws_of_combiners_hold": ("Average", "LogPool", "ProductPool"),
    "laws/test_robust.py::test_the_laws_hold": ("TrimmedMean", "Krum", "GeometricMedian"),
    "laws/test_robust_more.py::test_the_laws_hold": ("MultiKrum", "Bulyan", "CenteredClipping", "ReputationMean"),
    "loop/test_topology.py::test_metropolis_obeys_the_laws_and_hears_neighbours_only": ("Metropolis",),
    "laws/test_once.py::test_the_laws_of_transforms_hold": ("Once",),
    "laws/test_parts_channels.py::test_the_laws_hold": ("Plain",),
    "equivalence/test_engines.py::test_the_laws_of_engines_hold": ("Local",),
    "engines/test_simulated.py::test_the_laws_of_engines_hold": ("Simulated",),
    "engines/test_ray.py::test_the_laws_of_engines": ("Ray",),
    "laws/test_sparse.py::test_the_laws_of_transforms_hold": ("Sparse",),
    "laws/test_compress.py::test_the_laws_of_transforms_hold": ("Quantize", "Half", "QSGD", "Deflate", "TopK"),
    "methods/test_fedbn.py::test_the_laws_of_methods_hold": ("FedBN", "FedBNTrainer"),
    "methods/test_fedltn.py::test_the_laws_of_methods_hold": ("FedLTN", "TicketTrainer"),
    "methods/test_lotteryfl.py::test_the_laws_of_methods_hold": ("LotteryFL", "LotteryTrainer"),
    "methods/test_tickets.py::test_the_laws_of_methods_hold": ("Tickets", "SharedTicketTrainer"),
    "methods/test_own_tickets.py::test_the_laws_of_methods_hold": ("PersonalTickets", "PersonalTicketTrainer"),
    "laws/test_fixedpoint.py::test_the_laws_of_transforms_hold": ("FixedPoint",),
    "methods/test_pseudo.py::test_the_laws_of_methods_hold": ("PseudoLabels",),
    "channels/test_secagg.py::test_the_laws_hold": ("SecAgg",),
    "channels/test_twoserver.py::test_the_laws_hold": ("TwoServer",),
    "channels/test_ckks.py::test_the_laws_hold": ("CKKS",),
    "laws/test_private.py::test_the_laws_of_transforms_hold": (
        *("Gaussian", "DiscreteGaussian", "TreeGaussian", "Laplace", "RandomisedResponse"),
    ),
    "methods/test_private.py::test_the_laws_of_methods_hold": ("PrivateTrainer",),
    "service/test_network.py::test_the_hub_gives_what_one_process_gives": ("Network",),
    "methods/test_tuning.py::test_the_laws_of_methods_hold": ("Tuned",),
}


ACROSS = {"Network"}
"""Its sites are processes of others, whom `check_engine` cannot make: it is compared with `Local` to the bit."""


def test_every_public_part_has_one_row():
    named = [name for names in PROVED.values() for name in names]
    assert sorted(named) == sorted(public.public_parts())


@cache
def parsed(file):
    return ast.parse((TESTS / file).read_text())


def words(tree, owner="co"):
    """What is taken from `co` in a piece of code."""
    named = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == owner)
    return {n.attr for n in named}


@pytest.mark.parametrize("test", PROVED)
def test_the_test_that_is_named_checks_the_laws_of_what_it_is_named_for(test):
    file, name = test.split("::")
    module = parsed(file)
    (body,) = [n for n in module.body if isinstance(n, ast.FunctionDef) and n.name == name]
    roles = {public.public_parts()[part] for part in PROVED[test] if part not in ACROSS}
    assert {public.CHECKS[role] for role in roles} <= words(body, "co.testing")
    assert set(PROVED[test]) <= words(module)


def test_parts_are_told_by_what_they_can_do():
    found = public.public_parts()
    assert {found[n] for n in ("FedAvg", "Trainer", "Mean", "Once", "Plain", "Local")} == set(public.ROLES)
    assert not {"Linear", "DawidSkene", "Collaboration", "Adam", "Round"} & set(found)
