"""CKKS: contributions are encrypted under a public key, added as ciphertexts, and who holds the key opens the sum.

holder     makes a key when it is first asked in a run; opens one sum a round, rounds it off and adds noise
member     encrypts under the public key, which it is sent once, signed by the holder
hub        adds ciphertexts, has the holder open the sum
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from comity.channels import ckks_vectors as vectors
from comity.channels.helper import known
from comity.channels.identity import KEY, SIGNATURE, pinned, signed
from comity.channels.layout import Form
from comity.channels.records import field as held
from comity.core.checks import refusal, whole
from comity.core.contribution import Array, Contribution, Tree, View
from comity.core.errors import ChannelError, TooFewParticipants
from comity.core.parts import Ask, Secret, Until
from comity.core.rng import digest
from comity.core.round import Round

PROTOCOL = "comity ckks 1"
NOISE, GRID = 2.0**-27, 2.0**-40
USUAL = ("examples", "loss", *(b + n for b in ("", "valid_", "train_") for n in ("accuracy", "log_loss", "mse", "mae")))
_OPENED = 64


@dataclass(frozen=True)
class CKKS:
    """Homomorphic encryption: the hub adds what it cannot read, and who holds the key opens the sum.

    **Who could read what.** The hub has every ciphertext, a holder has the secret key: *together they can read every
    contribution*. A holder opens what the hub gives it, and a ciphertext does not show of whom it is the sum: it
    carries how many were added, which a holder checks against the minimum, but a hub that lies can put that into a
    single one as well. So this protects from a hub that keeps to the protocol, and from whoever breaks into it; from
    a hub that lies use `SecAgg` or `TwoServer`, which are also a hundred times faster. It is for parties whose rules
    name homomorphic encryption. The sentence for reports is `warning`.

    A sum that is given back exactly would give the key away (Li & Micciancio, EUROCRYPT 2021, section 4). So scale is
    2^60, where the error of the scheme is about 1e-14, and the holder adds uniform noise within 2^-27 from its secret,
    a million times as much, and rounds to 2^-40. The usual scale of 2^40 leaves no room for that.

    Several holders each have a key of their own and every member encrypts for each, as often as there are holders: one
    of them may then be away. A secret key never travels. A float is 57 bytes for each holder.

    TenSEAL draws the randomness of a ciphertext by itself: a run that was killed goes on with other ciphertexts and
    other errors, so resumed is equal within the tolerance, not to the bit. Sites that are asked again send again what
    they stored. Paillier is left out: a 3072-bit key takes some 0.2 s for one number, so hours for a small model.

    Attributes:
        holder: the name of the participant who holds the key, or of several. One of them must be in each cohort.
        minimum: members in a sum, >= 2; hub and holder refuse a smaller one, a member a smaller cohort.
        identities: holder to Ed25519 public key. Without them the first that a member sees is kept, and a hub that
            lies from the first round on could hand out a key of its own.
        metrics: names of those that are sent; one that a member does not have is (0, 0).
        tolerance: the largest error of a sum of numbers up to 10^7.

    Raises:
        ConfigError: TenSEAL is not installed, no holder, or a minimum below 2.

    Example:
        >>> import comity as co
        >>> co.CKKS("clinic").reveals
        'sum'
    """

    holder: str | Sequence[str]
    minimum: int = 3
    identities: Mapping[str, bytes] | None = field(default=None, kw_only=True)
    metrics: tuple[str, ...] = field(default=USUAL, kw_only=True)
    reveals: ClassVar[View] = "sum"
    tolerance: ClassVar[float] = 1e-7

    def __post_init__(self) -> None:
        vectors.library()
        given = self.holder
        names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else ()
        if not names or not all(isinstance(n, str) and n for n in names) or len(set(names)) < len(names):
            raise refusal("holder", "CKKS", "the name of who holds the key, or of several", given, 'Use holder="a".')
        object.__setattr__(self, "holder", names)
        object.__setattr__(self, "minimum", whole("minimum", "CKKS", self.minimum, 2, hint="A sum of one is that one."))
        if self.identities is not None:
            object.__setattr__(self, "identities", known("CKKS", self.identities))
        metrics = tuple(self.metrics) if isinstance(self.metrics, list | tuple) else (None,)
        if not all(isinstance(n, str) and n for n in metrics) or len(set(metrics)) < len(metrics):
            raise refusal("metrics", "CKKS", "a tuple of names, each once", self.metrics, 'Use ("loss",).')
        object.__setattr__(self, "metrics", metrics)

    @property
    def warning(self) -> str:
        """Who could see single contributions, in a sentence for reports."""
        who = " or ".join(self.holder)
        return f"The secret key is held by {who}: together with the hub, it can read every contribution."

    def setup(self, cohort: Sequence[str], ask: Ask, round: Round) -> "Keyed":
        """Learn whose keys there are and who lacks them; fetch the public keys that somebody lacks.

        Raises:
            TooFewParticipants: the cohort is too small.
            ChannelError: no holder is in the cohort, or none answers.
        """
        holders = [h for h in self.holder if h in cohort]
        if not holders:
            raise ChannelError(
                f"A holder of the key must be in each cohort: {', '.join(self.holder)}. None is in this one. "
                "Use select=everyone(), or name other holders."
            )
        if len(cohort) < self.minimum:
            raise TooFewParticipants(f"A cohort must have at least {self.minimum} members. Got {len(cohort)}.")
        until = Until(len(cohort))
        told = {c.sender: c.value for c in ask(cohort, lambda to: Contribution("ckks key", None), until)}
        made = {h: _hash(told.get(h), "mine") for h in holders}
        found = {h: key for h, key in made.items() if key}
        lacking = {who: {h for h in found if who != h and _hash(told.get(who), h) != found[h]} for who in cohort}
        wanted = sorted(set().union(*lacking.values()))
        given = {}
        if wanted:
            answers = ask(wanted, lambda to: Contribution("ckks public", None), Until(len(wanted)))
            given = {c.sender: c.value for c in answers if _is_public(c.value, found[c.sender])}
        found = {h: key for h, key in found.items() if h not in wanted or h in given}
        if not found:
            raise ChannelError(f"A holder of the key must answer: {', '.join(holders)}. None did. Try again.")
        return Keyed(round, found, lacking, given)

    def answer(self, message: Contribution, memory: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """What keys it has; of a holder, its public key, and a sum that it opens.

        Raises:
            ChannelError: no such phase, or a sum that it does not open, and why.
        """
        mine: Any = memory
        if message.kind == "ckks key":
            return self._has(dict(mine), round, secret)
        if message.kind in ("ckks public", "ckks open") and "mine" not in mine:
            raise ChannelError(f"{round.me} holds no key of CKKS. Another does: {', '.join(self.holder)}.")
        if message.kind == "ckks public":
            public = mine["mine"]["public"]
            said = {"public": public, "identity": secret.public_key(), "signature": secret.sign(_said(round, public))}
            return Contribution("ckks public", said), memory
        if message.kind == "ckks open":
            return self._open(message.value, dict(mine), round, secret)
        raise ChannelError(f"CKKS has no phase '{message.kind}'. The hub runs another channel than this site.")

    def _has(self, memory: dict[str, Any], round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Which keys it has; a holder makes its own when it is first asked."""
        if round.me in self.holder and "mine" not in memory:
            public, private = vectors.keys()
            memory["mine"] = {"public": public, "secret": _locked(secret, public, private)}
        has = {name: sha256(public).digest() for name, public in memory.get("public", {}).items()}
        if "mine" in memory:
            has["mine"] = sha256(memory["mine"]["public"]).digest()
        return Contribution("ckks key", has), memory

    def _open(self, value: Any, memory: dict[str, Any], round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Open one sum in a round."""
        count, size = (value.get(n) if isinstance(value, Mapping) else None for n in ("count", "size"))
        if type(count) is not int or type(size) is not int or size < 1:
            raise ChannelError("A sum must come with the number of its members and its length. It has none.")
        if count < self.minimum:
            raise ChannelError(f"A sum must be of at least {self.minimum} members. Got {count}.")
        ciphertexts = value.get("sum")
        numbers = vectors.decrypted(_unlocked(secret, memory["mine"]), ciphertexts, size)
        if abs(numbers[0] - count) > 1e-3:
            raise ChannelError(f"A sum must be of as many as the hub says, {count}. It is of another number.")
        one = sha256(b"".join(ciphertexts[str(i)] for i in range(len(ciphertexts)))).digest()
        turn = digest(PROTOCOL, "turn", round.run, round.number, round.attempt, round.hub).hex()
        opened = memory.get("opened", {})
        if opened.get(turn, one) != one:
            raise ChannelError("A holder opens one sum in a round. Got a second one.")
        memory["opened"] = {**dict(list(opened.items())[-_OPENED:]), turn: one}
        return Contribution("ckks numbers", {"numbers": _noised(numbers, secret, turn, one)}), memory

    def seal(
        self, c: Contribution, view: Tree, memory: Tree, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """Encrypt for each holder whose key the hub names.

        Raises:
            ChannelError: the cohort is too small, or a key that is not the holder's.
            ContributionError: what is no number.
        """
        if round.asked < self.minimum:
            raise ChannelError(f"A cohort must have at least {self.minimum} members. Got {round.asked}.")
        told: Any = view
        wanted = told.get("keys") if isinstance(told, Mapping) else None
        if not isinstance(wanted, Mapping) or not wanted or not set(wanted) <= set(self.holder):
            raise ChannelError(f"Keys must be those of {', '.join(self.holder)}. The hub names others, or none.")
        form, numbers = vectors.flat(c, self.metrics, round.asked)
        held_now: Any = dict(memory)  # type: ignore[arg-type]
        under = {}
        for name in sorted(wanted):
            public, held_now = self._public(name, held(wanted, name, KEY), told, held_now, round)
            under[name] = vectors.encrypted(public, numbers)
        return Contribution("ckks", {"form": form.tree(), "under": under}), held_now

    def _public(
        self, name: str, key: bytes, told: Any, memory: dict[str, Any], round: Round
    ) -> tuple[bytes, dict[str, Any]]:
        """The public key of a holder with this hash, and the memory that has it."""
        known_now = memory.get("public", {})
        public = memory["mine"]["public"] if name == round.me and "mine" in memory else known_now.get(name, b"")
        if sha256(public).digest() == key:
            return public, memory
        if name == round.me:
            raise ChannelError(f"The key of {name} must be its own. The hub names another: it was swapped.")
        given = told.get("public", {}).get(name) if isinstance(told.get("public"), Mapping) else None
        public, identity = held(given, "public"), held(given, "identity", KEY)
        if sha256(public).digest() != key or not signed(
            identity, held(given, "signature", SIGNATURE), _said(replace(round, me=name), public)
        ):
            raise ChannelError(f"The public key of {name} must be signed by it for this run. Got another one.")
        pins = memory.get("pins", {})
        pinned(name, identity, pins, self.identities)
        pins, known_now = {**pins, name: identity}, {**known_now, name: public}
        return public, {**memory, "pins": pins, "public": known_now}

    def open(self, sealed: Iterator[Contribution], session: "Keyed", ask: Ask, until: Until) -> Iterator[Contribution]:
        """The sum, once a holder has opened it.

        Raises:
            TooFewParticipants: the sum would be of fewer than the minimum; no holder is asked.
            ChannelError: no holder opens it.
        """
        adding = _Adding(session)
        for c in sealed:
            adding.take(c)
        least = max(self.minimum, until.quorum)
        if len(adding.members) < least:
            raise TooFewParticipants(f"A sum must be of at least {least} members. Got {len(adding.members)}.")
        for holder in session.keys:
            message = adding.question(holder)
            for answer in ask([holder], partial(_same, message), Until(1)):
                value: Any = answer.value
                numbers: Any = value.get("numbers") if isinstance(value, Mapping) else None
                if _are(numbers, adding.size):
                    yield vectors.back(adding.form, numbers)
                    return
        raise ChannelError(f"A holder of the key must open the sum: {', '.join(session.keys)}. None did. Try again.")


@dataclass(frozen=True)
class Keyed:
    """What the hub knows of a cohort.

    Attributes:
        round: the round.
        keys: holder to the sha256 of its public key.
        lacking: member to the holders whose public key it lacks.
        public: holder to its public key, signed; of those that somebody lacks.
        left_out: once it was opened, who is not in the sum, and why.
    """

    round: Round
    keys: Mapping[str, bytes]
    lacking: Mapping[str, set[str]]
    public: Mapping[str, Any]
    left_out: dict[str, str] = field(default_factory=dict)

    def view(self, member: str) -> Tree:
        """Which keys are used, and those that the member lacks."""
        return {"keys": dict(self.keys), "public": {h: self.public[h] for h in self.keys if h in self.lacking[member]}}


class _Adding:
    """Sums of ciphertexts, one for each holder."""

    def __init__(self, session: Keyed) -> None:
        self.holders, self.members, self.left_out = list(session.keys), set[str](), session.left_out
        self.form, self.size = Form("", None), 0
        self._totals: dict[str, list[Any]] = {}

    def take(self, c: Contribution) -> None:
        """Add what was sealed; what was not, or has another form than the first, is left out."""
        try:
            self._add(c)
        except (ChannelError, AttributeError, KeyError, TypeError):
            self.left_out[c.sender] = "what came was no contribution of the form of the others'"

    def _add(self, c: Contribution) -> None:
        value: Any = c.value
        form = Form.read(value.get("form") if isinstance(value, Mapping) else None)
        if c.sender in self.members or (self.members and not form.same(self.form)):
            raise ChannelError("It came twice, or has another form.")
        size, under = vectors.length(form), value.get("under")
        found = {h: vectors.read(under.get(h), size) for h in self.holders}
        if not self.members:
            self.form, self.size, self._totals = form, size, found
        else:
            for h, total in self._totals.items():
                vectors.add(total, found[h])
        self.members.add(c.sender)

    def question(self, holder: str) -> Contribution:
        """What a holder is asked to open."""
        said = {"count": len(self.members), "size": self.size, "sum": vectors.written(self._totals[holder])}
        return Contribution("ckks open", said)


def _same(message: Contribution, to: str) -> Contribution:
    return message


def _hash(value: Any, name: str) -> bytes:
    """The sha256 that a member says it has; b"" for none."""
    key = value.get(name) if isinstance(value, Mapping) else None
    return key if isinstance(key, bytes) and len(key) == KEY else b""


def _is_public(value: Any, key: bytes) -> bool:
    try:
        held(value, "identity", KEY), held(value, "signature", SIGNATURE)
        return sha256(held(value, "public")).digest() == key
    except ChannelError:
        return False


def _are(numbers: Any, size: int) -> bool:
    return isinstance(numbers, np.ndarray) and numbers.dtype == np.float64 and numbers.shape == (size,)


def _said(round: Round, public: bytes) -> bytes:
    """What a holder signs."""
    return digest(PROTOCOL, "public", round.run, round.me, sha256(public).hexdigest())


def _noised(numbers: Array, secret: Secret, *what: Any) -> Array:
    """Noise from the holder's secret, the same again for the same sum."""
    turn, one = what
    words = secret.stream("ckks", "noise", turn, one.hex()).take(8 * numbers.size).view("<i8")
    out: Array = np.rint((numbers + words * (NOISE / 2.0**63)) / GRID) * GRID
    return out


def _locked(secret: Secret, public: bytes, private: bytes) -> bytes:
    """The secret key as it lies in the drawer: sealed under the side's own secret, tied to the public one."""
    tied = sha256(public).digest()
    return AESGCM(secret.key("ckks", "kept", tied.hex())).encrypt(tied[:12], private, tied)


def _unlocked(secret: Secret, mine: Any) -> bytes:
    tied = sha256(mine["public"]).digest()
    try:
        return AESGCM(secret.key("ckks", "kept", tied.hex())).decrypt(tied[:12], mine["secret"], tied)
    except InvalidTag:
        raise ChannelError("The secret key of CKKS must be the one that was kept. The drawer was changed.") from None
