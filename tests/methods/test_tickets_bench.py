"""The splits and the choices of benchmarks/tickets.py, on images that are made up."""

import gzip
import io
import sys
import types
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS = ("images", "race", "shots", "tickets")


@pytest.fixture(scope="module")
def load() -> Iterator[Any]:
    """Import a module of the benchmarks; nothing of them stays behind."""
    sys.path.insert(0, str(BENCHMARKS))
    yield import_module
    sys.path.remove(str(BENCHMARKS))
    for name in [n for n in sys.modules if n.split(".")[0] in OURS]:
        del sys.modules[name]


@pytest.fixture
def images(load: Any) -> Any:
    return load("images")


def made(images: Any, each: int = 60) -> Any:
    """Ten classes; the value of every pixel of an image is its number, so that rows can be told apart."""
    y = np.tile(np.arange(10), each)
    x = np.arange(len(y), dtype="float32")[:, None, None, None] * np.ones((1, 1, 2, 2), "float32")
    return images.Images((x, y), (x.copy(), y.copy()), 0.0, 1.0)


def test_train_and_validation_images_belong_to_one_client_alone(images: Any) -> None:
    clients = images.dealt(made(images), images.Split(shots=3, valid=2, test=5, clients=12), 0)
    rows = np.concatenate([c.rows[part] for c in clients.values() for part in ("train", "valid")])
    assert len(clients) == 12
    assert len(np.unique(rows)) == len(rows) == 12 * 10 * 5


def test_a_split_is_the_same_each_time_and_another_with_another_seed(images: Any) -> None:
    how, given = images.Split(shots=3, valid=2, test=5, clients=4), made(images)
    first, again, other = (images.dealt(given, how, seed) for seed in (1, 1, 2))
    for name in first:
        for part in ("train", "valid", "test"):
            assert all(
                np.array_equal(a, b)
                for a, b in zip(getattr(first[name], part), getattr(again[name], part), strict=True)
            )
    assert any(not np.array_equal(first[n].rows["train"], other[n].rows["train"]) for n in first)


@pytest.mark.parametrize("classes", [2, 5, 10])
def test_classes_go_round(images: Any, classes: int) -> None:
    how = images.Split(classes=classes, shots=2, valid=1, test=3, clients=20)
    clients = images.dealt(made(images), how, 0).values()
    counts = [np.bincount(c.train[1], minlength=10) for c in clients]
    assert all(sorted(c) == [0] * (10 - classes) + [2] * classes for c in counts)
    assert len({*np.sum(counts, 0).tolist()}) == 1
    for c in clients:
        assert {*c.valid[1]} == {*c.test[1]} == {*c.train[1]}


def test_a_shift_is_one_and_the_same_for_all_images_of_a_client(images: Any) -> None:
    how = images.Split(shots=3, valid=2, test=5, clients=4)
    slopes = []
    for c in images.dealt(made(images), how, 0).values():
        seen = np.concatenate([getattr(c, part)[0][:, 0, 0, 0] for part in ("train", "valid", "test")])
        was = np.concatenate([c.rows[part] for part in ("train", "valid", "test")])
        slope, offset = np.polyfit(was, seen, 1)
        np.testing.assert_allclose(seen, slope * was + offset, atol=1e-2)
        slopes.append(abs(slope))
    assert all(0.4 <= s <= 1.4 for s in slopes)
    assert len({*np.round(slopes, 3)}) == 4


def test_too_few_images_are_said(images: Any) -> None:
    with pytest.raises(ValueError, match="not enough images"):
        images.dealt(made(images, each=3), images.Split(shots=3, valid=2, test=1, clients=4), 0)


