"""What the tests of a hub share."""

import importlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
postgres = importlib.import_module("postgres").postgres
