"""How many a hub waits for."""

import pytest
from matrix_law import Thing, hold, rows

import comity as co
from comity.ledger.keys import SideSecret

ME = SideSecret(bytes(32))


def network(minimum):
    return co.Network("127.0.0.1:0", "hub", identity=ME, parties={"ada": ME.public_key()}, minimum=minimum)


ROWS = rows("Network", "minimum", network, bad=(None, "x", -1, 1.5, True, Thing()), good=(0, 1, 40))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_network(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
