"""Four agents and a table: one cleans it, two make features side by side, one joins them and trains.

Each holds only its own step. The hub hands Arrow bytes on and knows rows and hashes; whoever fails is asked again.
"""

import numpy as np
import polars as pl
from sklearn.datasets import load_diabetes
from sklearn.linear_model import RidgeCV

import comity as co

flow = co.ready({"clean": [], "ratios": ["clean"], "bends": ["clean"], "train": ["ratios", "bends"]})
NUMBERS = ("age", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
again = iter([True, False])


def raw() -> pl.DataFrame:
    """Diabetes patients as somebody kept them: twins, and numbers that stand for nothing."""
    data = load_diabetes(as_frame=True, scaled=False).frame
    table = pl.from_pandas(data.reset_index(names="id"))
    rng = np.random.default_rng(0)
    spoilt = [np.where(rng.random(table.height) < 0.03, 9999.0, table[c]) for c in NUMBERS]
    table = table.with_columns(pl.Series(c, x) for c, x in zip(NUMBERS, spoilt, strict=True))
    return pl.concat([table, table.sample(40, seed=0)])


def clean(t: pl.DataFrame) -> pl.DataFrame:
    t = t.unique("id", maintain_order=True)
    return t.with_columns(pl.when(pl.col(c) < 9999).then(pl.col(c)).fill_null(pl.median(c)) for c in NUMBERS)


def ratios(t: pl.DataFrame) -> pl.DataFrame:
    return t.with_columns(bmi_bp=pl.col("bmi") * pl.col("bp"), s1_s3=pl.col("s1") / pl.col("s3"))


def bends(t: pl.DataFrame) -> pl.DataFrame:
    if next(again):
        raise OSError("the disk is full")  # the first time; the round is tried again
    return t.select("id", *((pl.col(c) - pl.mean(c)).pow(2).alias(f"{c}_2") for c in ("bmi", "age", "s5")))


def train(t: pl.DataFrame) -> pl.DataFrame:
    t = t.sort("id").sample(fraction=1.0, shuffle=True, seed=1)
    x = t.drop("id", "target").to_numpy()
    x, y, cut = (x - x[:300].mean(0)) / x[:300].std(0), t["target"].to_numpy(), 300
    return pl.DataFrame({"r2": [RidgeCV(np.logspace(-1, 3, 9)).fit(x[:cut], y[:cut]).score(x[cut:], y[cut:])]})


agents = {f.__name__: co.Agent(co.framed(f, on="id")) for f in (clean, ratios, bends, train)}
relay = co.Relay(co.to_arrow(raw()), flow.before)
run = co.Collaboration(relay, agents, select=flow, evaluate=False).run(rounds=len(flow))
without = [train(table)["r2"].item() for table in (raw(), clean(raw()))]
rows = [int(run.ledger.metric(f"rows.{name}")[0]) for name in ("clean", "ratios", "bends")]
print(
    f"R² on the rows held out: raw table {without[0]:.2f}, cleaned only {without[1]:.2f}, after the whole relay "
    f"{co.from_arrow(run.shared)['r2'].item():.2f} (rows {rows}, {len(run.ledger.dropped)} failure, nothing lost)"
)
