"""What commands say: tables of wide letters, a package that is missing, a port that is none."""

import re

import pytest
from rich.cells import cell_len

from comity.cli.messages import _EXTRAS, told
from comity.comparison.shown import _table
from comity.core.errors import ConfigError


def test_columns_stand_one_below_the_other_in_any_script() -> None:
    rows = [("東京病院", "1 kB", "x"), ("Süd", "22 kB", "y")]
    said = ["".join(text for text, _ in line) for line in _table(("party", "up", "error"), rows)]
    assert {cell_len(line[: line.rindex(end)]) for line, end in zip(said, ("error", "x", "y"), strict=True)} == {19}


def test_a_package_that_is_missing_is_named_with_its_extra() -> None:
    import tomllib
    from pathlib import Path

    extras = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    names = {"sklearn": "scikit-learn"}
    for package, extra in _EXTRAS.items():
        held = [re.split("[>=]", one)[0] for one in extras["optional-dependencies"][extra]]
        assert names.get(package, package) in held
        error = ModuleNotFoundError(f"No module named '{package}'", name=f"{package}.inner")
        assert told(error) == f"{package} must be installed. It is missing. Run: pip install comity[{extra}]."
    assert "This is a defect of comity" in told(ModuleNotFoundError("No module named 'comity.x'", name="comity.x"))


def test_a_port_that_is_none_is_said_once() -> None:
    from comity.channels.helper import Helper
    from comity.service.helper import serve

    with pytest.raises(ConfigError, match=r"Got: port must be 0-65535\. Name another\.$"):
        serve(Helper(), "127.0.0.1", 99999999, print)
