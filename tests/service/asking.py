"""A hub that asks: its answers as they come, and the line of each party; what the tests of a hostile world share."""

import importlib
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.parts import Until
from comity.core.round import Round
from comity.core.wire import encode
from comity.service import client, packets

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("actors")

RECIPE = "ab" * 32
BASE = Round("run", 0, roster=3, asked=3, expected=3.0)


@dataclass
class Asked:
    """A hub that asks, in one run; its answers as they come, and the line of each party."""

    engine: Any
    url: str
    answers: list[Envelope]
    thread: threading.Thread | None = None
    lines: list[client.Client] = field(default_factory=list)

    def ask(self, *cohort: str, number: int = 0, seconds: float | None = 20.0, value: Any = None) -> None:
        body = Contribution("question", {"x": np.arange(3.0) if value is None else value})

        def message(to: str) -> Envelope:
            return Envelope(replace(BASE, number=number).to(to), "contribute", "hub", RECIPE, body)

        def run() -> None:
            self.answers.extend(self.engine.ask(cohort, message, Until(1, seconds)))

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def wait(self) -> list[str]:
        assert self.thread is not None
        self.thread.join(30)
        assert not self.thread.is_alive()
        return [answer.sender for answer in self.answers]

    def line(self, name: str, secret: Any = None) -> client.Client:
        one = client.Client(self.url, name, secret or made.secret(name), pause=0.2, silence=5.0)
        self.lines.append(one)
        return one

    def poll(self, name: str) -> packets.Packet:
        ends = time.monotonic() + 10.0
        while time.monotonic() < ends:
            if (got := self.line(name).ask("GET", "/v1/tasks?run=run&wait=1")).status == 200:
                return packets.read(got.body)
        raise AssertionError("nothing was asked")

    def say(self, name: str, asked: packets.Packet, value: Any = "yes", **changes: Any) -> client.Answer:
        """An answer, as a site says it."""
        body = encode(Contribution("said", {"x": value}))
        said = Envelope(asked.said.round, asked.said.phase, name, asked.said.recipe, Contribution("said", None))
        head, ref = packets.header(replace(said, **changes), body, asked=asked.ref.sha)
        return self.line(name).ask("POST", "/v1/reply", packets.joined(head, ref, body))


@contextmanager
def asking(folder: Path) -> Iterator[Asked]:
    """It ends as if it were killed: nothing is counted."""
    urls: list[str] = []
    engine: Any = made.network(folder, tell=urls.append, most=2**23, linger=0.0).connect([], None)
    engine.begin(BASE, {"hash": RECIPE})
    asked = Asked(engine, urls[0], [])
    try:
        yield asked
    finally:
        if asked.thread is not None:
            asked.thread.join(30)
        for one in asked.lines:
            one.close()
        engine.close()
