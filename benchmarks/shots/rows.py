"""The methods of the table, each through the public face: who does what, and how a client's own model is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import comity as co
from shots import net
from shots.figures import Line

SPARSE, PRUNED, LEAST = 0.06, 0.25, 0.5
WAYS = ("none", "recalibrate", "norms", "all")
ASKED = 6
FIRST, AHEAD, AMONG = 0.3, 12, 3
"""Jumpstart: which share of the clients trains first, for how many rounds, how many of them in each."""


@dataclass(frozen=True)
class Task:
    """What one training is given.

    Attributes:
        model: of the participants and of the hub.
        rounds: how many there will be.
    """

    model: Any
    rounds: int


@dataclass(frozen=True)
class Method:
    """How a method is put together.

    Attributes:
        hub: the method of a task.
        who: the participant of a task and a client.
        whole: a client's whole model, of its participant, of what it was sent and of its drawer.
        transforms: of what travels.
        select: who is asked in a round, of the names of all.
        augmented: images are changed at random in training.
        file: of what precision the numbers are in the file of a ticket; "": the model is dense, and float32.
        rounds: how many, as a share of those of the others.
        ways: last passes that are tried.
    """

    hub: Callable[[Task], Any]
    who: Callable[[Task, Any], Any]
    whole: Callable[[Any, Any, Any], Any] = lambda who, shared, local: shared
    transforms: Callable[[], Sequence[Any]] = list
    select: Callable[[Sequence[str]], Any] = lambda names: co.sample(min(ASKED, len(names)))
    augmented: bool = False
    file: str = ""
    rounds: float = 1.0
    ways: Sequence[str] = ("none",)


def trainer(task: Task, client: Any) -> Any:
    return co.Trainer(task.model, client.train, test=client.test, valid=client.valid)


def own(name: str) -> Callable[[Any, Any, Any], Any]:
    """What is kept under this name in the drawer, in the place of what was sent or of the first values."""

    def whole(who: Any, shared: Any, local: Any) -> Any:
        first = who.model.init(co.Round("", 0))
        return {**first, **shared, **local.get(name, {})}

    return whole


def ticket(kind: str, **settings: Any) -> Callable[[Task, Any], Any]:
    def who(task: Task, client: Any) -> Any:
        return getattr(co, kind)(task.model, client.train, valid=client.valid, test=client.test, **settings)

    return who


def personal(who: Any, shared: Any, local: Any) -> Any:
    return who.personal(shared, local)


def momentum(task: Task) -> Any:
    return co.FedAvg(task.model, optimizer=co.Momentum(beta=0.5))


def tickets(**settings: Any) -> Callable[[Task], Any]:
    def hub(task: Task) -> Any:
        long = task.rounds >= 100
        return co.Tickets(
            task.model, task.rounds, **{"by": 0.3 if long else 0.4, "ema": 0.9 if long else 0.8, **settings}
        )

    return hub


def shared_ticket(task: Task, client: Any) -> Any:
    return co.SharedTicketTrainer(task.model, client.train, valid=client.valid, test=client.test)


def received(who: Any, shared: Any, local: Any) -> Any:
    return who.received(shared)


def first(names: Sequence[str]) -> Sequence[str]:
    """Who trains first in a jumpstart."""
    return sorted(names)[: max(AMONG, round(FIRST * len(names)))]


def jumpstart(names: Sequence[str]) -> Any:
    return co.jumpstart(first(names), AHEAD, among=co.sample(AMONG), then=co.sample(min(ASKED, len(names))))


def small() -> list[Any]:
    return [co.Once(least=64), co.Quantize(up=4, down=8, block=256), co.Deflate()]


def lottery(task: Task) -> Any:
    return co.LotteryFL(task.model)


def sparse() -> list[Any]:
    return [co.Sparse(), co.Quantize(up=4, down=8, block=256), co.Deflate()]


def own_tickets(core: float) -> Callable[[Task], Any]:
    def hub(task: Task) -> Any:
        return co.PersonalTickets(task.model, task.rounds, core=core)

    return hub


def fedltn(**settings: Any) -> Callable[[Task], Any]:
    def hub(task: Task) -> Any:
        return co.FedLTN(task.model, **{"momentum": 0.5, **settings})

    return hub


SHARED = Method(tickets(), shared_ticket, received, small, augmented=True, file="int8", ways=WAYS[:3])
PERSONAL = replace(SHARED, hub=own_tickets(0.0), who=ticket("PersonalTicketTrainer"), whole=personal, transforms=sparse)
LTN = Method(
    fedltn(),
    ticket("TicketTrainer", keep=SPARSE, rate=PRUNED, threshold=LEAST),
    personal,
    lambda: [co.Sparse()],
    file="float32",
    ways=("none", "all"),
)
TWIN = Method(momentum, trainer, augmented=True, ways=WAYS[:3])
METHODS: Mapping[str, Method] = {
    "fedavg": Method(lambda t: co.FedAvg(t.model), trainer, ways=WAYS),
    "fedbn": Method(
        lambda t: co.FedBN(t.model),
        lambda t, c: co.FedBNTrainer(t.model, c.train, test=c.test, valid=c.valid),
        own("norms"),
        ways=WAYS,
    ),
    "fedrep": Method(
        lambda t: co.FedRep(t.model, head=("out",)),
        lambda t, c: co.FedRepTrainer(t.model, c.train, epochs=1, test=c.test, valid=c.valid),
        own("head"),
        ways=("none", "recalibrate", "all"),
    ),
    "ditto": Method(
        lambda t: co.FedAvg(t.model),
        lambda t, c: co.Ditto(t.model, c.train, test=c.test, valid=c.valid),
        own("personal"),
        ways=("none", "all"),
    ),
    "lotteryfl": Method(
        lottery,
        ticket("LotteryTrainer", keep=SPARSE, rate=PRUNED, threshold=LEAST),
        personal,
        lambda: [co.Sparse()],
        file="float32",
        ways=("none", "all"),
    ),
    "fedltn": LTN,
    "fedltn-no-test": replace(
        LTN, who=ticket("TicketTrainer", keep=SPARSE, rate=PRUNED, threshold=LEAST, tolerance=1.0)
    ),
    "fedltn-no-momentum": replace(LTN, hub=fedltn(momentum=0.0)),
    "fedltn-average": replace(LTN, hub=fedltn(norms="average")),
    "twin": TWIN,
    "twin-short": replace(TWIN, rounds=9 / 40),
    "twin-long": replace(TWIN, rounds=3),
    "twin-half": replace(TWIN, transforms=lambda: [co.Half(), co.Deflate()]),
    "twin-qsgd": replace(TWIN, transforms=lambda: [co.QSGD(levels=7), co.Deflate()]),
    "twin-topk": replace(TWIN, transforms=lambda: [co.TopK(0.05, feedback=False), co.Deflate()]),
    "twin-topk-feedback": replace(TWIN, transforms=lambda: [co.TopK(0.05), co.Deflate()]),
    "twin-small": Method(momentum, trainer, transforms=small, augmented=True, file="int8", ways=WAYS[:3]),
    "tickets-plain": Method(tickets(), shared_ticket, received, small, file="int8", ways=WAYS[:3]),
    "tickets": SHARED,
    "tickets-20": replace(SHARED, hub=tickets(density=0.12)),
    "tickets-40": replace(SHARED, hub=tickets(density=0.04)),
    "tickets-no-momentum": replace(SHARED, hub=tickets(momentum=0.0)),
    "tickets-no-average": replace(SHARED, hub=tickets(ema=0.0)),
    "tickets-float": replace(SHARED, hub=tickets(density=0.06), transforms=lambda: [co.Once(least=64)], file="float32"),
    "tickets-jumpstart": replace(SHARED, select=jumpstart, hub=tickets(by=0.6)),
    "tickets-long": replace(SHARED, rounds=3),
    "tickets-nodes": replace(SHARED, hub=tickets(density=0.15, prune="nodes")),
    "tickets-nodes-small": replace(SHARED, hub=tickets(density=0.08, prune="nodes")),
    "tickets-personal": PERSONAL,
    "tickets-core": replace(PERSONAL, hub=own_tickets(0.5)),
}
"""By the name that --only takes; "alone" and the races are beside them."""
RACES: Mapping[str, Sequence[str]] = {"tickets-auto": ("tickets", "tickets-personal", "tickets-core")}
"""Methods of which the best goes on to the end, by validation, once the masks have their density."""
UNTIL = 0.4
"""At which share of the rounds."""

LINES = (
    Line("each alone", "alone"),
    Line("FedAvg", "fedavg"),
    Line("FedAvg + one local pass", "fedavg", ("all",)),
    Line("FedAvg, best last pass", "fedavg", WAYS),
    Line("FedBN", "fedbn", ("none", "all")),
    Line("FedBN, best last pass", "fedbn", WAYS),
    Line("FedRep", "fedrep", ("none", "recalibrate", "all")),
    Line("Ditto", "ditto", ("none", "all")),
    Line("LotteryFL", "lotteryfl", ("none", "all")),
    Line("FedLTN", "fedltn", ("none", "all")),
    Line("FedLTN, cuts not tested again", "fedltn-no-test", ("none", "all")),
    Line("dense twin", "twin", WAYS[:3]),
    Line("FedLTN, no momentum", "fedltn-no-momentum", ("none", "all")),
    Line("FedLTN, BatchNorm averaged", "fedltn-average", ("none", "all")),
    Line("dense twin, bfloat16", "twin-half", WAYS[:3]),
    Line("dense twin, QSGD up", "twin-qsgd", WAYS[:3]),
    Line("dense twin, top 5 % up", "twin-topk", WAYS[:3]),
    Line("dense twin, top 5 % up, error feedback", "twin-topk-feedback", WAYS[:3]),
    Line("dense twin, quantised", "twin-small", WAYS[:3]),
    Line("dense twin, equal bytes", "twin-short", WAYS[:3]),
    Line("dense twin, 3x rounds", "twin-long", WAYS[:3]),
    Line("Tickets, no augmentation", "tickets-plain", WAYS[:3]),
    Line("Tickets", "tickets", WAYS[:3]),
    Line("Tickets, density 0.12", "tickets-20", WAYS[:3]),
    Line("Tickets, density 0.04", "tickets-40", WAYS[:3]),
    Line("Tickets, density 0.06, float32", "tickets-float", WAYS[:3]),
    Line("Tickets, no momentum", "tickets-no-momentum", WAYS[:3]),
    Line("Tickets, no average", "tickets-no-average", WAYS[:3]),
    Line("Tickets, jumpstart", "tickets-jumpstart", WAYS[:3]),
    Line("Tickets, 3x rounds", "tickets-long", WAYS[:3]),
    Line("Tickets, whole nodes, density 0.15", "tickets-nodes", WAYS[:3]),
    Line("Tickets, whole nodes, density 0.08", "tickets-nodes-small", WAYS[:3]),
    Line("Tickets, personal masks", "tickets-personal", WAYS[:3]),
    Line("Tickets, half a shared core", "tickets-core", WAYS[:3]),
    Line("Tickets, mask by validation", "tickets-auto", WAYS[:3]),
)
"""Rows of the table: several may read one training."""
HEADLINE = ("alone", "fedavg", "fedbn", "ditto", "lotteryfl", "fedltn", "twin", "tickets")
AGAINST = ("FedBN", "dense twin")
"""Rows that the others are compared with."""


def changes(name: str) -> Any:
    """How images of a split are changed in training, where a method does that."""
    return net.PHOTOS if name.endswith("CIFAR") else net.DIGITS
