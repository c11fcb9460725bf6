"""The laws of transforms."""

from dataclasses import replace
from typing import Any

from comity.core.checks import part
from comity.core.contribution import Contribution
from comity.core.parts import Transform
from comity.core.round import Round, Turns
from comity.core.together import Works
from comity.core.tree import frozen, norm
from comity.core.wire import as_tree, decode, decode_tree, encode, encode_tree
from comity.testing.common import SLACK, alike, bits, broken, looks, noise, said, stacked, summed, usual_cohort
from comity.testing.secret import fixed_secret

_ROUNDS = 20


def check_transform(transform: Transform, example: Contribution | None = None) -> None:
    """Hold a transform to its laws.

    `encode` changes neither its input nor the drawer, and gives the same bits when asked again; what
    travels, the drawer and the hub's state are Trees that survive the wire. Decoding gives back names
    and shapes, and every bit where the transform says `lossless = True`. One that says `contracts` never
    raises the L2 norm, over random inputs and twenty rounds that hand the drawer on. One undone on the
    sum, unless it adds noise (`spend`), gives the same before and after adding. `encode_many`, where it has one,
    gives what `encode` gives, to rtol 1e-5.

    Args:
        transform: what to check.
        example: a lifted contribution; by default a float32 delta of three leaves.

    Raises:
        AssertionError: names the transform, the law and what was found.

    Example:
        >>> import comity as co
        >>> from comity.testing import check_transform
        >>> class Nothing:
        ...     decodes, contracts, lossless = "sum", True, True
        ...     def init(self): return None
        ...     def encode(self, c, public, local, round, secret): return c, local
        ...     def decode(self, c, state, round, secret): return c, state
        >>> check_transform(Nothing())
    """
    needs = ("decodes", "init()", "encode()", "decode()")
    part("transform", "check_transform", transform, needs, "an object with both halves")
    if transform.decodes not in ("sum", "each"):
        broken(transform, "decodes", f"`decodes` must be 'sum' or 'each'. Got {transform.decodes!r}.")
    if not isinstance(transform.contracts, bool):
        broken(transform, "contracts", f"`contracts` must be True or False. Got {transform.contracts!r}.")
    c = example or usual_cohort(None)[0]
    for law in (_encodes, _restores, _contracts, _commutes, _travels_down, _stacks):
        law(transform, c)


def _turn(number: int = 0, me: str = "a") -> Round:
    return Round("check", 0, number=number, me=me, roster=3, asked=3, expected=3.0)


def _encode(t: Transform, c: Contribution, local: Any, number: int = 0) -> tuple[Contribution, Any]:
    publish = getattr(t, "publish", None)
    public = publish(t.init(), _turn(number)) if publish else None
    read_only = replace(c, value=frozen(c.value))
    return t.encode(read_only, public, frozen(local), _turn(number), fixed_secret().side("a"))


def _decode(t: Transform, c: Contribution, state: Any, number: int = 0) -> tuple[Contribution, Any]:
    return t.decode(replace(c, value=frozen(c.value)), frozen(state), _turn(number, me=""), fixed_secret())


def _encodes(t: Transform, c: Contribution) -> None:
    before = bits(c)
    encoded, local = said(t, "encode", lambda: _encode(t, c, {}))
    if bits(c) != before:
        broken(t, "inputs", "`encode` must not change the contribution.")
    again, _ = _encode(t, c, {})
    if bits(again) != bits(encoded):
        broken(t, "repeat", "The same contribution, drawer, round and secret must give the same bits.")
    stored = said(t, "drawer", lambda: decode_tree(encode_tree(local)))
    held = encode_tree(local)
    later, _ = said(t, "encode", lambda: _encode(t, c, local, 1))
    if encode_tree(local) != held:
        broken(t, "inputs", "`encode` must not change the drawer that it was given.")
    if bits(_encode(t, c, stored, 1)[0]) != bits(later):
        broken(t, "drawer", "A drawer that was kept on disk must work like the drawer itself.")


