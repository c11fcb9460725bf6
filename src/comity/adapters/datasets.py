"""The real data sets that come with scikit-learn, as plain columns."""

from comity.core.contribution import Array


def breast_cancer() -> dict[str, Array]:
    """569 breast-cancer records, 30 measurements each (Street, Wolberg and Mangasarian, 1993; UCI WDBC).

    Returns:
        Column to (569,) float64, and `diagnosis`, "benign" or "malignant".
    """
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    columns = {name: data.data[:, i] for i, name in enumerate(data.feature_names)}
    return {**columns, "diagnosis": data.target_names[data.target]}


def digits() -> dict[str, Array]:
    """1,797 images of handwritten digits, 8 x 8 (Alpaydin and Kaynak, 1998; UCI, test part).

    Returns:
        Column "x00" to "x77" (row, column) to (1797,) float64 ink from 0 to 16, and `digit`, "0" to "9".
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    columns = {f"x{i // 8}{i % 8}": data.data[:, i] for i in range(64)}
    return {**columns, "digit": data.target.astype(str)}
