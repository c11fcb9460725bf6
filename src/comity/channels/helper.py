"""The helper: the second of two servers. It adds the masks of those who are listed, and never sees what they hide."""

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from comity.channels.identity import KEY
from comity.channels.layout import WORD, Form
from comity.channels.masks import mask
from comity.channels.records import field, pack, rows, unpack
from comity.channels.seeds import SEED, SealedSeed, Turn
from comity.core.checks import path, refusal, whole
from comity.core.contribution import Array, Contribution
from comity.core.errors import ChannelError, ConfigError, TooFewParticipants

LARGEST = 2**30
"""The most words of a vector: 4 GiB."""
_TABLE = "CREATE TABLE IF NOT EXISTS answered (turn BLOB, who BLOB, list BLOB, PRIMARY KEY (turn, who)) WITHOUT ROWID"


class Helper:
    """The second of two servers: it is given seeds of masks, sealed, and answers with the sum of the masks.

    Alone it learns nothing of a contribution: only who took part in which round, and how long a vector is. Together
    with the hub it learns everything: it must be run by somebody else. `comity helper` runs it as a process.

    It answers for one list of members only, once and for all: what it answered is on disk before the answer leaves, a
    replay gets the same answer, and another list that has a member of this turn in it is refused, and so is another set
    of members in a later attempt at the round, because the difference of two sums is somebody's contribution. A run of
    the same recipe that begins anew has members with other identities, and is another one; where `identities` are
    given, no turn is ever answered for two lists.

    It refuses, with a `ChannelError` that names the reason: fewer members than its `minimum`; one twice; a seed that
    was sealed for another run, round, attempt, hub, length or helper, or by another than who is listed.

    Attributes:
        key: its X25519 public key, 32 bytes: what the channel is given as `key`.
        minimum: members whose masks it adds at least.

    Raises:
        ConfigError: a minimum below 2, identities that are none, or a folder that cannot be used.

    Example:
        >>> helper = Helper(minimum=3)
        >>> len(helper.key), helper
        (32, Helper(minimum=3))
    """

    def __init__(
        self, folder: str | Path | None = None, *, minimum: int = 3, identities: Mapping[str, bytes] | None = None
    ) -> None:
        """Begin, or go on.

        Args:
            folder: where its key (mode 0600) and what it answered are kept; None forgets both at the end. Whoever
                reads the key and what members sent to the hub can open what they sent: delete it after the run.
            minimum: members in a sum, >= 2.
            identities: name to Ed25519 public key of all who may take part. Without them a hub that lies can list
                members of its own making.
        """
        self.minimum = whole("minimum", "Helper", minimum, 2, hint="A sum of one is that one.")
        self._identities = None if identities is None else known("Helper", identities)
        self._folder = None if folder is None else path("folder", "Helper", folder)
        self._key = X25519PrivateKey.from_private_bytes(_key_in(self._folder))
        self.key = self._key.public_key().public_bytes_raw()
        self._held, self._lock = _database(self._folder), threading.Lock()
        self.close = weakref.finalize(self, self._held.close)

    def __repr__(self) -> str:
        return f"Helper(minimum={self.minimum})"

    def __reduce__(self) -> Any:
        return Known, (self.key, self.minimum)

    def fingerprint(self) -> dict[str, Any]:
        """What enters a recipe."""
        return {"key": self.key.hex(), "minimum": self.minimum}

    def public_key(self) -> bytes:
        """Its key, as a helper that is asked over a network gives it."""
        return self.key

    def masks(self, question: Contribution) -> Array:
        """The sum of the masks of those who are listed.

        Args:
            question: of kind "masks", as `ask` makes it.

        Returns:
            (size,) uint32.

        Raises:
            ChannelError: it refuses, and why.
        """
        turn, form, members = read(question)
        if len(members) < self.minimum:
            raise TooFewParticipants(
                f"The helper adds the masks of at least {self.minimum} members. Got {len(members)}. Ask more of them."
            )
        context = turn.context(form, self.key)
        seeds = [self._opened(seed, context, name) for name, seed in members.items()]
        self._answer_once(turn, form, members)
        words = np.zeros(form.size, WORD)
        mask(words, form, seeds)
        return words

    def _opened(self, seed: SealedSeed, context: bytes, name: str) -> bytes:
        if self._identities is not None and self._identities.get(name) != seed.identity:
            raise ChannelError(f"The identity of {name} must be the one that the helper was given. Got another.")
        return seed.opened(context, name, self._key)

    def _answer_once(self, turn: Turn, form: Form, members: Mapping[str, SealedSeed]) -> None:
        """Write down for good that this list is answered, or refuse it because another was.

        In a turn it is the list with its seeds that must be the same; in a round, whatever the attempt and the hub, the
        members of a vector of this length: what they contribute may be the same again.
        """
        context, who = turn.context(form, self.key), {seed.identity for seed in members.values()}
        listed = sha256(context + pack(list(members)) + b"".join(s.packed() for s in members.values())).digest()
        together = sha256(b"".join(sorted(who))).digest()
        with self._lock, _whole(self._held) as held:
            for key, mark in ((turn.digest, listed), (turn.round(form), together)):
                before = held.execute("SELECT who, list FROM answered WHERE turn = ?", (key,)).fetchall()
                for identity, other in before:
                    if other != mark and (identity in who or self._identities is not None):
                        raise ChannelError(
                            f"The helper answers for one list of members in a round. Got a second for round "
                            f"{turn.number + 1}, attempt {turn.attempt + 1} of hub '{turn.hub}': the difference of "
                            "two sums would be somebody's contribution. Begin the run anew."
                        )
                held.executemany("INSERT OR IGNORE INTO answered VALUES (?, ?, ?)", ((key, w, mark) for w in who))


