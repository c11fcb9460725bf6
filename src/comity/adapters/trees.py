"""Gradient-boosted trees of scikit-learn, with the settings that comparisons use."""

from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from comity.adapters.sklearn import EstimatorModel

STEPS = {True: (40, 0.15), False: (100, 0.08)}
"""Steps and learning rate: for more than two classes, and else."""


def boosted_trees(classes: int) -> EstimatorModel:
    """Histogram gradient boosting (Ke et al., NeurIPS 2017) with trees of at most 15 leaves.

    100 steps; for more than two classes, where each step grows a tree for every class, 40 longer ones.

    Args:
        classes: 0 for a measured target, else how many classes there are, numbered from 0.
    """
    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    steps, rate = STEPS[classes > 2]
    trees = kind(max_iter=steps, learning_rate=rate, max_leaf_nodes=15, l2_regularization=1.0, early_stopping=False)
    return EstimatorModel(trees, tuple(range(classes)) if classes else None)
