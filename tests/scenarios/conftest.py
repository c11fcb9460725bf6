import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent

for name, file in (("collaborations", HERE.parent / "chaos"), ("protecting", HERE), ("shards", HERE)):
    spec = importlib.util.spec_from_file_location(f"scenario_{name}", file / f"{name}.py")
    module = sys.modules[f"scenario_{name}"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
