"""`import comity` is light: numpy and msgspec, and quick."""

import subprocess
import sys
import time

HEAVY = ["torch", "sklearn", "scipy", "skops", "polars", "narwhals", "pandas", "pyarrow", "sqlalchemy", "cryptography"]
HEAVY += ["jinja2", "rich", "typer", "ray", "matplotlib"]


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def seconds(code: str) -> float:
    start = time.perf_counter()
    run(code)
    return time.perf_counter() - start


def test_import_loads_nothing_heavy() -> None:
    code = f"import comity, sys; comity.Contribution, comity.ConfigError; print(*set({HEAVY}) & set(sys.modules))"
    assert run(code) == ""


def test_the_check_would_notice_something_heavy() -> None:
    code = f"import comity, sys; import rich; print(*set({HEAVY}) & set(sys.modules))"
    assert run(code) == "rich"


def test_import_takes_less_than_two_and_a_half_times_numpy() -> None:
    ratios = []
    for _ in range(9):  # the least of several: another process may be busy on these cores
        ratios.append(seconds("import comity; comity.Contribution, comity.Round") / seconds("import numpy"))
        if sorted(ratios)[len(ratios) // 2] < 2.5 and len(ratios) >= 3:
            return
    raise AssertionError(f"import comity and its first names / import numpy must stay below 2.5. Got {sorted(ratios)}.")
