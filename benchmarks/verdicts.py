"""The main job on real tables: is it worth joining, and how near does joint come to pooled of the same family?

Each table is compared with the default settings; the rows that are printed are what a consortium would
read. Tables are looked for under COMITY_DATA (by default ../shared/data) and left out with a message when
absent; diabetes comes with scikit-learn. Asserts that nothing is silently zero before it prints.
"""

import gzip
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import comity as co

DATA = Path(os.environ.get("COMITY_DATA", "../shared/data"))
ADULT = (
    "age,workclass,fnlwgt,education,education_num,marital_status,occupation,relationship,race,sex,capital_gain,"
    "capital_loss,hours_per_week,native_country,income"
)
REPEATS = int(os.environ.get("COMITY_REPEATS", "5"))


def adult() -> Path:
    with gzip.open(DATA / "adult" / "adult.data.gz", "rt") as file:
        lines = file.read().splitlines()
    rows = [line.strip().replace(", ", ",") for line in lines if line.strip() and not line.startswith("age")]
    path = Path(tempfile.mkdtemp()) / "adult.csv"
    path.write_text("\n".join([ADULT, *rows]) + "\n")
    return path


def tcga() -> Any:
    import polars as pl

    table, centers = (pl.read_csv(DATA / "tcga-brca" / name) for name in ("brca.csv", "centers.csv"))
    sites = table.with_columns(pl.col("pid").str.slice(5, 2).alias("TSS Code"))
    return sites.join(centers.select("TSS Code", "Region"), on="TSS Code", how="left").drop("TSS Code", "T")


def diabetes() -> Any:
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True, scaled=False).frame
    return frame.assign(clinic=np.where(frame["age"] < 40, "young", np.where(frame["bmi"] > 28, "heavy", "rest")))


TABLES = {
    "adult by employer": ("adult", adult, "income", "workclass"),
    "adult by country": ("adult", adult, "income", "native_country"),
    "bank by job": ("bank-marketing", lambda: DATA / "bank-marketing" / "bank-full.csv.gz", "y", "job"),
    "telco by contract": (
        "telco-churn",
        lambda: DATA / "telco-churn" / "Telco-Customer-Churn.csv.gz",
        "Churn",
        "Contract",
    ),
    "tcga by region": ("tcga-brca", tcga, "E", "Region"),
    "diabetes by clinic": (None, diabetes, "target", "clinic"),
}


def compared(source: Any, target: str, party: str, model: str) -> Any:
    begun = time.perf_counter()
    answer = co.compare(source, target, party=party, model=model, repeats=REPEATS, unseen=model == "auto")
    return answer.results, time.perf_counter() - begun


def line(title: str, source: Any, target: str, party: str) -> dict[str, Any]:
    full, seconds = compared(source, target, party, "auto")
    metric = full["metric"]
    assert all(w[metric] is not None and w[metric]["mean"] != 0 for w in full["ways"].values()), title
    family = full["settings"]["chosen"]["joint"].split(",")[0]
    same, _ = compared(source, target, party, family)
    near = {way: same["ways"][way][metric]["mean"] for way in ("joint", "pooled")}
    found = {way: round(full["ways"][way][metric]["mean"], 4) for way in full["ways"]}
    distance = round(near["joint"] - near["pooled"], 4)
    return {"table": title, "metric": metric, **found, "family": family, "joint_minus_pooled": distance,
            "seconds": round(seconds, 1), "verdict": full["verdict"]}  # fmt: skip


def main() -> None:
    wanted = sys.argv[1:] or list(TABLES)
    for title in wanted:
        folder, make, target, party = TABLES[title]
        if folder is not None and not (DATA / folder).exists():
            print(f"{title}: left out, there is no {DATA / folder}")
            continue
        found = line(title, make(), target, party)
        print(f"{title:<20} {found['verdict']}")
        print(json.dumps(found))


if __name__ == "__main__":
    main()
