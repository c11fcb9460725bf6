"""A helper that runs somewhere else, asked over HTTP."""

import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NoReturn

import numpy as np

from comity.channels.layout import WORD
from comity.core.contribution import Array, Contribution
from comity.core.errors import ChannelError, ConfigError, TooFewParticipants
from comity.core.wire import encode

TRIES, PAUSE, _SHORT = 3, 1.0, 2**16


@dataclass(frozen=True, slots=True)
class Remote:
    """A helper behind a URL.

    Attributes:
        url: such as "https://helper.example".
        seconds: how long to wait for an answer, or for a part of it.
    """

    url: str
    seconds: float

    def public_key(self) -> bytes:
        """Its key.

        Raises:
            ChannelError: it is down, or no helper.
        """
        given = self._asked("GET", "/key", None, _whole, 1)
        try:
            return bytes.fromhex(json.loads(given)["key"])
        except (ValueError, KeyError, TypeError):
            self._refuse("It answers, but is no helper")

    def masks(self, question: Contribution) -> Array:
        """The sum of the masks of those who are listed: the same again when it is asked the same again.

        Raises:
            ChannelError: it is down, or refuses, and why.
        """
        value: Any = question.value
        words = np.empty(value["size"], WORD)
        if self._asked("POST", "/masks", encode(question), partial(_into, words), TRIES) != words.nbytes:
            self._refuse("It sent a vector of another length")
        return words

    def _asked(self, verb: str, path: str, body: bytes | None, take: Callable[[Any], Any], tries: int) -> Any:
        """What is taken of its answer. It may be asked again: it answers once only."""
        httpx, trust = library(), _trusted() if self.url.startswith("https:") else False
        where, more = self.url.rstrip("/") + path, {"timeout": self.seconds, "verify": trust}
        for left in reversed(range(tries)):
            try:
                with httpx.stream(verb, where, content=body, **more) as given:
                    if given.status_code == 200:
                        return take(given)
                    status, said = given.status_code, _whole(given)
                break
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if not left:
                    self._refuse(f"It is not: {type(error).__name__}")
                time.sleep(PAUSE)
        try:
            told = json.loads(said)
            kind, reason = told["kind"], str(told["reason"])
        except (ValueError, KeyError, TypeError):
            self._refuse(f"It answered with status {status}")
        raise (TooFewParticipants if kind == "TooFewParticipants" else ChannelError)(reason)

    def _refuse(self, got: str) -> NoReturn:
        raise ChannelError(
            f"The helper at {self.url} must be there. {got}. Start it with comity helper, or correct the URL; "
            "then run the same again."
        )


def _whole(given: Any) -> bytes:
    """A short answer."""
    out = bytearray()
    for piece in given.iter_raw():
        out += piece
        if len(out) > _SHORT:
            break
    return bytes(out)


def _into(words: Array, given: Any) -> int:
    """Write the bytes of an answer into a vector as they come; gives how many there were, one more where too many."""
    room, at = words.view(np.uint8), 0
    for piece in given.iter_raw():
        if at + len(piece) > room.size:
            return room.size + 1
        room[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
    return at


@cache
def _trusted() -> ssl.SSLContext:
    """Certificates as the system trusts them, loaded once."""
    return ssl.create_default_context()


def library() -> Any:
    """The library that speaks HTTP.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import httpx
    except ImportError:
        raise ConfigError(
            "httpx must be installed to ask a helper. It is missing. Run: pip install comity[service]."
        ) from None
    return httpx
