import importlib.util
import sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("crowds", Path(__file__).with_name("crowds.py"))
sys.modules["crowds"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["crowds"])
