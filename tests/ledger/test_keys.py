"""One root, one stream for each purpose, one identity; and the root is never shown."""

import os
import subprocess
import sys

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from comity.core.errors import ConfigError
from comity.ledger.keys import SideSecret


def first(rng):
    return rng.integers(0, 2**63, 4).tolist()


def test_a_purpose_has_its_own_stream_and_a_replay_draws_it_again():
    root = os.urandom(32)
    purposes = [(), ("noise",), ("noise", "1"), ("noise1",), ("1", "noise"), ("rng", "noise")]
    streams = {tuple(first(SideSecret(root).rng(*p))) for p in purposes}
    assert len(streams) == len(purposes)
    assert first(SideSecret(root).rng("noise", "1")) == first(SideSecret(root).rng("noise", "1"))
    assert first(SideSecret(os.urandom(32)).rng("noise")) != first(SideSecret(root).rng("noise"))


def test_a_signature_verifies_and_a_changed_message_does_not():
    secret = SideSecret(os.urandom(32))
    key = Ed25519PublicKey.from_public_bytes(secret.public_key())
    signature = secret.sign(b"head 7be1")
    assert len(signature) == 64
    key.verify(signature, b"head 7be1")
    with pytest.raises(InvalidSignature):
        key.verify(signature, b"head 7be2")
    assert secret.side("ada").public_key() != secret.side("bob").public_key() != secret.public_key()


def test_the_root_is_never_shown():
    root = b"correct horse battery staple 123"
    shown = repr(SideSecret(root)) + str(SideSecret(root)) + f"{SideSecret(root)}"
    assert "horse" not in shown
    with pytest.raises(ConfigError, match=r"at least 32 bytes. Got 5") as e:
        SideSecret(b"horse")
    assert "horse" not in str(e.value)


def test_cryptography_is_loaded_only_to_sign():
    code = "import sys, comity.ledger.keys as k; k.SideSecret(bytes(32)).rng('a'); print('cryptography' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
