"""Ten clinics give rows on breast tumours to one data set; some rows are in a wrong unit, some copied, some mistyped.

Each row is checked where it arrives, and joins or goes to quarantine. A model is trained on what joined, on everything
as it was sent, and on what would have been sent without mistakes.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import comity as co

NAMES = ["mean radius", "mean texture", "mean smoothness", "mean concavity", "worst area"]
data = load_breast_cancer(as_frame=True)
frame = data.data[NAMES].assign(tumour=data.target.map({0: "malignant", 1: "benign"}))
schema = {name: co.Field(low=0) for name in NAMES} | {"tumour": co.Field("word", words=("benign", "malignant"))}
samples = co.Samples(schema, most=20, outliers=6.0)
found = {"as sent": [], "joined": [], "without mistakes": [], "quarantine": [], "careless": [], "careful": []}


def accuracy(rows) -> float:
    """On test rows, of a model trained on these; words that are no class are left out, as anybody would."""
    known = np.isin(rows["tumour"], ("benign", "malignant"))
    X, y = np.column_stack([rows[n] for n in NAMES])[known], np.array(rows["tumour"])[known]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    return model.score(test[NAMES].to_numpy(), test["tumour"])


for seed in range(5):
    rng = np.random.default_rng(seed)
    mixed = frame.sample(frac=1, random_state=seed)
    test, parts = mixed[:169], [mixed[169 + 40 * i : 209 + 40 * i].copy() for i in range(10)]
    clean = np.concatenate(parts)
    parts[0][["mean radius", "worst area"]] *= [10, 100]  # millimetres where all others have centimetres
    parts[1].loc[rng.random(40) < 0.5, "mean concavity"] = -1  # its sign for unknown
    parts[2].loc[rng.random(40) < 0.5, "tumour"] = "malign"
    parts[3] = parts[4].copy()  # what another has given
    clinics = {f"clinic {i}": co.Contributor(part) for i, part in enumerate(parts)}
    run = co.Collaboration(samples, clinics, seed=seed).run(rounds=2)
    sent = {name: np.concatenate([part[name] for part in parts]) for name in frame}
    found["as sent"].append(accuracy(sent))
    found["joined"].append(accuracy(samples.table(run.state)))
    found["without mistakes"].append(accuracy({name: clean[:, i] for i, name in enumerate(frame)}))
    found["quarantine"].append(len(samples.quarantine(run.state)["reason"]))
    rho = list(samples.reputation(run.state).values())
    found["careless"].append(np.mean(rho[:3]))
    found["careful"].append(np.mean(rho[4:]))
mean = {name: np.mean(x) for name, x in found.items()}
print(
    f"trained on 400 rows as sent {mean['as sent']:.1%}, on those that joined {mean['joined']:.1%}, without mistakes "
    f"{mean['without mistakes']:.1%} (5 seeds); {mean['quarantine']:.0f} rows in quarantine; reputation "
    f"{mean['careless']:.2f} of careless and {mean['careful']:.2f} of careful clinics"
)
