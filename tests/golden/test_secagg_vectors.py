"""The vectors of docs/guides/secagg-vectors.md, which were made by other code than this library's."""

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from comity.channels.circle import Roster, Terms
from comity.channels.graph import Odds, ordered
from comity.channels.identity import Keys, agreed, derived, sha256
from comity.channels.layout import Form, lay
from comity.channels.masks import mask
from comity.channels.member import said
from comity.channels.records import bitmap
from comity.channels.shamir import join, split
from comity.core.contribution import Contribution
from comity.core.round import Round

V = json.loads(Path(__file__).with_name("secagg.json").read_text(encoding="utf-8"))
NAMES = tuple(a["name"] for a in V["adverts"])


def raw(name, key):
    return bytes.fromhex(next(a for a in V["adverts"] if a["name"] == name)[key])


def hexed(where, key):
    return bytes.fromhex(V[where][key])


@pytest.fixture
def terms():
    threshold, groups, minimum, degree = V["context"]["settings"]
    return Terms(threshold, groups, minimum, degree, Odds(*V["context"]["odds"]), None)


@pytest.fixture
def turn():
    run, number, attempt, hub, asked = V["context"]["turn"]
    return Round(run, 0, number, attempt, hub, asked=asked)


class Given:
    """A secret whose keys are those of the vectors."""

    def __init__(self, name):
        self.name, self.identity = name, Ed25519PrivateKey.from_private_bytes(raw(name, "identity private"))

    def key(self, *purpose):
        return raw(self.name, {"c": "c private", "s": "s private"}.get(purpose[1], purpose[1]))

    def sign(self, data):
        return self.identity.sign(data)

    def public_key(self):
        return self.identity.public_key().public_bytes_raw()


def test_context_and_adverts(terms, turn):
    assert terms.context(turn).hex() == V["context"]["sha256"]
    for a in V["adverts"]:
        advert = Keys.of(Given(a["name"]), turn).advert(a["name"], terms.context(turn))
        assert advert.packed().hex() == a["advert"]
        advert.check(a["name"], terms.context(turn))


def test_order(terms, turn):
    roster = Roster(NAMES, tuple(sha256(raw(n, "nonce")) for n in NAMES))
    assert roster.sha256.hex() == V["order"]["roster sha256"]
    want = V["order"]["without nonces"]
    (circle,) = terms.circles(roster, dict.fromkeys(NAMES, b""), turn)
    assert (list(circle.names), circle.bond.hex()) == (want["order"], want["bond"])
    want = V["order"]["with nonces"]
    (circle,) = terms.circles(roster, {n: raw(n, "nonce") for n in NAMES}, turn)
    assert list(circle.names) == want["order"] == list(ordered(NAMES, bytes.fromhex(want["beacon"])))


def test_keys_and_sealed_shares():
    bond = bytes.fromhex(V["order"]["without nonces"]["bond"])
    s, c = (X25519PrivateKey.from_private_bytes(raw("ann", k)) for k in ("s private", "c private"))
    bob = [bytes.fromhex(V["adverts"][1]["advert"])[i : i + 32] for i in (64, 32)]
    assert agreed(s, bob[0], bond, b"pair").hex() == V["keys"]["pair of ann and bob"]
    assert derived(raw("ann", "b"), bond, b"self").hex() == V["keys"]["self of ann"]
    key = agreed(c, bob[1], bond, b"share 2>0")
    assert key.hex() == V["keys"]["share 2>0 of ann and bob"]
    assert AESGCM(key).encrypt(bytes(12), hexed("sealed share", "plain"), b"") == hexed("sealed share", "sealed")


def test_shares():
    v = V["shares"]
    shares = split(hexed("shares", "secret"), v["threshold"], v["xs"], hexed("shares", "random"))
    assert [s.hex() for s in shares] == v["shares"]
    assert join(v["xs"][1:], shares[1:])[1:] == hexed("shares", "secret")


def test_layout_and_masks():
    v = V["layout"]
    value = {k: np.array(x) for k, x in v["value"].items()}
    c = Contribution("delta", value, v["weight"], {k: tuple(x) for k, x in v["metrics"].items()})
    form, words = lay(c, v["asked"])
    assert words.tobytes().hex() == v["words"]
    mask(words, form, [hexed("masked", "plus")], [hexed("masked", "minus")])
    assert words.tobytes().hex() == V["masked"]["words"]
    long = Form("delta", str(100_000))
    stream = np.zeros(long.size, np.uint32)
    mask(stream, long, [hexed("mask", "key")])
    assert stream.tobytes()[:32].hex() == V["mask"]["first 32 bytes"]
    assert sha256(stream.tobytes()[:300_000]).hex() == V["mask"]["sha256 of 300000 bytes"]


def test_survivors():
    v = V["survivors"]
    assert bitmap(v["positions"], v["of"]).hex() == v["list"]
    bond = bytes.fromhex(V["order"]["without nonces"]["bond"])
    assert said(bond, bytes.fromhex(v["list"])).hex() == v["signed"]
