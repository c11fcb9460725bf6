"""scikit-learn estimators as bytes and back, by skops: nothing is unpickled, and what was sent is looked at first.

A fitted tree is an array of nodes that compiled code follows without looking; a forged one could read memory that is
not its own. So every tree that was loaded is checked: children lie after their parent and inside, features exist.
"""

import hashlib
import io
import json
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any

import numpy as np

from comity.core.contribution import Array
from comity.core.errors import ConfigError

TRUSTED = (
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
)
"""Types trusted beyond those of skops: classes of scikit-learn itself, trees because they are checked here."""

_UNCHECKED = (
    "sklearn.ensemble._forest",
    "sklearn.ensemble._gb",
    "sklearn.ensemble._iforest",
    "sklearn.ensemble._bagging",
)
_KEEP = 32
_loaded: OrderedDict[str, Any] = OrderedDict()
_lock = Lock()


def dump(estimator: Any) -> bytes:
    """A fitted estimator as bytes: the skops format (a deflated zip of JSON and npy files).

    skops names files and objects after their place in memory and stamps them with the time. Here they are numbered
    in the order of their mention, so that equal estimators give equal bytes.
    """
    import skops.io  # it loads all of scikit-learn, and torch where it is there

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as given, zipfile.ZipFile(out, "w") as kept:
        schema = json.loads(given.read("schema.json"))
        files: dict[str, str] = {}
        _renumber(schema, {}, files)
        for old, new in files.items():
            _write(kept, new, given.read(old))
        _write(kept, "schema.json", json.dumps(schema, separators=(",", ":")).encode())
    return out.getvalue()


def _write(kept: zipfile.ZipFile, name: str, data: bytes) -> None:
    kept.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED, 1)


def _renumber(node: Any, ids: dict[int, int], files: dict[str, str]) -> None:
    """Number what skops calls by its address; constants need no identity."""
    if isinstance(node, list):
        for x in node:
            _renumber(x, ids, files)
    elif isinstance(node, dict):
        if isinstance(node.get("__id__"), int):
            known = node.pop("__id__")
            if node.get("__loader__") not in ("JsonNode", "TypeNode"):
                node["__id__"] = ids.setdefault(known, len(ids) + 1)
        if isinstance(node.get("file"), str):
            node["file"] = files.setdefault(node["file"], f"{len(files)}.{node['file'].rsplit('.')[-1]}")
        for x in node.values():
            _renumber(x, ids, files)


def load(data: bytes) -> Any:
    """The estimator in `data`: a shared object, do not fit it. The last 32 are kept.

    Raises:
        ConfigError: no estimator, a type that is not trusted, or a forged tree.
    """
    key = hashlib.sha256(data).hexdigest()
    with _lock:
        if key in _loaded:
            _loaded.move_to_end(key)
            return _loaded[key]
    estimator = _read(data)
    check_trees(estimator)
    with _lock:
        _loaded[key] = estimator
        while len(_loaded) > _KEEP:
            _loaded.popitem(last=False)
    return estimator


def _read(data: bytes) -> Any:
    if not data:
        raise ConfigError("params['estimator'] must be a fitted estimator. Got b'', not fitted yet. Call fit first.")
    import skops.io

    try:
        unknown = sorted(set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED))
        if not unknown:
            return skops.io.loads(data, trusted=list(TRUSTED))
    except Exception as error:
        got = f"{type(error).__name__}: {error}"[:200]
        raise ConfigError(
            f"params['estimator'] must be an estimator written by skops. Got {got}. Write it with the same skops."
        ) from error
    raise ConfigError(
        f"An estimator must consist of types that numpy and scikit-learn define and comity trusts. "
        f"Got {', '.join(unknown)}. Use other steps, or an estimator of scikit-learn."
    )


def check_trees(estimator: Any) -> None:
    """Look at every fitted tree in an estimator.

    Raises:
        ConfigError: a child or a feature of a node that does not exist, or categories inside trees.
    """
    for tree, columns in _trees(estimator, None, None, set()):
        if type(tree).__name__ == "Tree":
            _follow(tree.children_left, tree.children_right, tree.children_left != -1, tree.feature, columns)
        else:
            nodes = tree.nodes
            inner = nodes["is_leaf"] == 0
            if (nodes["is_categorical"][inner] != 0).any():
                raise ConfigError(
                    "A histogram gradient boosting model must have numeric features only, to travel. "
                    "Got categorical splits. Encode the categories as columns first (OneHotEncoder)."
                )
            _follow(nodes["left"], nodes["right"], inner, nodes["feature_idx"], columns)


def _follow(left: Array, right: Array, inner: Array, feature: Array, columns: int | None) -> None:
    n, at = len(left), np.flatnonzero(inner)
    fine = n > 0 and columns is not None
    for child in (left[at].astype(np.int64), right[at].astype(np.int64)):
        fine = fine and bool(((child > at) & (child < n)).all())
    f = feature[at].astype(np.int64)
    if not fine or ((f < 0) | (f >= (columns or 0))).any():
        raise ConfigError(
            "The nodes of a tree must point forward, inside the tree, at features that exist. "
            "Got one that does not: it was damaged or forged. Fit it again."
        )


def _trees(thing: Any, columns: int | None, owner: str | None, seen: set[int]) -> Iterator[tuple[Any, int | None]]:
    """(tree, columns of the rows it will be given) for each tree below `thing`."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if type(thing).__name__ in ("Tree", "TreePredictor") and type(thing).__module__.startswith("sklearn."):
        yield thing, columns
    elif isinstance(thing, Mapping):
        for x in thing.values():
            yield from _trees(x, columns, owner, seen)
    elif isinstance(thing, list | tuple) or (isinstance(thing, np.ndarray) and thing.dtype == object):
        for x in np.ravel(thing) if isinstance(thing, np.ndarray) else thing:
            yield from _trees(x, columns, owner, seen)
    elif type(thing).__module__.startswith("sklearn.") and hasattr(thing, "__dict__"):
        own = vars(thing).get("n_features_in_", columns)
        if owner in _UNCHECKED and own is not None and columns is not None:
            own = min(own, columns)
        for x in vars(thing).values():
            yield from _trees(x, own, type(thing).__module__, seen)
