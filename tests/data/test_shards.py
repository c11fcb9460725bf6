"""Examples end to end: views, files, cuts, and what is sent to another process."""

import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import comity as co
from comity.data import shards as module

RNG = np.random.default_rng(0)
SIZES = [3, 0, 5, 1, 7]
X, Y = RNG.normal(size=(16, 4)).astype("float32"), np.arange(16) % 3
STORE = co.Shards(X, Y, SIZES)


def same(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert all(p.dtype == q.dtype and p.tolist() == q.tolist() for p, q in zip(one, other, strict=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=12))
def test_each_has_its_own_rows_and_all_have_them_once(sizes):
    n = sum(sizes)
    store = co.Shards(np.arange(2.0 * n).reshape(n, 2), np.arange(n), sizes)
    assert len(store) == len(sizes)
    assert [len(y) for _, y in store] == sizes
    assert np.concatenate([np.zeros(0, int), *(y for _, y in store)]).tolist() == list(range(n))
    assert all((x[:, 0] == 2 * y).all() for x, y in store)


def test_nothing_is_copied():
    assert STORE.X is X
    assert STORE.y is Y
    assert all(np.shares_memory(x, X) and np.shares_memory(y, Y) for x, y in STORE if len(y))
    assert STORE[-1][1].tolist() == STORE[4][1].tolist() == STORE[np.int64(4)][1].tolist() == Y[9:].tolist()


@pytest.mark.parametrize("i", [5, -6, 10**30])
def test_nobody_is_beyond_the_last(i):
    with pytest.raises(IndexError, match=f"5 participants, from 0. Got {i}"):
        STORE[i]


def test_sizes_are_those_that_were_given_and_stay():
    mine = np.array(SIZES, np.uint8)
    store = co.Shards(X, Y, mine)
    mine[0] = 9
    assert store.sizes.tolist() == SIZES
    assert store.sizes.dtype == np.int64


def test_of_pairs_and_of_names_in_order():
    pairs = [(x, y) for x, y in STORE]
    same(co.Shards.of(pairs), STORE)
    same(co.Shards.of(dict(zip("zyxab", pairs, strict=True))), STORE)
    assert co.Shards.of([([[1, 2]], [0]), ([[0.5, 1]], [True])]).X.tolist() == [[1, 2], [0.5, 1]]


@pytest.mark.parametrize(
    "parts",
    [co.dirichlet(Y, 4), co.iid(16, 5), co.shards(Y, 3), list(co.quantity(16, 3).values()), {"a": [], "b": [5, 5, 2]}],
    ids=["dirichlet", "iid", "shards", "a list", "doubled"],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_a_cut_gives_each_the_rows_that_it_names(parts, mapped, tmp_path):
    STORE.save(tmp_path)
    whole = co.Shards.open(tmp_path) if mapped else STORE
    rows = [np.array(r, int) for r in (parts.values() if isinstance(parts, dict) else parts)]
    cut = co.Shards.cut(whole.X, whole.y, parts)
    same(cut, [(X[r], Y[r]) for r in rows])
    assert cut.X.flags.c_contiguous
    assert type(cut.X) is np.ndarray


KINDS = [
    (X, Y),
    (np.asfortranarray(X), Y.astype("int8")),
    (X[:, ::2].astype("float64"), np.array(["a", "bcd"])[Y % 2]),
    (X.reshape(16, 2, 2) > 0, X[:, :2]),
    (X[:, 0], Y.astype("datetime64[D]")),
]


@pytest.mark.parametrize(("x", "y"), KINDS, ids=lambda a: f"{a.dtype}{a.shape}")
@pytest.mark.parametrize("memory", [False, True])
def test_what_was_saved_is_opened(x, y, memory, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WRITTEN", 100)
    store = co.Shards(x, y, SIZES)
    store.save(tmp_path / "new" / "folder")
    found = co.Shards.open(tmp_path / "new" / "folder", memory=memory)
    same(found, store)
    assert isinstance(found.X, np.memmap) != memory
    assert found[0][0].flags.writeable == memory
    assert ("mapped" in repr(found)) != memory
    assert {p.name for p in (tmp_path / "new" / "folder").iterdir()} == set(module.FILES)
    assert np.load(tmp_path / "new" / "folder" / "X.npy", allow_pickle=False).tolist() == x.tolist()


def test_without_participants_or_rows(tmp_path):
    for sizes in ([], [0, 0]):
        co.Shards(X[:0], Y[:0], sizes).save(tmp_path)
        same(co.Shards.open(tmp_path), co.Shards(X[:0], Y[:0], sizes))


def test_a_mapped_one_is_saved_over_itself(tmp_path):
    STORE.save(tmp_path)
    mapped = co.Shards.open(tmp_path)
    mapped.save(tmp_path)
    same(mapped, STORE)
    same(co.Shards.open(tmp_path), STORE)


DAMAGE = {
    "cut": lambda raw: raw[:-1],
    "empty": lambda raw: b"",
    "longer": lambda raw: raw + b"x",
    "other": lambda raw: b"junk" * 99,
    "header": lambda raw: raw.replace(b"descr", b"descx"),
    "Python of old": lambda raw: raw.replace(b"{'descr'", b"({descr'"),
}


@pytest.mark.parametrize("name", module.FILES)
@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_named(name, how, tmp_path):
    STORE.save(tmp_path)
    (tmp_path / name).write_bytes(DAMAGE[how]((tmp_path / name).read_bytes()))
    with pytest.raises(co.ConfigError, match=rf"{name} must be a file of numpy.* Save it again\."):
        co.Shards.open(tmp_path)


@pytest.mark.parametrize("name", module.FILES)
def test_nothing_is_unpickled(name, tmp_path):
    class Spoilt:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it was"),)

    STORE.save(tmp_path)
    for save in (np.save, lambda p, x, **_: p.write_bytes(pickle.dumps(Spoilt()))):
        save(tmp_path / name, np.array([Spoilt()], object), allow_pickle=True)
        with pytest.raises(co.ConfigError, match=name):
            co.Shards.open(tmp_path)
        with pytest.raises(co.ConfigError, match=name):
            co.Shards.open(tmp_path, memory=True)
    assert not (tmp_path / "it was").exists()


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("y.npy", Y[:9], "as many rows as X. Got 9 for 16"),
        ("sizes.npy", np.array([16.0]), "Got an array of float64"),
        ("sizes.npy", np.array([8, 7]), "Got a sum of 15"),
        ("sizes.npy", np.array([-1, 17]), "Got -1"),
        ("X.npy", np.float32(1), "with rows"),
    ],
)
def test_files_that_do_not_go_together(name, array, says, tmp_path):
    STORE.save(tmp_path)
    np.save(tmp_path / name, array)
    with pytest.raises(co.ConfigError, match=rf"do not go together.*{says}.*Save them again\."):
        co.Shards.open(tmp_path)


@pytest.mark.parametrize("step", range(13))
def test_a_save_that_is_interrupted_never_leaves_a_mixture(step, tmp_path, monkeypatch):
    new, left = co.Shards(X + 1, Y + 1, SIZES), [step]
    STORE.save(tmp_path)

    def breaking(real):
        def broken(*args, **kwargs):
            left[0] -= 1
            if left[0] == -1:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        return broken

    monkeypatch.setattr(os, "fsync", breaking(os.fsync))
    monkeypatch.setattr(Path, "replace", breaking(Path.replace))
    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", breaking(np.lib.format.write_array_header_1_0))
    if step < 12:
        with pytest.raises(co.LedgerError, match=r"It is full\. Free some space and save again\."):
            new.save(tmp_path)
    else:
        new.save(tmp_path)
    if step < 6:
        same(co.Shards.open(tmp_path), STORE)
    elif step < 11:
        with pytest.raises(co.ConfigError, match=r"sizes\.npy is missing"):
            co.Shards.open(tmp_path)
    else:
        same(co.Shards.open(tmp_path), new)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("number", "error", "says"),
    [(28, co.LedgerError, "must have room"), (30, co.ConfigError, "must be a folder that can be written. Got: Read")],
)
def test_a_disk_that_takes_nothing(number, error, says, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(error, match=says):
        STORE.save(tmp_path)
    assert not list(tmp_path.iterdir())


def wide(folder, rows=4000, columns=500, people=40):
    """Some megabytes on the disk."""
    x = np.random.default_rng(0).normal(size=(rows, columns)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    co.Shards.cut(x, y, co.quantity(rows, people)).save(folder)
    return co.Shards.open(folder)


def population(store, model):
    return co.Population(len(store), lambda i: co.Trainer(model, store[i]))


def test_a_population_over_mapped_shards_is_sent_as_a_path(tmp_path):
    cloudpickle = pytest.importorskip("cloudpickle")
    store = wide(tmp_path)
    people = population(store, co.Linear(500, 2))
    sent = cloudpickle.dumps(people)
    assert store.X.nbytes > 7_000_000
    assert len(sent) < 20_000
    there = pickle.loads(sent)
    assert there.find("07").data[0].tolist() == store[7][0].tolist()
    inside = next(c.cell_contents for c in there.make.__closure__ if isinstance(c.cell_contents, co.Shards))
    assert isinstance(inside.X, np.memmap)
    held = cloudpickle.dumps(population(co.Shards.open(tmp_path, memory=True), co.Linear(500, 2)))
    assert len(held) > store.X.nbytes


def test_an_own_map_is_sent_as_a_path_and_a_part_of_one_as_it_is(tmp_path):
    X.tofile(tmp_path / "raw")
    for mode in ("r", "r+", "c"):
        mine = np.memmap(tmp_path / "raw", "float32", mode, 0, (16, 4))
        there = pickle.loads(pickle.dumps(co.Shards(mine, Y, SIZES)))
        assert isinstance(there.X, np.memmap) == (mode != "c")
        same(there, STORE)
        part = pickle.loads(pickle.dumps(co.Shards(mine[3:], Y[3:], SIZES[1:])))
        assert type(part.X) is np.ndarray
        same(part, list(STORE)[1:])
    turned = np.memmap(tmp_path / "raw", "float32", "r", 16, (3, 4), "F")
    same(pickle.loads(pickle.dumps(co.Shards(turned, Y[:3], [3]))), [(turned, Y[:3])])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "X.npy").unlink(), "Got: No such file"),
        (lambda f: (f / "X.npy").write_bytes(b""), "Got: a smaller one"),
        (lambda f: co.Shards(X + 1, Y, SIZES).save(f), "Got one that holds something else"),
        (lambda f: co.Shards(X, Y, SIZES[::-1]).save(f), "sizes.npy must be the file that was mapped"),
    ],
)
def test_another_file_in_its_place_is_refused(change, says, tmp_path):
    STORE.save(tmp_path)
    sent = pickle.dumps(co.Shards.open(tmp_path))
    change(tmp_path)
    with pytest.raises(co.ConfigError, match=rf"{says}.*memory=True"):
        pickle.loads(sent)


