"""Seeds of masks, each sealed by a member so that the helper alone can read it, for one turn and one length.

turn       sha256 of (protocol, run, round, attempt, hub)
context    sha256 of (protocol, turn, words of 32 bits, words in all, the helper's public key)
statement  sha256 of (protocol, context, the member's name)
key        HKDF-SHA256 of X25519(ephemeral, helper), salt: context, info: statement, 16 bytes
box        AES-128-GCM of the seed under this key, nonce zero (the key is used once), tied to the statement
signature  Ed25519 by the member's identity, of sha256 of (statement, identity, ephemeral public key, box)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from comity.channels.identity import KEY, MASK_KEY, SIGNATURE, agreed, signed
from comity.channels.layout import Form
from comity.core.errors import ChannelError
from comity.core.parts import Secret
from comity.core.rng import digest
from comity.core.round import Round

PROTOCOL = "comity two servers 1"
BOX = MASK_KEY + 16
SEED = KEY + KEY + BOX + SIGNATURE
_NONCE = bytes(12)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a sum is of.

    Attributes:
        run: the run's public identity.
        number: of the round.
        attempt: at it.
        hub: who adds.
    """

    run: str
    number: int
    attempt: int
    hub: str

    @classmethod
    def of(cls, round: Round) -> "Turn":
        """That of a round."""
        return cls(round.run, round.number, round.attempt, round.hub)

    @classmethod
    def read(cls, tree: Any) -> "Turn":
        """From a message.

        Raises:
            ChannelError: it names none.
        """
        given: Any = [tree.get(name) for name in cls.__slots__] if isinstance(tree, Mapping) else []
        if [type(x) for x in given] != [str, int, int, str]:
            raise ChannelError("A question to the helper must name run, round, attempt and hub. It names none.")
        return cls(*given)

    def tree(self) -> dict[str, Any]:
        """As it travels."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def digest(self) -> bytes:
        """What stands for it, 32 bytes."""
        return digest(PROTOCOL, "turn", self.run, self.number, self.attempt, self.hub)

    def round(self, form: Form) -> bytes:
        """What stands for its round and the length of a vector, whatever the attempt and the hub, 32 bytes."""
        return digest(PROTOCOL, "round", self.run, self.number, form.split, form.size)

    def context(self, form: Form, helper: bytes) -> bytes:
        """What stands for it, the length of a vector and the helper, 32 bytes."""
        return digest(PROTOCOL, "context", self.digest.hex(), form.split, form.size, helper.hex())


@dataclass(frozen=True, slots=True, repr=False)
class SealedSeed:
    """A seed on its way to the helper. It shows nothing of itself.

    Attributes:
        identity: the member's Ed25519 public key, 32 bytes.
        ephemeral: an X25519 public key, used once, 32 bytes.
        box: the seed, sealed, 32 bytes.
        signature: 64 bytes.
    """

    identity: bytes
    ephemeral: bytes
    box: bytes
    signature: bytes

    @classmethod
    def seal(cls, seed: bytes, once: bytes, context: bytes, name: str, helper: bytes, secret: Secret) -> "SealedSeed":
        """Seal a seed.

        Args:
            seed: 16 bytes.
            once: 32 secret bytes that are used for no other seed.
            context: of the turn.
            name: the member's.
            helper: its public key, 32 bytes.
            secret: signs.
        """  # fmt: skip
        mine, said = X25519PrivateKey.from_private_bytes(once), _statement(context, name)
        box = AESGCM(agreed(mine, helper, context, said)).encrypt(_NONCE, seed, said)
        held = secret.public_key(), mine.public_key().public_bytes_raw(), box
        return cls(*held, secret.sign(_signed(said, *held)))

    @classmethod
    def read(cls, data: bytes) -> "SealedSeed":
        """From its 160 bytes."""
        return cls(data[:KEY], data[KEY : 2 * KEY], data[2 * KEY : 2 * KEY + BOX], data[2 * KEY + BOX :])

    def packed(self) -> bytes:
        """As 160 bytes."""
        return self.identity + self.ephemeral + self.box + self.signature

    def check(self, context: bytes, name: str) -> None:
        """Is it what `name` sealed for this context?

        Raises:
            ChannelError: it is not.
        """
        said = _statement(context, name)
        if not signed(self.identity, self.signature, _signed(said, self.identity, self.ephemeral, self.box)):
            raise ChannelError(
                f"The seed of {name} must be signed by it for this run, round, attempt, hub, length and helper. "
                "Got one of another, or a forged one."
            )

    def opened(self, context: bytes, name: str, key: X25519PrivateKey) -> bytes:
        """The seed.

        Raises:
            ChannelError: it was not sealed for this context and key.
        """
        self.check(context, name)
        said = _statement(context, name)
        try:
            return AESGCM(agreed(key, self.ephemeral, context, said)).decrypt(_NONCE, self.box, said)
        except InvalidTag:
            raise ChannelError(f"The seed of {name} must be sealed for this helper. It cannot be opened.") from None


def _statement(context: bytes, name: str) -> bytes:
    return digest(PROTOCOL, "seed", context.hex(), name)


def _signed(statement: bytes, *held: bytes) -> bytes:
    return digest(PROTOCOL, "signed", statement.hex(), *(h.hex() for h in held))
