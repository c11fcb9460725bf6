"""What a run would ask of a party, in its own words."""

import importlib
import sys
from pathlib import Path
from typing import Any

import comity as co
from comity.service.inspecting import inspected
from comity.service.offers import Offer

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("actors")


def offer(fed: Any, **more: Any) -> Offer:
    return Offer("r1", "Readmission", co.recipe(fed), minimum=3, **more)


def text(shown: Any) -> str:
    return "\n".join(f"{label:<11}{said}" for label, said in shown.lines)


def test_what_leaves_is_said():
    fed = made.masked()
    shown = inspected(offer(fed), fed, made.trainer("ada"), name="ada", rounds=5)
    said = text(shown)
    assert shown.differences == ()
    assert shown.hash == co.recipe(fed)["hash"] in said
    for word in ("Readmission", "delta of FedAvg(", "8 numbers", "no party's own (SecAgg", "begins when 3 have agreed"):
        assert word in said, said
    assert "comity.methods.fedavg.Trainer; they stay here" in said
    assert "12 examples, inputs of shape (3,)" in said
    assert "scores     none are asked for" in said
    assert "no noise is added" in said


def test_epsilon_of_a_round_and_of_all():
    person = co.PrivateTrainer(made.MODEL, made.DATA["ada"], clip=1.0, noise=2.0, rate=0.5)
    fed = co.Collaboration(co.FedAvg(made.MODEL))
    said = text(inspected(offer(fed), fed, person, name="ada", rounds=10))
    for rounds in (1, 10):
        spend = co.Spend("gaussian", 2.0, 0.5, rounds * person.steps, "example", "poisson", "ada")
        assert str(co.spent(spend, 1e-5)[0]) in said
    assert "10 rounds: ε" in said


def test_noise_at_the_hub_is_said_to_be():
    fed = co.Collaboration(
        co.FedAvg(made.MODEL), combine=co.Mean(public=True), transforms=[co.Gaussian(clip=1.0, noise=1.0)]
    )
    said = text(inspected(offer(fed), fed, made.trainer("ada"), name="ada"))
    assert "noise added at the hub" in said
    assert "a round: ε" in said


def test_a_difference_is_shown():
    shown = inspected(offer(made.fedavg().replace(seed=9)), made.fedavg(), None, name="ada")
    assert shown.differences == ("parts.seed: 3 → 9",)
    assert "ANOTHER than this copy" in text(shown)
    lied = Offer("r1", recipe={**co.recipe(made.fedavg()), "hash": "ab" * 32})
    assert "hash" in inspected(lied, made.fedavg(), None, name="ada").differences[0]


def test_without_a_copy_it_is_the_hubs_word():
    said = text(inspected(offer(made.fedavg(), about={"who": "a consortium"}), None, None, name="ada"))
    assert "as the hub says; no copy was compared" in said
    assert "who: a consortium" in said
    assert "comity.methods.fedavg.FedAvg" in said