def test_a_large_file_is_known_again_by_some_of_its_pages(tmp_path):
    sent = pickle.dumps(wide(tmp_path, rows=1000))
    pickle.loads(sent)
    raw = bytearray((tmp_path / "X.npy").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "X.npy").write_bytes(raw)
    with pytest.raises(co.ConfigError, match="holds something else"):
        pickle.loads(sent)


def learnt(people, model, engine=None):
    fed = co.Collaboration(co.FedAvg(model), people, select=co.sample(6), evaluate=False, seed=1)
    return {name: x.tolist() for name, x in fed.run(rounds=3, engine=engine).shared.items()}


def models():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(500, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    return co.Linear(500, 2), co.TorchModel(net, torch.nn.functional.cross_entropy, batch=16)


@pytest.mark.parametrize("model", models(), ids=lambda m: type(m).__name__)
def test_mapped_or_in_memory_the_same_is_learnt(model, tmp_path):
    mapped = wide(tmp_path)
    there = learnt(population(mapped, model), model)
    assert there == learnt(population(co.Shards.open(tmp_path, memory=True), model), model)
    assert there == learnt({f"{i:02}": co.Trainer(model, pair) for i, pair in enumerate(mapped)}, model)


def test_a_worker_process_opens_the_files_itself(tmp_path):
    pytest.importorskip("cloudpickle")
    model = co.Linear(500, 2)
    people = population(wide(tmp_path), model)
    assert learnt(people, model, co.Local(workers=2)) == learnt(people, model)


def test_only_the_rows_in_use_are_in_memory(tmp_path):
    model = co.Linear(500, 2)
    store = wide(tmp_path)
    people = population(store, model)
    learnt(people, model)
    tracemalloc.start()
    learnt(people, model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < store.X.nbytes / 3


GROWTH = """
import sys
import numpy as np, torch, comity as co

def own():
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1]) / 1024

store = co.Shards.open(sys.argv[1])
net = torch.nn.Sequential(torch.nn.Linear(500, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
model = co.TorchModel(net, torch.nn.functional.cross_entropy, batch=64)

def learn(n):
    people = co.Population(n, lambda i: co.Trainer(model, store[i]))
    co.Collaboration(co.FedAvg(model), people, evaluate=False).run(rounds=2, engine=co.Local(executor="sequential"))

before = own()
learn(64)  # so many work together
few = own()
learn(len(store))
print(few - before, own() - few, store.X.nbytes / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_stays_flat_over_a_hundred_megabytes(tmp_path):
    pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(52_000, 500)).astype("float32")
    co.Shards(x, (x[:, 0] > 0).astype(int), [130] * 400).save(tmp_path)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", GROWTH, tmp_path],
        capture_output=True, text=True, timeout=300, env=env, check=True,
    )  # fmt: skip
    first, grown, size = map(float, done.stdout.split())
    print(f"{size:.0f} MiB read, memory grew by {first:.1f} MiB for the first 64 and by {grown:.1f} MiB for all")
    assert size > 95
    assert first + grown < size / 2
    assert grown < 20