def _restores(t: Transform, c: Contribution) -> None:
    encoded, _ = _encode(t, c, {})
    state = t.init()
    held = said(t, "state", lambda: encode_tree(state))
    back, after = said(t, "decode", lambda: _decode(t, encoded, state))
    if encode_tree(state) != held:
        broken(t, "inputs", "`decode` must not change the state that it was given.")
    said(t, "state", lambda: encode_tree(after))
    sent: Any = said(t, "wire", lambda: decode(encode(encoded)))
    if bits(_decode(t, sent, decode_tree(held))[0]) != bits(back):
        broken(t, "wire", "What was encoded must decode to the same after a journey over the wire.")
    if looks(back.value) != looks(c.value):
        broken(t, "restores", f"Decoding must give back names and shapes {looks(c.value)}.")
    exact = getattr(t, "lossless", False)
    if exact and encode_tree(as_tree(back)) != encode_tree(as_tree(c)):
        broken(t, "restores", "It says `lossless`, and must give back every bit.")


def _contracts(t: Transform, c: Contribution) -> None:
    if not t.contracts:
        return
    local: Any = {}
    state = t.init()
    for number in range(_ROUNDS):
        given = replace(c, value=noise(c.value, number))
        encoded, local = _encode(t, given, local, number)
        out = encoded
        if not hasattr(t, "spend"):
            out, state = _decode(t, encoded, state, number)
        size, most = norm(out.value), norm(given.value)
        if not size <= most * (1 + SLACK):
            said = f"It says `contracts`, and must not raise the L2 norm. Got {size:g} from {most:g} in round {number}."
            broken(t, "contracts", said)


def _commutes(t: Transform, c: Contribution) -> None:
    if t.decodes != "sum" or hasattr(t, "spend"):
        return
    encoded = [_encode(t, replace(c, value=noise(c.value, i)), {})[0] for i in range(3)]
    together = _decode(t, summed(encoded), t.init())[0]
    apart = summed([_decode(t, e, t.init())[0] for e in encoded])
    alike(t, "sum", apart.value, together.value, "Undone on the sum, it must give the sum of what each gives.")


def _travels_down(t: Transform, c: Contribution) -> None:
    pack, unpack = getattr(t, "pack", None), getattr(t, "unpack", None)
    if pack and unpack:
        packed = said(t, "pack", lambda: pack(c, t.init(), "a", _turn(me="")))
        back, local = said(t, "unpack", lambda: unpack(decode(encode(packed)), {}, _turn()))
        said(t, "drawer", lambda: encode_tree(local))
        if looks(back.value) != looks(c.value):
            broken(t, "unpack", f"`unpack` must give back names and shapes {looks(c.value)}.")


def _stacks(t: Transform, c: Contribution) -> None:
    many: Any = getattr(t, "encode_many", None)
    if many is None:
        return
    names = ["a", "b", "c"]
    cohort = [replace(c, value=noise(c.value, i), sender=name) for i, name in enumerate(names)]
    publish = getattr(t, "publish", None)
    public = publish(t.init(), _turn()) if publish else None
    secrets = [fixed_secret().side(name) for name in names]
    works = Works([None] * 3, cohort, [{}] * 3, Turns(_turn(me=""), names), secrets)
    found = said(t, "stacks", lambda: list(many(stacked(cohort), public, works)))
    for (got, after), one, name, secret in zip(found, cohort, names, secrets, strict=True):
        want, local = t.encode(one, public, {}, _turn(me=name), secret)
        alike(t, "stacks", got.value, want.value, f"`encode_many` must give what `encode` gives ({name}).")
        alike(t, "stacks", got.weight, want.weight, f"`encode_many` must give what `encode` gives ({name}).")
        if encode_tree(after) != encode_tree(local):
            broken(t, "stacks", f"`encode_many` must leave the drawer that `encode` leaves ({name}).")
