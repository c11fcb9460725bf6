"""What benchmarks/nodes.py measures by, on networks whose figures are known."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS = ("images", "nodes", "race", "shots", "tickets")


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """Nothing of it stays behind."""
    sys.path.insert(0, str(BENCHMARKS))
    yield import_module("nodes")
    sys.path.remove(str(BENCHMARKS))
    for name in [n for n in sys.modules if n.split(".")[0] in OURS]:
        del sys.modules[name]


def test_memory_is_that_of_parameters_and_of_the_tensors_at_the_peak(bench: Any) -> None:
    wide, thin = torch.nn.Linear(4, 8, bias=False), torch.nn.Linear(8, 2, bias=False)
    x = torch.randn(64, 4)
    assert bench.memory(wide, x) == 4 * (4 * 8 + 64 * 8)
    assert bench.memory(torch.nn.Sequential(wide, thin), x) == 4 * (4 * 8 + 8 * 2 + 64 * 8 + 64 * 2)


def test_the_networks_have_the_density_and_less_to_hold(bench: Any) -> None:
    networks = bench.colour([0.5, 0.15])
    sizes = {name: sum(p.numel() for p in net.parameters() if p.ndim > 1) for name, net in networks.items()}
    assert list(sizes) == ["dense", *(f"{kind} {d}" for d in (0.5, 0.15) for kind in ("nodes", "nodes by layer"))]
    for name, size in sizes.items():
        share = float(name.split()[-1]) if name != "dense" else 1.0
        assert 0.9 * share < size / sizes["dense"] <= share
    held = [bench.memory(net, torch.randn(1, *bench.COLOUR)) for net in networks.values()]
    assert held[0] == max(held)


def test_without_images_it_says_so(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMITY_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["nodes.py"])
    threads = torch.get_num_threads()
    bench.mnist.cache_clear()
    bench.main()
    torch.set_num_threads(threads)
    assert capsys.readouterr().out.startswith("nodes skipped: there is no")
