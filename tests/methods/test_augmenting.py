"""Examples that a participant changes at random before it fits: keyed, as many steps, counted once."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.wire import encode_tree

RNG = np.random.default_rng(3)
ROWS = {"p0": (RNG.normal(size=(12, 20)).astype("float32"), RNG.integers(0, 3, 12))}
MLP = co.MLP(20, 3, hidden=(30,), rate=0.1, batch=4, momentum=0.9, decay=0.01)


class TestAugmented:
    SEEN: ClassVar[list] = []

    @staticmethod
    def noisy(x, rng):
        TestAugmented.SEEN.append(x.shape)
        return x + rng.normal(0, 0.1, x.shape).astype(x.dtype)

    def reply(self, turn, **more):
        model = more.pop("model", MLP)
        who = co.SharedTicketTrainer(model, ROWS["p0"], augment=self.noisy, **more)
        ticket = co.Tickets(model, 4).init(co.Round("", 0))["params"]
        return who.contribute(Contribution("model", ticket), {}, turn, None)[0]

    def test_it_is_keyed_by_seed_round_and_name(self):
        one = co.Round("", 0, number=1, me="p0")
        same, again = (encode_tree(self.reply(one).value) for _ in range(2))
        assert same == again
        for turn in (replace(one, number=2), replace(one, seed=1), one.to("p1")):
            assert encode_tree(self.reply(turn).value) != same

    @pytest.mark.parametrize(("epochs", "copies"), [(None, 2), (3, 3), (1, 1), (0.5, 1), (2.5, 3)])
    def test_a_copy_for_each_epoch_and_as_many_steps(self, epochs, copies):
        self.SEEN.clear()
        c = self.reply(co.Round("", 0, me="p0"), epochs=epochs, model=replace(MLP, epochs=2))
        assert [(12, 20)] * copies == self.SEEN
        assert c.weight == 12.0, "examples, not copies"
        assert c.metrics["train_loss"][1] == 12 * (2 if epochs is None else epochs)

    def test_without_epochs_nothing_moves(self):
        c = self.reply(co.Round("", 0, me="p0"), epochs=0)
        assert not any(v.any() for v in c.value["values"].values())

    def test_as_many_rows(self):
        who = co.SharedTicketTrainer(MLP, ROWS["p0"], augment=lambda x, rng: x[1:])
        shared = Contribution("model", co.Tickets(MLP, 4).init(co.Round("", 0))["params"])
        with pytest.raises(co.ConfigError, match="as many rows"):
            who.contribute(shared, {}, co.Round("", 0, me="p0"), None)