class Known:
    """A helper as another process of this machine knows it: its key, and nothing that is secret."""

    def __init__(self, key: bytes, minimum: int) -> None:
        """Args: its public key and minimum."""
        self.key, self.minimum = key, minimum

    def public_key(self) -> bytes:
        """Its key."""
        return self.key

    def masks(self, question: Contribution) -> Array:
        """It cannot be asked here.

        Raises:
            ChannelError: always.
        """
        raise ChannelError("A helper answers in the process that made it. This is another. Use comity helper.")


def ask(turn: Turn, form: Form, members: Mapping[str, SealedSeed]) -> Contribution:
    """The question for the sum of masks of these members."""
    names = sorted(members)
    seeds = b"".join(members[name].packed() for name in names)
    length = {"split": form.split, "size": form.size}
    return Contribution("masks", {"turn": turn.tree(), **length, "names": pack(names), "seeds": seeds})


def read(question: Contribution) -> tuple[Turn, Form, dict[str, SealedSeed]]:
    """Turn, length and members of a question from anybody.

    Raises:
        ChannelError: it is none, or has a member twice.
    """
    value: Any = question.value
    if question.kind != "masks" or not isinstance(value, Mapping):
        raise ChannelError("A question to the helper must be of kind 'masks'. Got another.")
    turn, form = Turn.read(value.get("turn")), _length(value)
    names, seeds = unpack(field(value, "names")), rows(field(value, "seeds"), SEED)
    members = dict(zip(names, map(SealedSeed.read, seeds), strict=False))
    if not len(names) == len(seeds) == len(members) == len({s.identity for s in members.values()}):
        raise ChannelError("Each member must be listed once, with one seed. Somebody stands there twice, or without.")
    if names != sorted(names):
        raise ChannelError("Members must be listed in order. Got another order.")
    return turn, form, members


def _length(value: Mapping[str, Any]) -> Form:
    """The form of a vector of which only the length is known."""
    split, size = value.get("split"), value.get("size")
    if type(split) is not int or type(size) is not int or not 0 <= split < size <= LARGEST or split % 2:
        raise ChannelError(f"The length of a vector must be at most {LARGEST} words. Got none, or one that is none.")
    metrics, left = divmod(size - split - 2, 4)
    if left or metrics < 0:
        raise ChannelError("The length of a vector must be that of a value, a weight and metrics. Got another.")
    return Form("", str(split), tuple(map(str, range(metrics))))


def known(of: str, identities: Any) -> dict[str, bytes]:
    """Name to Ed25519 public key, as plain Python has them.

    Raises:
        ConfigError: anything else.
    """
    if isinstance(identities, Mapping) and identities:
        given = {k: bytes.fromhex(v) if isinstance(v, str) and _is_hex(v) else v for k, v in identities.items()}
        if all(isinstance(k, str) and isinstance(v, bytes) and len(v) == KEY for k, v in given.items()):
            return given
    raise refusal("identities", of, "names with Ed25519 public keys of 32 bytes", identities, 'Use {"a": key}.')


def _is_hex(text: str) -> bool:
    return len(text) == 2 * KEY and all(c in "0123456789abcdefABCDEF" for c in text)


def _key_in(folder: Path | None) -> bytes:
    """The private key that lies there; a fresh one where there is none."""
    if folder is None:
        return os.urandom(KEY)
    place = folder / "helper.key"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return _read(place)
        _put(place, os.urandom(KEY))
        return _read(place)
    except OSError as error:
        raise ConfigError(
            f"The 'folder' of Helper must be a folder to write in. Got {folder}: {error.strerror}. Name another."
        ) from None


def _put(place: Path, key: bytes) -> None:
    """Whole or not at all, and never over another key."""
    part = place.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(key)
        out.flush()
        os.fsync(out.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(part, place)
    part.unlink()


def _read(place: Path) -> bytes:
    key = place.read_bytes()
    if len(key) != KEY:
        raise ConfigError(f"The key of a helper must be {KEY} bytes. {place} holds {len(key)}. Restore it from a copy.")
    return key


def _database(folder: Path | None) -> sqlite3.Connection:
    where = ":memory:" if folder is None else folder / "answered.sqlite"
    try:
        held = sqlite3.connect(where, isolation_level=None, check_same_thread=False, timeout=60.0)
        held.execute("PRAGMA synchronous = FULL")
        held.execute(_TABLE)
    except sqlite3.Error as error:
        raise ConfigError(f"The folder of a helper must hold what it answered. Got: {error}. Restore it.") from None
    return held


@contextlib.contextmanager
def _whole(held: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of what is written, durable, or nothing."""
    try:
        held.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise _unwritten(error) from None
    try:
        yield held
        held.execute("COMMIT")
    except sqlite3.Error as error:
        raise _unwritten(error) from None
    finally:
        if held.in_transaction:
            held.execute("ROLLBACK")


def _unwritten(error: sqlite3.Error) -> ChannelError:
    return ChannelError(f"The helper must write down what it answers. It cannot: {error}. Free some space.")
