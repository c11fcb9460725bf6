"""Five clinics learn what their patients look like together, without showing a row: diabetes, 442 patients."""

import numpy as np
from sklearn.datasets import load_diabetes

import comity as co

frame = load_diabetes(as_frame=True, scaled=False).frame
frame["sex"] = np.where(frame["sex"] > 1, "f", "m")
order, cuts = np.random.default_rng(0).permutation(len(frame)), [20, 60, 150, 290]
clinics = {f"clinic {i}": frame.iloc[rows] for i, rows in enumerate(np.split(order, cuts))}
seen = co.stats(clinics, quantiles=(0.1, 0.5, 0.9), bins=12, least=10)

off = {"mean": 0.0, "variance": 0.0, "quantile": 0.0, "told": 0.0, "alone": 0.0}
for name in frame.columns.drop("sex"):
    x, got = frame[name].to_numpy(float), seen.columns[name]
    off["mean"] = max(off["mean"], abs(got.mean - x.mean()) / x.std())
    off["variance"] = max(off["variance"], abs(got.variance / x.var() - 1))
    alone = [abs(clinic[name].mean() - x.mean()) for clinic in clinics.values()]
    off["alone"] = max(off["alone"], max(alone) / x.std())
    for q, known in got.quantiles.items():
        away = abs(known.value - np.quantile(x, q, method="inverted_cdf"))
        assert away <= known.error
        off["quantile"], off["told"] = max(off["quantile"], away / x.std()), max(off["told"], known.error / x.std())
    assert got.histogram.counts == tuple(np.histogram(x, got.histogram.edges)[0])
    assert min(got.histogram.counts) >= 10
assert seen.columns["sex"].top(2) == frame["sex"].value_counts().to_dict()
age = seen.columns["age"]
print(
    f"{seen.rows} patients of {seen.parties} clinics: age {age.mean:.1f}, median {age.quantiles[0.5].value:.1f} "
    f"± {age.quantiles[0.5].error:.1g}; against the pooled table, in standard deviations: means within "
    f"{off['mean']:.0e} (a clinic alone: up to {off['alone']:.2f}), quantiles within {off['quantile']:.2f} "
    f"(told: {off['told']:.2f}); no bin below 10 rows shown; {(seen.bytes_up + seen.bytes_down) / 1e3:.0f} kB"
)
