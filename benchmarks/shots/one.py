"""One training: a method, a split and a seed; what each client ends with, and what travelled."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import comity as co
from comity.core.wire import encode_tree
from comity.deploy.ticket import Ticket
from comity.methods.tuning import finished
from shots import net
from shots.rows import ASKED, METHODS, RACES, UNTIL, Method, Task, changes, trainer


@dataclass(frozen=True)
class Seen:
    """A participant who notes, when it is asked for scores, what it was sent and what lies in its drawer."""

    inner: Any
    noted: dict[str, Any] = field(default_factory=dict, metadata={"data": True})

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> Any:
        if shared.kind == "score":
            self.noted.update(shared=shared.value, local=local)
        return self.inner.contribute(shared, local, round, secret)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


def trained(
    name: str, split: str, shape: Any, clients: Mapping[str, Any], seed: int, rounds: int, rate: float
) -> dict[str, Any]:
    """Run one method on one seed, its clients' learning rate as given.

    Returns:
        Bytes `up` and `down` of all rounds, as the ledger has them, CPU `seconds`, and `ways`: for each last pass
        tried the clients' accuracies on test and validation images, and the mean bytes of what each downloaded last
        (`sent`) and of its own model (`size`).
    """
    begun = time.process_time()
    if name == "alone":
        return alone(net.model(shape, seed, rate=rate), clients, seed, rounds) | {
            "seconds": time.process_time() - begun
        }
    some = [name] if name in METHODS else list(RACES[name])
    rounds = max(1, round(METHODS[some[0]].rounds * rounds))
    feds = {n: collaboration(METHODS[n], split, shape, clients, seed, rounds, rate) for n in some}
    if len(some) == 1:
        run, best, more = feds[name].run(rounds=rounds), name, (0, 0)
    else:
        race = co.race(feds, rounds, after=round(UNTIL * rounds))
        run, best = race.run, race.winner
        more = race.bytes_up - run.ledger.bytes_up, race.bytes_down - run.ledger.bytes_down
    lost = [*run.ledger.refused, *run.ledger.dropped]
    assert not lost, lost
    how, fed = METHODS[best], feds[best]
    ways = {way: tried(way, how, fed.method.model, fed.participants, clients, seed, rounds) for way in how.ways}
    facts = {"up": sent(run, "up") + more[0], "down": sent(run, "down") + more[1], "winner": best, "rounds": rounds}
    return {**facts, "dense": dense(fed.method.model), "ways": ways, "seconds": time.process_time() - begun}


def collaboration(
    how: Method, split: str, shape: Any, clients: Mapping[str, Any], seed: int, rounds: int, rate: float
) -> Any:
    """A method put together for these clients."""
    task = Task(net.model(shape, seed, changes=changes(split) if how.augmented else None, rate=rate), rounds)
    people = {n: Seen(how.who(task, c)) for n, c in clients.items()}
    select = how.select(list(people))
    return co.Collaboration(how.hub(task), people, transforms=how.transforms(), select=select, seed=seed)


def sent(run: Any, way: str) -> int:
    """Bytes of all rounds, of failed attempts too. Scores at the end carry the last download, counted elsewhere."""
    return int(sum(np.sum(entry.facts[way]) for entry in run.ledger if entry.kind == "round"))


def alone(model: Any, clients: Mapping[str, Any], seed: int, rounds: int) -> dict[str, Any]:
    """Each a collaboration of one, for as many epochs as it would have trained among the others; nothing travels."""
    mine = max(1, round(rounds * min(ASKED, len(clients)) / len(clients)))
    found: dict[str, Any] = {"test": [], "valid": [], "size": dense(model), "sent": 0}
    for name, client in clients.items():
        fed = co.Collaboration(co.FedAvg(model), {name: trainer(Task(model, mine), client)}, seed=seed)
        metrics = fed.run(rounds=mine).metrics
        found["test"].append(metrics["accuracy"])
        found["valid"].append(metrics["valid_accuracy"])
    return {"up": 0, "down": 0, "dense": dense(model), "rounds": mine, "ways": {"none": found}}


def tried(
    way: str, how: Method, model: Any, people: Mapping[str, Seen], clients: Mapping[str, Any], seed: int, rounds: int
) -> dict[str, Any]:
    """What the clients' own models give after one last pass; of tickets, as they come out of their file."""
    found: dict[str, Any] = {"test": [], "valid": [], "size": 0.0, "sent": 0.0}
    for name, client in clients.items():
        noted = people[name].noted
        params, size = filed(how.whole(people[name].inner, noted["shared"], noted["local"]), how.file)
        found["sent"] += size / len(clients)
        params = last(way, model, params, client.train, co.Round("last", seed, number=rounds, me=name))
        params, size = filed(params, how.file)
        found["size"] += size / len(clients)
        for part in ("test", "valid"):
            x, y = getattr(client, part)
            found[part].append(float(np.mean(model.predict(params, x).argmax(1) == y)))
    return found


def last(way: str, model: Any, params: Any, data: Any, round: Any) -> Any:
    """What a client does with its model at the end. A weight that was pruned stays so."""
    if way == "all":
        held = {n: np.asarray(v) != 0 for n, v in params.items() if np.ndim(v) >= 2}
        return model.fit(params, data, round, co.Step(mask=held))[0]
    return finished(model, params, data, way, round)


def filed(params: Any, values: str) -> tuple[Any, float]:
    """The parameters as they come out of a file, and its bytes; dense ones (values "") are what a message would be."""
    if not values:
        return params, len(encode_tree(params))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ticket"
        size = Ticket.of(params).save(path, values)
        return dict(Ticket.load(path).params), size


def dense(model: Any) -> int:
    """Bytes of all parameters and statistics as float32."""
    return len(encode_tree(model.init(co.Round("", 0))))
