"""`comity show` of a ticket file."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A ticket of 1,012 numbers, 62 of them kept."""
    w = np.where(np.arange(1000).reshape(10, 100) % 20 == 0, 0.5, 0.0)
    ticket = co.Ticket.of({"0.weight": w, "0.bias": np.ones(12)}, metrics={"accuracy": 0.8125})
    ticket.save(tmp_path / "ward.ticket")
    return tmp_path / "ward.ticket"


def test_show_of_a_ticket(run: Any, saved: Path) -> None:
    ended = run("show", saved)
    assert (ended.code, ended.err) == (0, "")
    written = saved.stat().st_size
    for said in (
        "ward.ticket   a ticket of 1,012 numbers, 62 kept",
        f"size       {written} B   {4048 / written:.1f} times smaller than 4.05 kB, dense in float32",
        "values     int8 in blocks of 64, the rest in bfloat16",
        "known      accuracy 0.812",
        "model      not held to one",
        "density    5.0 %",
        "           0.weight     5.0 %   50 of 1,000",
    ):
        assert said in ended.out.splitlines()


def test_show_of_a_ticket_of_many_layers_and_a_model(run: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(41)])
    model = co.TorchModel(net, torch.nn.functional.cross_entropy)
    ticket = co.Ticket.of(model.init(co.Round("", 0)), model=model)
    ticket.save(tmp_path / "t", "bfloat16", rest="float32")
    said = run("show", tmp_path / "t").out
    assert "values     bfloat16, the rest in float32" in said
    assert f"model      sha256 {ticket.model[:16]}" in said
    assert said.rstrip().endswith("and 11 more layers")


def test_a_damaged_ticket_is_refused_in_a_line(run: Any, saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[-40] ^= 1
    saved.write_bytes(data)
    ended = run("show", saved)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"error      {saved}: A ticket file must be as it was written. " + (
        "Got another sha256 than it says. Copy it anew.\n"
    )


def test_other_files_are_told_as_before(run: Any, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no ticket")
    ended = run("show", tmp_path / "x")
    assert (ended.code, ended.out) == (2, "")
    assert "ticket" not in ended.err
    os.mkfifo(tmp_path / "pipe")
    assert run("show", tmp_path / "pipe").code == 2