def test_idx_files_are_read_and_made_small(images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnist").mkdir()
    x, y = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4), np.array([2, 0, 1], np.uint8)
    for part in ("train", "t10k"):
        for kind, values in (("images-idx3", x), ("labels-idx1", y)):
            head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
            packed = gzip.compress(head + values.tobytes())
            (tmp_path / "mnist" / f"{part}-{kind}-ubyte.gz").write_bytes(packed)
    monkeypatch.setenv("COMITY_DATA", str(tmp_path))
    images.mnist.cache_clear()
    found = images.mnist()
    images.mnist.cache_clear()
    assert found.shape == (1, 2, 2)
    assert found.train[0][0, 0, 0, 0] == pytest.approx((0 + 1 + 4 + 5) / 4 / 255)
    assert found.test[1].tolist() == [2, 0, 1]


def test_jpeg_files_are_read_by_folder(images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for pillow: one byte is the red of the whole image."""

    class Opened:
        def __init__(self, file: io.BytesIO) -> None:
            self.red = file.read()[0]

        def convert(self, mode: str) -> Any:
            return np.full((4, 4, 3), (self.red, 0, 0), np.uint8)

    monkeypatch.setitem(sys.modules, "PIL", types.SimpleNamespace(Image=types.SimpleNamespace(open=Opened)))
    (tmp_path / "cifar10-jpg").mkdir()
    with zipfile.ZipFile(tmp_path / "cifar10-jpg" / "some.zip", "w") as packed:
        for name, red in (("train/cat/0.jpg", 51), ("train/ant/0.jpg", 102), ("test/cat/0.jpg", 255)):
            packed.writestr(name, bytes([red]))
    monkeypatch.setenv("COMITY_DATA", str(tmp_path))
    images.cifar.cache_clear()
    found = images.cifar()
    images.cifar.cache_clear()
    assert found.shape == (3, 2, 2)
    assert found.train[1].tolist() == [0, 1]
    np.testing.assert_allclose(found.train[0][:, 0, 0, 0], [0.4, 0.2], rtol=1e-6)
    assert found.test[1].tolist() == [1]


def test_images_that_are_not_there_are_named(images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMITY_DATA", str(tmp_path))
    images.mnist.cache_clear()
    with pytest.raises(images.AbsentError, match=r"mnist; set COMITY_DATA"):
        images.mnist()


def test_validation_decides_and_not_the_test(load: Any) -> None:
    figures = load("shots.figures")
    ways = {
        "none": {"test": [0.9, 0.9], "valid": [0.5, 0.5], "size": 10, "sent": 7},
        "all": {"test": [0.1, 0.3], "valid": [0.6, 0.5], "size": 10, "sent": 8},
    }
    run = {"ways": ways, "up": 1, "down": 2, "seconds": 3.0, "dense": 20}
    row = figures.found(figures.Line("FedAvg", "fedavg", ("none", "all")), {0: run})
    assert row.way == "all"
    assert row.facts[0]["down"] == 2 + 2 * 8
    assert figures.cells(row, [])[:6] == ["FedAvg", "all", "1", "20.0", "10.0", "12.0"]


def test_a_difference_is_paired_by_seed_and_client(load: Any) -> None:
    figures = load("shots.figures")
    base = {s: np.linspace(0.2, 0.8, 20) for s in (0, 1)}
    rows = [
        figures.Found(figures.Line(n, n), "none", {s: a + by for s, a in base.items()}, {})
        for n, by in (("a", 0.05), ("b", 0.0))
    ]
    mean, low, high, worst, seeds = figures.gain(*rows)
    assert (mean, low, high, worst, seeds) == pytest.approx((5.0, 5.0, 5.0, 5.0, 2))


def test_seeds_and_rows_are_read(load: Any) -> None:
    tickets = load("tickets")
    assert tickets.seeds_of("0,10-12") == [0, 10, 11, 12]
    runs = {line.run for line in tickets.LINES}
    assert runs == {"alone", *tickets.METHODS, *tickets.RACES}
    assert {*tickets.AGAINST} <= {line.name for line in tickets.LINES}
    assert tickets.Kept.read(None).done == {}
