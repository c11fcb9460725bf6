import importlib.util
import sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("quadratic", Path(__file__).with_name("quadratic.py"))
sys.modules["quadratic"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["quadratic"])
