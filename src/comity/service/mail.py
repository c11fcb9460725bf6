"""Mail between peers at a hub that cannot read it: sealed pieces by (session, round, sender, receiver, piece).

    POST /v1/mail    a letter's piece: {"session", "to", "round", "piece", "pieces"} as a line of JSON, then the bytes
    GET  /v1/mail?session=&round=&from=A&from=B&wait=25    {"there": [...]}: whose letters are there whole
    GET  /v1/letter?session=&round=&from=A&piece=0         how many pieces (4 bytes, little-endian), and the bytes

What was put first stays. A letter is kept until its receiver has asked for a round that lies `KEPT` rounds further on.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from comity.core.errors import ConfigError
from comity.service.database import Database
from comity.service.hub import answer_bytes, answer_json

PIECE, KEPT = 2**22, 2
"""Bytes of a piece; rounds for which letters stay."""
PAIR, SENDER, ROW = 2**29, 2**32, 512
"""Bytes that may wait of one sender for one receiver, and of one sender for all; what each piece counts beside its own:
nobody fills the room of another."""
LOOKS = 16
"""Looks of one party at once."""
LOOK, WAIT = 1.0, 25.0
_SCHEMA = sa.MetaData()
_MAIL = sa.Table(
    "mail",
    _SCHEMA,
    *(sa.Column(name, sa.Text, primary_key=True) for name in ("session", "receiver", "sender")),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("piece", sa.Integer, primary_key=True),
    sa.Column("pieces", sa.Integer, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
_C = _MAIL.c


@dataclass(frozen=True)
class Letter:
    """Where a piece belongs.

    Attributes:
        session: of which peers.
        sender: who wrote it.
        receiver: who may read it.
        number: of the round, -1 for what precedes the first.
        piece: from 0.
        pieces: of the whole, >= 1.
    """

    session: str
    sender: str
    receiver: str
    number: int
    piece: int = 0
    pieces: int = 1

    @classmethod
    def read(cls, sender: str, line: bytes) -> "Letter":
        """From the line before the bytes.

        Raises:
            ConfigError: it names no place.
        """
        try:
            said = json.loads(line)
            made = cls(said["session"], sender, said["to"], said["round"], said["piece"], said["pieces"])
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ConfigError("A letter must begin with where it belongs. It does not.") from None
        words = all(isinstance(x, str) and 0 < len(x) <= 255 for x in (made.session, made.receiver))
        numbers = all(type(x) is int for x in (made.number, made.piece, made.pieces))
        if not words or not numbers or not (-1 <= made.number < 2**62 and 0 <= made.piece < made.pieces <= 2**12):
            raise ConfigError("A letter must say its session, receiver, round and piece. Got something else.")
        return made


class Letters:
    """The letters of one hub, whoever wrote them."""

    def __init__(self, db: Database) -> None:
        """Args: db: of the hub."""
        self.db = db
        with db.writing() as on:
            _SCHEMA.create_all(on)

    def put(self, at: Letter, data: bytes) -> bool:
        """Keep a piece; what is there stays. Returns: was there room?"""
        row = {"session": at.session, "sender": at.sender, "receiver": at.receiver, "number": at.number}
        with self.db.writing() as db:
            if db.scalar(sa.select(_C.pieces).where(*_of(at), _C.piece == at.piece)) is not None:
                return True
            size = sa.func.coalesce(sa.func.sum(sa.func.length(_C.data) + ROW), 0)
            waits = dict(
                db.execute(sa.select(_C.receiver, size).where(_C.sender == at.sender).group_by(_C.receiver)).all()
            )
            more = len(data) + ROW
            if waits.get(at.receiver, 0) + more > PAIR or sum(waits.values()) + more > SENDER:
                return False
            db.execute(_MAIL.insert(), row | {"piece": at.piece, "pieces": at.pieces, "data": data})
        return True

    def there(self, session: str, receiver: str, number: int, senders: Sequence[str]) -> list[str]:
        """Whose letters of a round are there whole."""
        mine = (_C.session == session, _C.receiver == receiver, _C.number == number, _C.sender.in_(senders))
        query = sa.select(_C.sender).where(*mine).group_by(_C.sender)
        with self.db.reading() as db:
            return list(db.scalars(query.having(sa.func.count() == sa.func.min(_C.pieces))))

    def piece(self, at: Letter) -> tuple[int, bytes] | None:
        """How many pieces there are, and one of them."""
        with self.db.reading() as db:
            row = db.execute(sa.select(_C.pieces, _C.data).where(*_of(at), _C.piece == at.piece)).one_or_none()
        return None if row is None else (row.pieces, row.data)

    def used(self, session: str, receiver: str, number: int) -> None:
        """A receiver asks for this round: it needs no letters of those that lie further back."""
        old = (_C.session == session, _C.receiver == receiver, _C.number <= number - KEPT, _C.number >= 0)
        with self.db.reading() as db:
            some = db.execute(sa.select(_C.number).where(*old).limit(1)).first()
        if some is not None:
            with self.db.writing() as db:
                db.execute(_MAIL.delete().where(*old))


def _of(at: Letter) -> list[sa.ColumnElement[bool]]:
    named = (_C.session == at.session, _C.sender == at.sender, _C.receiver == at.receiver, _C.number == at.number)
    return list(named)


class MailRoutes:
    """The routes of a hub's mail; `asked.who` is who signed the request.

    Args:
        letters: of the hub.
        known: may somebody of this name receive letters?
    """

    def __init__(self, letters: Letters, known: Any) -> None:
        """Nobody waits."""
        self.letters, self.known = letters, known
        self._came: dict[str, asyncio.Event] = {}
        self._looks: dict[str, int] = {}

    @property
    def routes(self) -> list[tuple[str, str, Any, int]]:
        """(path, method, handler, bytes of a body at most)."""
        return [
            ("/v1/mail", "POST", self.post, PIECE + 2048),
            ("/v1/mail", "GET", self.look, 0),
            ("/v1/letter", "GET", self.letter, 0),
        ]

    async def post(self, hub: Any, asked: Any) -> Any:
        """Take a piece in."""
        line, _, data = asked.body.partition(b"\n")
        try:
            at = Letter.read(asked.who, line)
        except ConfigError as error:
            return answer_json(422, {"reason": str(error)})
        if not self.known(at.receiver):
            return answer_json(404, {"reason": "There is no such receiver."})
        if not await hub.off(self.letters.put, at, data):
            return answer_json(507, {"reason": "Too much waits for this receiver."})
        self._event(at.receiver).set()
        return answer_json(200, {})

    async def look(self, hub: Any, asked: Any) -> Any:
        """Whose letters are there: as soon as there is one."""
        said = asked.request.query_params
        session, number, senders = said.get("session", ""), _number(said.get("round", "")), said.getlist("from")
        if number is None or not session or not 0 < len(senders) <= 1000:
            return answer_json(422, {"reason": "Say the session, the round and from whom."})
        if self._looks.get(asked.who, 0) >= LOOKS:
            return answer_json(503, {"reason": "Too many looks at once. Try again."})
        self._looks[asked.who] = self._looks.get(asked.who, 0) + 1
        try:
            return await self._found(hub, asked, session, number, senders)
        finally:
            self._looks[asked.who] -= 1
            if not self._looks[asked.who]:
                del self._looks[asked.who]

    async def _found(self, hub: Any, asked: Any, session: str, number: int, senders: Sequence[str]) -> Any:
        said = asked.request.query_params
        await hub.off(self.letters.used, session, asked.who, number)
        ends = time.monotonic() + min(WAIT, float(_number(said.get("wait", "")) or 0))
        event = self._event(asked.who)
        while True:
            event.clear()  # before the look: what comes after it wakes
            found = await hub.off(self.letters.there, session, asked.who, number, senders)
            left = ends - time.monotonic()
            if found or left <= 0 or hub.closing:
                return answer_json(200, {"there": found})
            try:
                await asyncio.wait_for(event.wait(), min(left, LOOK))  # another process may have taken it in
            except TimeoutError:
                continue

    async def letter(self, hub: Any, asked: Any) -> Any:
        """A piece, to its receiver."""
        said = asked.request.query_params
        number, piece = _number(said.get("round", "")), _number(said.get("piece", "0"))
        found = None
        if number is not None and piece is not None:
            at = Letter(said.get("session", ""), said.get("from", ""), asked.who, number, piece)
            found = await hub.off(self.letters.piece, at)
        if found is None:
            return answer_json(404, {"reason": "There is no such letter."})
        return answer_bytes(found[0].to_bytes(4, "little") + found[1])

    def _event(self, who: str) -> asyncio.Event:
        return self._came.setdefault(who, asyncio.Event())


def routes(hub: Any) -> list[tuple[str, str, Any, int]]:
    """Those of a hub's mail: letters go to whoever may ask it."""
    return MailRoutes(Letters(hub.db), lambda name: hub.doors.key_of(name) is not None).routes


def _number(said: str) -> int | None:
    fits = said.removeprefix("-").isdecimal() and said.isascii() and len(said) < 19
    return int(said) if fits and int(said) >= -1 else None
