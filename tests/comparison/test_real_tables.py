"""Real tables that were not made for this, where they are at hand (COMITY_DATA, by default ../shared/data)."""

import gzip
import os
from pathlib import Path
from typing import Any

import polars
import pytest

import comity as co

DATA = Path(os.environ.get("COMITY_DATA", "../shared/data"))
ADULT = (
    "age,workclass,fnlwgt,education,education_num,marital_status,occupation,relationship,race,sex,capital_gain,"
    "capital_loss,hours_per_week,native_country,income"
)


def needed(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"there is no {path}: set COMITY_DATA")
    return path


def adult(tmp_path: Path, every: int) -> Path:
    with gzip.open(needed("adult", "adult.data.gz"), "rt") as file:
        lines = [line.strip().replace(", ", ",") for line in file if line.strip() and not line.startswith("age")]
    path = tmp_path / "adult.csv"
    path.write_text("\n".join([ADULT, *lines[::every]]) + "\n")
    return path


def near(source: Any, target: str, party: str, family: str) -> tuple[dict[str, Any], float]:
    answer = co.compare(source, target, party=party, model=family, repeats=2, unseen=False)
    ways = answer.results["ways"]
    return dict(answer.results), ways["joint"]["roc_auc"]["mean"] - ways["pooled"]["roc_auc"]["mean"]


@pytest.mark.data
@pytest.mark.parametrize("family", ["linear", "mlp"])
def test_adult_by_employer(tmp_path: Path, family: str) -> None:
    """Rows without an employer, employers with a handful of rows, words and question marks."""
    found, distance = near(adult(tmp_path, 6), "income", "workclass", family)
    assert found["question"]["parties"] == 6
    assert found["question"]["set_aside"] > 200
    assert {one["name"] for one in found["left_out"]} >= {"Without-pay"}
    assert abs(distance) <= 0.02


@pytest.mark.data
def test_telco_by_contract() -> None:
    """An identifier, blanks for numbers, and parties whose share of the class differs tenfold."""
    source = needed("telco-churn", "Telco-Customer-Churn.csv.gz")
    found, distance = near(source, "Churn", "Contract", "linear")
    assert {"name": "customerID", "why": "an identifier"} in found["left_out"]
    assert found["question"]["rows"] == 7043
    assert abs(distance) <= 0.02


@pytest.mark.data
def test_tcga_by_region() -> None:
    """Six small regions, and one with eight patients."""
    table, centers = (
        polars.read_csv(needed("tcga-brca", "brca.csv")),
        polars.read_csv(needed("tcga-brca", "centers.csv")),
    )
    sites = table.with_columns(polars.col("pid").str.slice(5, 2).alias("TSS Code"))
    joined = sites.join(centers.select("TSS Code", "Region"), on="TSS Code", how="left").drop("TSS Code", "T")
    found, _ = near(joined, "E", "Region", "linear")
    assert found["question"]["parties"] == 6
    assert all(score is not None for way in found["ways"].values() for score in way.values())
