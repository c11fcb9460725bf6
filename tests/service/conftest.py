"""What the tests of a hub share."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))
postgres = importlib.import_module("postgres").postgres


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Any]:
    """A hub that asks."""
    with importlib.import_module("asking").asking(tmp_path) as asked:
        yield asked
