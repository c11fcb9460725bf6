import importlib.util
import sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("matrix_law", Path(__file__).with_name("law.py"))
sys.modules["matrix_law"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["matrix_law"])
