"""Tickets in files: what comes back, how small they are, and that no damage passes."""

import hashlib
import os
import tempfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import comity as co
from comity.core.wire import decode_tree, encode_tree
from comity.deploy.coding import BLOCK, from_bfloat16, from_int8, to_bfloat16, to_int8
from comity.deploy.format import END, MAGIC, START, decode

RNG = np.random.default_rng(0)
SHAPES = {"0.weight": (16, 1, 3, 3), "4.weight": (32, 16, 3, 3), "8.weight": (64, 32, 3, 3), "13.weight": (64, 576)}
DENSE = 245_608
"""Bytes of the network of 61,050 parameters that these shapes are of, with its running statistics."""


def network(density: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Numbers as they are after pruning by magnitude: the largest of a normal distribution in each leaf."""
    rng = np.random.default_rng(1)
    params = {n: rng.normal(size=s).astype("float32") for n, s in {**SHAPES, "16.weight": (10, 64)}.items()}
    cut = np.quantile(np.abs(np.concatenate([x.ravel() for x in params.values()])), 1 - density)
    mask = {n: np.abs(x) > cut for n, x in params.items()}
    for i, width in ((1, 16), (5, 32), (9, 64), (14, 64)):
        params |= {f"{i}.{n}": rng.normal(size=width).astype("float32") for n in ("bias", "running_mean")}
        params |= {f"{i}.{n}": rng.random(width).astype("float32") for n in ("weight", "running_var")}
    return params | {"16.bias": rng.normal(size=10).astype("float32")}, mask


def small() -> co.Ticket:
    w = np.where(RNG.random((3, 5)) < 0.4, RNG.normal(size=(3, 5)), 0).astype("float32")
    return co.Ticket.of({"w": w, "b": np.array([1.5, -2.0], "float32")}, metrics={"accuracy": 0.5})


def same(a: co.Ticket, b: co.Ticket) -> bool:
    return (
        list(a.params) == list(b.params)
        and all(a.params[n].tobytes() == b.params[n].tobytes() for n in a.params)
        and all(a.params[n].shape == b.params[n].shape for n in a.params)
        and a.mask.keys() == b.mask.keys()
        and all(np.array_equal(a.mask[n], b.mask[n]) for n in a.mask)
        and (a.model, a.metrics) == (b.model, b.metrics)
    )


def resealed(body: bytes) -> bytes:
    """A forger knows how to write a sha256."""
    return body + hashlib.sha256(body).digest()


def written(header: dict[str, object], body: bytes) -> bytes:
    head = zlib.compress(encode_tree(header))
    return resealed(START.pack(MAGIC, 1, len(head)) + head + zlib.compress(body))


SHAPE = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), st.tuples(SHAPE, st.booleans()), min_size=1, max_size=5), st.integers(0, 99)
)
def test_float32_comes_back_to_the_bit(leaves, seed) -> None:
    rng = np.random.default_rng(seed)
    params = {n: np.asarray(rng.normal(size=s), "float32") for n, (s, _) in leaves.items()}
    mask = {n: np.asarray(rng.random(s) < rng.random()) for n, (s, masked) in leaves.items() if masked}
    ticket = co.Ticket(params, mask, "a model", {"accuracy": rng.random()})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "t"
        assert ticket.save(path, "float32") == path.stat().st_size == ticket.size("float32")
        assert same(co.Ticket.load(path), ticket)


def test_kept_zeros_and_signs_come_back(tmp_path: Path) -> None:
    w = np.array([[0.0, -0.0], [1e-42, -3e38]], "float32")
    ticket = co.Ticket.of({"w": w}, {"w": np.array([[True, True], [True, True]])})
    ticket.save(tmp_path / "t", "float32")
    assert co.Ticket.load(tmp_path / "t").params["w"].tobytes() == w.tobytes()
    assert not co.Ticket.of({"w": w}).mask["w"][0].any()
    assert co.Ticket.of({"w": -w}, {"w": w > 0}).params["w"].tobytes() == np.float32([[0, 0], [-1e-42, 0]]).tobytes()


@pytest.mark.parametrize("kind", ["int8", "bfloat16"])
def test_what_is_rounded_is_near(kind: str, tmp_path: Path) -> None:
    params, mask = network(0.3)
    ticket = co.Ticket.of(params, mask)
    ticket.save(tmp_path / "t", kind)
    again = co.Ticket.load(tmp_path / "t")
    for name, x in params.items():
        if name not in mask:
            assert (np.abs(again.params[name] - x) <= np.abs(x) * 2.0**-8).all()
            continue
        assert not again.params[name][~mask[name]].any()
        kept, found = x[mask[name]], again.params[name][mask[name]]
        for i in range(0, kept.size, BLOCK):
            top = np.abs(kept[i : i + BLOCK]).max()
            half = top / 127 * (1 + 2.0**-7) / 2 if kind == "int8" else np.abs(kept[i : i + BLOCK]) * 2.0**-8
            assert (np.abs(found - kept)[i : i + BLOCK] <= half).all()


@settings(max_examples=200, deadline=None)
@example([1.401298464324817e-45])
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, max_value=2.0**126, min_value=-(2.0**126))))
def test_int8_is_within_half_a_scale(numbers: list[float]) -> None:
    x = np.array(numbers, "float32")
    whole, scale = to_int8(x)
    step = np.repeat(from_bfloat16(scale).astype(float), BLOCK)[: x.size]
    assert (np.abs(from_int8(whole, scale).astype(float) - x) <= step / 2 * (1 + 1e-6)).all()
    assert np.abs(whole.astype(int)).max(initial=0) <= 127


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bfloat16_is_the_nearest(number: float) -> None:
    torch = pytest.importorskip("torch")
    x = np.array([number], "float32")
    wanted = torch.from_numpy(x).bfloat16().float().numpy()
    found = from_bfloat16(to_bfloat16(x))
    assert np.isfinite(found).all()
    assert found.tobytes() == wanted.tobytes() or not np.isfinite(wanted).all()


@pytest.mark.parametrize(("density", "kind", "most"), [(0.3, "int8", 9), (0.06, "int8", 30), (0.06, "float32", 12)])
def test_the_file_is_as_small_as_it_is_said_to_be(density: float, kind: str, most: float, tmp_path: Path) -> None:
    ticket = co.Ticket.of(*network(density))
    written = ticket.save(tmp_path / "t", kind)
    assert (tmp_path / "t").stat().st_size == written
    assert written * most <= DENSE
    assert ticket.density == pytest.approx(density, abs=1e-4)
    assert ticket.densities().keys() == ticket.mask.keys()


def test_equal_tickets_are_equal_files(tmp_path: Path) -> None:
    params, mask = network(0.06)
    backwards = dict(reversed(params.items()))
    for name, order in (("a", params), ("b", backwards)):
        co.Ticket.of(order, mask).save(tmp_path / name, "bfloat16")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    co.Ticket.load(tmp_path / "a").save(tmp_path / "c", "bfloat16")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()


@pytest.mark.parametrize("kind", ["int8", "bfloat16", "float32"])
def test_every_damaged_byte_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "t"
    small().save(path, kind)
    data = path.read_bytes()
    for i in range(len(data)):
        for bit in (1, 128):
            path.write_bytes(data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :])
            with pytest.raises(co.WireError):
                co.Ticket.load(path)
    for cut in [data[:n] for n in range(len(data))] + [data + b"\0", b"", data[1:], data * 2]:
        path.write_bytes(cut)
        with pytest.raises(co.WireError, match=r"Got"):
            co.Ticket.load(path)


@pytest.mark.parametrize("kind", ["int8", "bfloat16", "float32"])
def test_a_forged_file_is_refused_or_a_sound_ticket(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "t"
    small().save(path, kind)
    data, refused = path.read_bytes()[:-END], 0
    _, _, length = START.unpack_from(data)
    at = START.size + length
    raw = zlib.decompress(data[at:])
    mutants = [data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :] for i in range(len(data)) for bit in (1, 128)]
    mutants += [data[:at] + zlib.compress(raw[:i] + bytes([raw[i] ^ 255]) + raw[i + 1 :]) for i in range(len(raw))]
    mutants += [data[:at] + zlib.compress(raw + b"\0"), data[:at] + zlib.compress(raw[:-1])]
    for mutant in mutants:
        path.write_bytes(resealed(mutant))
        try:
            found = co.Ticket.load(path)
        except co.WireError:
            refused += 1
            continue
        assert all(np.isfinite(x).all() for x in found.params.values())
        assert not any(found.params[n][~m].any() for n, m in found.mask.items())
    assert refused > len(data)


@pytest.mark.parametrize(
    ("leaves", "body"),
    [
        ({"w": "99999999999999x9 0 2"}, b"\x01\0"),
        ({"w": "0x99999999999999"}, b""),
        ({"w": "3x-1"}, b""),
        ({"w": "03"}, b""),
        ({"w": " 3"}, b""),
        ({"w": "1_0"}, b""),
        ({"w": "9" * 5000}, b""),
        ({"w": "8 9 2"}, b"\0\xff"),
        ({"w": "8 8 999999"}, b"\0\xff"),
        ({"w": "8 8"}, b"\0\xff"),
        ({"w": "8 8 2 1"}, b"\0\xff"),
        ({"w": "8 7 2"}, b"\0\xff"),
        ({"w": 8}, b""),
        ({"w": "x".join("1" * 40)}, b"\0" * 4),
        ({"w": "1", "b": "1"}, b"\0" * 8),
        ("w", b""),
        ({}, b""),
        ({"w": "1"}, b"\0\0\xc0\x7f"),
        ({"w": "1"}, b"\0" * 2**20),
    ],
)
def test_what_is_only_declared_is_refused(leaves: object, body: bytes, tmp_path: Path) -> None:
    header = {"leaves": leaves, "metrics": {}, "model": "", "rest": "float32", "values": "int8"}
    (tmp_path / "t").write_bytes(written(header, body))
    with pytest.raises(co.WireError, match=r"Got"):
        co.Ticket.load(tmp_path / "t")


@pytest.mark.parametrize(
    "changed",
    [
        {"values": "int4"},
        {"rest": "int8"},
        {"values": 3},
        {"values": np.zeros(2)},
        {"model": 3},
        {"metrics": {"accuracy": float("nan")}},
        {"metrics": {"accuracy": "high"}},
        {"metrics": "none"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_forged_header_is_refused(changed: dict[str, object], tmp_path: Path) -> None:
    header = {"leaves": {"w": "1"}, "metrics": {}, "model": "", "rest": "float32", "values": "int8"}
    (tmp_path / "t").write_bytes(written(header, bytes(4)))
    assert co.Ticket.load(tmp_path / "t").params["w"] == 0
    forged = dict(sorted({**header, **changed}.items()))
    (tmp_path / "t").write_bytes(written(forged, bytes(4)))
    with pytest.raises(co.WireError, match=r"Got"):
        co.Ticket.load(tmp_path / "t")


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(2**27), 9)
    head = zlib.compress(
        encode_tree({"leaves": {"w": "8"}, "metrics": {}, "model": "", "rest": "float32", "values": "int8"})
    )
    starts = START.pack(MAGIC, 1, len(head)) + head + bomb, START.pack(MAGIC, 1, len(bomb)) + bomb
    for start in starts:
        (tmp_path / "t").write_bytes(resealed(start))
        tracemalloc.start()
        with pytest.raises(co.WireError, match="inflate"):
            co.Ticket.load(tmp_path / "t")
        assert tracemalloc.get_traced_memory()[1] < 2**24
        tracemalloc.stop()


def test_what_is_too_large_is_refused_before_it_is_made(tmp_path: Path) -> None:
    """A mask that keeps nothing is a few bytes, whatever its size."""
    huge = {"leaves": {"w": "4096x65536 0 2"}, "metrics": {}, "model": "", "rest": "float32", "values": "int8"}
    (tmp_path / "t").write_bytes(written(huge, b"\x01\0"))
    with pytest.raises(co.WireError, match="at most 1000 bytes"):
        co.Ticket.load(tmp_path / "t", limit=1000)
    small().save(tmp_path / "s")
    numbers = 4 * 17
    assert co.Ticket.load(tmp_path / "s", limit=numbers).density > 0
    with pytest.raises(co.WireError, match="larger limit"):
        co.Ticket.load(tmp_path / "s", limit=numbers - 1)


def test_another_version_is_named(tmp_path: Path) -> None:
    small().save(tmp_path / "t")
    data = bytearray((tmp_path / "t").read_bytes()[:-END])
    data[4] = 2
    (tmp_path / "t").write_bytes(resealed(bytes(data)))
    with pytest.raises(co.WireError, match=r"version of a ticket file must be 1\. Got 2"):
        co.Ticket.load(tmp_path / "t")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = small()
    ticket.save(tmp_path / "t")
    before = (tmp_path / "t").read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(co.LedgerError, match="full"):
        ticket.save(tmp_path / "t", "float32")
    assert (tmp_path / "t").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_a_ticket_is_not_written_into() -> None:
    ticket, w = small(), np.ones((2, 2), "float32")
    with pytest.raises(ValueError, match="read-only"):
        ticket.params["w"][0, 0] = 1
    mine = co.Ticket.of({"w": w})
    w[:] = 0
    assert mine.params["w"].all()


def test_the_header_is_a_plain_tree(tmp_path: Path) -> None:
    small().save(tmp_path / "t")
    data = (tmp_path / "t").read_bytes()
    _, _, length = START.unpack_from(data)
    header = decode_tree(zlib.decompress(data[START.size : START.size + length]))
    assert list(header) == ["leaves", "metrics", "model", "rest", "values"]
    assert header["leaves"]["b"] == "2"
    assert header["leaves"]["w"].startswith("3x5 ")
    assert decode(data).values == "int8"
