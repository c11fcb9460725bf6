"""Small images for benchmarks, from files that are at hand, and clients who hold a few of them each.

`mnist()` reads the four gzipped idx files in `mnist/`, `cifar()` the zip of JPEG files in `cifar10-jpg/` (it wants
pillow; the copy there is lossy and has 20,000 training images). Both are averaged over 2x2 pixels: 14x14 grey and
16x16 colour. The folder is ../shared/data beside the repository, or what COMITY_DATA names.

    python benchmarks/images.py        what there is
"""

import gzip
import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

Rows = tuple[Any, Any]


class AbsentError(RuntimeError):
    """Images that are not at hand; the message says what to do."""


@dataclass(frozen=True)
class Images:
    """Training and test images of ten classes.

    Attributes:
        train: (X, y): X (images, channels, height, width) float32 in 0..1, y (images,) int64.
        test: the same, of the standard test files.
        mean: to be taken off, of all training pixels.
        scale: to divide by.
    """

    train: Rows
    test: Rows
    mean: float
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height, width."""
        return tuple(self.train[0].shape[1:])


@dataclass(frozen=True)
class Split:
    """How images are dealt out: some classes for each client, a few images of each, and one fixed shift of its own.

    Attributes:
        classes: how many each client has; they go round, so that each class has as many clients.
        shots: training images of each of its classes.
        valid: validation images of each of its classes.
        test: test images of each of its classes.
        clients: how many.
        shift: a gain in 0.4..1.4, an offset in -0.3..0.3 and, for half of them, inversion; False: none.
    """

    classes: int = 10
    shots: int = 5
    valid: int = 5
    test: int = 40
    clients: int = 20
    shift: bool = True


@dataclass(frozen=True)
class Client:
    """What one of them holds: (X, y) to train on, to choose by and to be tested on, and the numbers of those rows."""

    train: Rows
    valid: Rows
    test: Rows
    rows: Mapping[str, Any]


def folder(name: str) -> Path:
    """Where images of this name lie.

    Raises:
        AbsentError: they do not.
    """
    beside = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    path = Path(os.environ.get("COMITY_DATA", beside)) / name
    if not path.is_dir():
        raise AbsentError(f"there is no {path}; set COMITY_DATA")
    return path


@cache
def mnist() -> Images:
    """MNIST (LeCun, Cortes, Burges), 60,000 + 10,000 images, averaged to 14x14.

    Raises:
        AbsentError: one of the four files is missing.
    """
    here = folder("mnist")
    x, tx = (_pooled(_idx(here / f"{part}-images-idx3-ubyte.gz")[:, None]) for part in ("train", "t10k"))
    y, ty = (_idx(here / f"{part}-labels-idx1-ubyte.gz").astype("int64") for part in ("train", "t10k"))
    return Images((x, y), (tx, ty), float(x.mean()), float(x.std()))


@cache
def cifar() -> Images:
    """CIFAR-10 (Krizhevsky, 2009) as JPEG, averaged to 16x16.

    Raises:
        AbsentError: there is no such file, or no pillow to read it.
    """
    try:
        from PIL import Image
    except ImportError:
        raise AbsentError("CIFAR-10 here is JPEG, and there is no pillow to read it: pip install pillow") from None
    found = sorted(folder("cifar10-jpg").glob("*.zip"))
    if not found:
        raise AbsentError(f"there is no zip in {folder('cifar10-jpg')}")
    with zipfile.ZipFile(found[0]) as packed:
        names = sorted(n for n in packed.namelist() if n.endswith(".jpg"))
        kinds = sorted({n.split("/")[-2] for n in names})

        def part(which: str) -> Rows:
            mine = [n for n in names if n.split("/")[-3] == which]
            x = np.stack([np.asarray(Image.open(io.BytesIO(packed.read(n))).convert("RGB")) for n in mine])
            y = np.array([kinds.index(n.split("/")[-2]) for n in mine], "int64")
            return _pooled(x.transpose(0, 3, 1, 2)), y

        train, test = part("train"), part("test")
    return Images(train, test, float(train[0].mean()), float(train[0].std()))


def dealt(images: Images, how: Split, seed: int) -> dict[str, Client]:
    """The clients of one seed: "c00", "c01" and so on.

    Training and validation images are disjoint between clients; test images are drawn from the test files for each.

    Raises:
        ValueError: there are not enough images.
    """
    rng = np.random.default_rng([seed, 20])
    kinds = len(np.unique(images.train[1]))
    stacks = [iter(_shuffled(images.train[1], kind, rng)) for kind in range(kinds)]
    pools = [np.flatnonzero(images.test[1] == kind) for kind in range(kinds)]
    out = {}
    for number, mine in enumerate(_kinds(how, kinds, rng)):
        rows = {
            "train": np.concatenate([_taken(stacks[k], how.shots) for k in mine]),
            "valid": np.concatenate([_taken(stacks[k], how.valid) for k in mine]),
            "test": np.concatenate([rng.choice(pools[k], how.test, replace=False) for k in mine]),
        }
        out[f"c{number:02}"] = _client(images, rows, _shift(rng) if how.shift else (1.0, 0.0, False))
    return out


def _client(images: Images, rows: Mapping[str, Any], shift: tuple[float, float, bool]) -> Client:
    gain, offset, inverted = shift

    def seen(part: Rows, which: Any) -> Rows:
        x = part[0][which] * gain + offset
        x = 1 - x if inverted else x
        return ((x - images.mean) / images.scale).astype("float32"), part[1][which]

    sets = [seen(images.test if name == "test" else images.train, which) for name, which in rows.items()]
    return Client(*sets, rows=rows)


def _kinds(how: Split, kinds: int, rng: Any) -> list[Any]:
    """Which classes each client has: the classes are shuffled, dealt out, shuffled again and so on."""
    each = kinds // how.classes
    turns = [rng.permutation(kinds)[: each * how.classes].reshape(each, -1) for _ in range(-(-how.clients // each))]
    return [np.sort(mine) for mine in np.concatenate(turns)[: how.clients]]


def _shift(rng: Any) -> tuple[float, float, bool]:
    return float(rng.uniform(0.4, 1.4)), float(rng.uniform(-0.3, 0.3)), bool(rng.random() < 0.5)


def _shuffled(labels: Any, kind: int, rng: Any) -> Any:
    return rng.permutation(np.flatnonzero(labels == kind))


def _taken(stack: Iterator[Any], count: int) -> Any:
    found = np.array(list(islice(stack, count)), "int64")
    if len(found) < count:
        raise ValueError("There are not enough images for so many clients and shots.")
    return found


def _pooled(x: Any) -> Any:
    """(images, channels, h, w) of bytes to (images, channels, h/2, w/2) in 0..1."""
    n, channels, height, width = x.shape
    parts = x.reshape(n, channels, height // 2, 2, width // 2, 2)
    return (parts.mean((3, 5), dtype="float32") / 255).astype("float32")


def _idx(path: Path) -> Any:
    if not path.is_file():
        raise AbsentError(f"there is no {path}; set COMITY_DATA")
    with gzip.open(path) as file:
        data = file.read()
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def main() -> None:
    for load in (mnist, cifar):
        try:
            found = load()
            print(
                f"{load.__name__}: {len(found.train[1])} + {len(found.test[1])}, {found.shape}, mean {found.mean:.3f}"
            )
        except AbsentError as error:
            print(f"{load.__name__}: skipped: {error}")


if __name__ == "__main__":
    main()
