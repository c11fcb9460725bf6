"""Linear models and small networks in plain numpy: written for many small fits, quick on any machine."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from comity.adapters.common import epochs_of, flat, measured, over, refuse, settings, taken
from comity.adapters.descent import descend
from comity.adapters.private import private_steps
from comity.adapters.rows import columns_of, finite, inputs_of, labels_of, pair
from comity.core.checks import shown, whole
from comity.core.contribution import Array, Metrics, Tree
from comity.core.errors import ConfigError
from comity.core.nodes import Nodes, chained
from comity.core.parts import Step
from comity.core.round import Round
from comity.core.tree import Layout


class Net:
    """The arithmetic of a fully connected ReLU network over one flat vector of parameters.

    Names are those of a torch Sequential of Linear and ReLU: "0.weight" (out, in), "0.bias" (out,), "2.weight"...

    Args:
        sizes: inputs, hidden..., outputs.
        classes: 0 for least squares on one output, else softmax.
        dtype: of all arithmetic.
    """

    def __init__(self, sizes: tuple[int, ...], classes: int, dtype: str = "float32") -> None:
        self.sizes, self.classes, self.dtype = sizes, classes, dtype
        self.names = [str(2 * i) for i in range(len(sizes) - 1)]
        shapes: dict[str, Array] = {}
        for name, a, b in zip(self.names, sizes, sizes[1:], strict=False):
            shapes |= {f"{name}.weight": np.empty((b, a), dtype), f"{name}.bias": np.empty(b, dtype)}
        self.layout = Layout.of(shapes)

    def layers(self, vector: Array) -> list[tuple[Array, Array]]:
        """(weight, bias) of each layer, views of `vector`."""
        tree = self.layout.tree(vector)
        return [(tree[f"{n}.weight"], tree[f"{n}.bias"]) for n in self.names]

    def weights(self) -> Array:
        """(size,) 1 where a weight lies, 0 where a bias."""
        vector = np.zeros(self.layout.size, self.dtype)
        for w, _ in self.layers(vector):
            w[...] = 1.0
        return vector

    def forward(self, vector: Array, x: Array) -> list[Array]:
        """The output of each layer, after its ReLU: each (rows, width); the last are logits or (rows, 1) values."""
        out, h = [], x
        for i, (w, b) in enumerate(self.layers(vector)):
            h = h @ w.T
            h += b
            if i + 2 < len(self.sizes):
                np.maximum(h, 0, out=h)
            out.append(h)
        return out

    def targets(self, y: Any) -> Array:
        """`y` as the loss wants it: (rows, classes), one-hot or soft as given, or (rows, 1).

        Raises:
            ConfigError: labels that are not whole numbers from 0 to classes - 1.
        """
        y = np.asarray(y)
        if self.classes == 0 or (y.ndim == 2 and y.shape[1] == self.classes):
            return columns_of(y, max(self.classes, 1), self.dtype)
        labels = labels_of(y, self.classes)
        out = np.zeros((len(y), self.classes), self.dtype)
        out[np.arange(len(y)), labels] = 1.0
        return out


class Worker:
    """One fit's memory: parameters, gradient and the activations of one batch, all made once.

    Args:
        net: the arithmetic.
        vector: (size,) the parameters to train, changed in place.
        batch: the largest batch.
    """

    def __init__(self, net: Net, vector: Array, batch: int) -> None:
        self.net, self.vector = net, vector
        self.gradient = np.zeros_like(vector)
        self.parameters = [(w, w.T, b) for w, b in net.layers(vector)]
        self.slopes = net.layers(self.gradient)
        self.outputs = [np.empty((batch, k), net.dtype) for k in net.sizes[1:]]
        self.errors = [np.empty((batch, k), net.dtype) for k in net.sizes[1:-1]]

    def step(self, x: Array, t: Array) -> float:
        """Put the gradient of the mean loss of a batch into `gradient`; the summed loss comes back."""
        n, last, h, inputs = len(x), len(self.outputs) - 1, x, []
        for i, (_, w, b) in enumerate(self.parameters):
            inputs.append(h)
            h = np.matmul(h, w, out=self.outputs[i][:n])
            h += b
            if i < last:
                np.maximum(h, 0, out=h)
        loss, error = self._softmax(h, t) if self.net.classes else self._squares(h, t)
        for i in range(last, -1, -1):
            w, b = self.slopes[i]
            np.matmul(error.T, inputs[i], out=w)
            np.add.reduce(error, 0, out=b)
            if i:
                error = np.matmul(error, self.parameters[i][0], out=self.errors[i - 1][:n])
                error *= inputs[i] > 0
        return loss

    @staticmethod
    def _softmax(z: Array, t: Array) -> tuple[float, Array]:
        z -= np.maximum.reduce(z, 1, keepdims=True)
        p = np.exp(z)
        total = np.add.reduce(p, 1, keepdims=True)
        z -= np.log(total)
        p /= total
        p -= t
        p *= 1.0 / len(z)
        return -float(np.vdot(t, z)), p

    @staticmethod
    def _squares(z: Array, t: Array) -> tuple[float, Array]:
        z -= t
        return float(np.vdot(z, z)), z * z.dtype.type(2.0 / len(z))


def _fit(model: "Linear | MLP", params: Tree, data: Any, round: Round, step: Step) -> tuple[Tree, Metrics]:
    who, net = type(model).__name__, model._net
    if step.loss is not None:
        raise ConfigError(
            f"{who} must be fitted with its own loss. Got Step(loss=...). Use a TorchModel, or soft labels as y."
        )
    refuse(step, who, ("adjust", "mask", "private"))
    X, y = pair(data, who)
    X, T = inputs_of(X, model.inputs, net.dtype), net.targets(y)
    vector = flat(params, net.layout, who).copy()
    worker = Worker(net, vector, min(model.batch, len(X)))
    move, loss, count = descend(worker, model, step), 0.0, 0
    epochs = model.epochs if step.epochs is None else step.epochs
    with np.errstate(over="ignore", invalid="ignore"):
        if step.private is not None:
            private_steps(worker, (X, T), step.private, move=move, plan=(epochs, model.batch))
            return net.layout.tree(vector), {}
        for order in epochs_of(len(X), epochs, round):
            x, t = X[order], T[order]
            for a in range(0, len(order), model.batch):
                loss += worker.step(x[a : a + model.batch], t[a : a + model.batch])
                move()
            count += len(order)
    return net.layout.tree(vector), measured(len(X), loss, count)


def _predict(model: "Linear | MLP", params: Tree, x: Any) -> Array:
    z = _outputs(model, params, x)[-1]
    if not model.classes:
        return z[:, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        z -= z.max(1, keepdims=True, initial=-np.inf)
        np.exp(z, out=z)
        z /= z.sum(1, keepdims=True)
    return z


def _outputs(model: "Linear | MLP", params: Tree, x: Any) -> list[Array]:
    with np.errstate(over="ignore", invalid="ignore"):
        x = inputs_of(x, model.inputs, model._net.dtype)
        return model._net.forward(flat(params, model._net.layout, type(model).__name__), x)


def _features(model: "Linear | MLP", params: Tree, x: Any, taps: Sequence[str]) -> Mapping[str, Array]:
    names = [*(f"hidden{i}" for i in range(len(model._net.sizes) - 2)), "outputs"]
    taken(taps, names, type(model).__name__)
    found = dict(zip(names, _outputs(model, params, x), strict=True)) if taps else {}
    return {tap: found[tap] for tap in taps}


def _settle(model: "Linear | MLP") -> None:
    who = type(model).__name__
    settings(model, "inputs", "rate", "momentum", "decay", "batch", "epochs")
    classes = whole("classes", who, model.classes, hint="Use 0 for regression.")
    if classes == 1:
        raise ConfigError(f"The 'classes' of {who} must be 0 (regression) or >= 2. Got 1. Use classes=2.")
    object.__setattr__(model, "classes", classes)


def _check(model: "Linear | MLP", data: Any) -> None:
    who = type(model).__name__
    x, y = pair(data, who)
    finite("X", who, inputs_of(x, model.inputs, model._net.dtype))
    finite("y", who, model._net.targets(y))


@dataclass(frozen=True)
class Linear:
    """Softmax regression, or least squares, fitted by mini-batch gradient descent in float32.

    Attributes:
        inputs: columns of X.
        classes: 0 for regression (y float), else how many there are, >= 2 (y whole numbers from 0, or (rows, classes)
            soft labels whose rows sum to 1).
        rate: the learning rate.
        momentum: of the velocity, in [0, 1), as in torch.optim.SGD.
        decay: L2 decay of the weights, >= 0; biases do not decay.
        batch: rows in a step.
        epochs: passes over the data in one fit; the last may be a part.

    The loss is the mean cross-entropy in nats, or the mean squared error.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np
        >>> from comity.core.round import Round
        >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> model, here = Linear(1, rate=0.1, batch=4, epochs=200), Round("doctest", seed=0)
        >>> params, metrics = model.fit(model.init(here), (X, 2 * X[:, 0] + 1), here)
        >>> model.predict(params, [[4.0]]).round(1).tolist(), metrics["examples"]
        ([9.0], (4.0, 1.0))
    """

    inputs: int
    classes: int = 0
    _: KW_ONLY
    rate: float = 0.1
    momentum: float = 0.0
    decay: float = 0.0
    batch: int = 32
    epochs: float = 1
    private: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _settle(self)

    @property
    def statistics(self) -> tuple[str, ...]:
        """No leaf is a statistic."""
        return ()

    @cached_property
    def _net(self) -> Net:
        return Net((self.inputs, max(self.classes, 1)), self.classes)

    def init(self, round: Round) -> Tree:
        """Zeros: {"0.bias": (outputs,), "0.weight": (outputs, inputs)} float32."""
        return over(self._net.layout, np.zeros(self._net.layout.size, np.float32))

    def fit(self, params: Tree, data: Any, round: Round, step: Step = Step()) -> tuple[Tree, Metrics]:
        """Train from `params` on data (X, y); `params` is not changed.

        Returns:
            New parameters, and `examples` (rows, 1) and `train_loss` (summed loss, samples seen).

        Raises:
            ConfigError: data or parameters that do not fit, or Step(loss).
        """
        return _fit(self, params, data, round, step)

    def check(self, data: Any) -> None:
        """Refuse data that `fit` cannot learn from.

        Raises:
            ConfigError: shapes or classes that are not the model's, or NaN or infinity.
        """
        _check(self, data)

    def predict(self, params: Tree, x: Any) -> Array:
        """(rows, classes) float32 probabilities, rows sum to 1; for regression (rows,) float32."""
        return _predict(self, params, x)

    def features(self, params: Tree, x: Any, taps: Sequence[str]) -> Mapping[str, Array]:
        """ "outputs": (rows, classes) float32 logits, or (rows, 1) values."""
        return _features(self, params, x, taps)


@dataclass(frozen=True)
class MLP:
    """A fully connected ReLU network for classes or numbers, fitted by mini-batch gradient descent in float32.

    Weights start as in He et al., ICCV 2015, eq. 10 (normal, variance 2 / inputs of the layer), those of the last
    layer as in Glorot and Bengio, AISTATS 2010, eq. 16 (uniform); biases at 0.

    Attributes:
        inputs: columns of X.
        classes: 0 for regression (y float), else how many there are, >= 2 (y whole numbers from 0, or (rows, classes)
            soft labels whose rows sum to 1).
        hidden: the widths of the hidden layers.
        rate: the learning rate.
        momentum: of the velocity, in [0, 1), as in torch.optim.SGD.
        decay: L2 decay of the weights, >= 0; biases do not decay.
        batch: rows in a step.
        epochs: passes over the data in one fit; the last may be a part.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np
        >>> from comity.core.round import Round
        >>> model, here = MLP(2, 2, hidden=(16,), rate=0.5, batch=4, epochs=300), Round("doctest", seed=0)
        >>> X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
        >>> params, _ = model.fit(model.init(here), (X, y), here)
        >>> model.predict(params, X).argmax(1).tolist()
        [0, 1, 1, 0]
    """

    inputs: int
    classes: int
    _: KW_ONLY
    hidden: tuple[int, ...] = (32,)
    rate: float = 0.1
    momentum: float = 0.0
    decay: float = 0.0
    batch: int = 32
    epochs: float = 1
    private: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _settle(self)
        if isinstance(self.hidden, str) or not isinstance(self.hidden, Sequence):
            raise ConfigError(f"The 'hidden' of MLP must be a tuple of widths. Got {shown(self.hidden)}. Use (32,).")
        widths = tuple(whole("hidden", "MLP", width, 1, hint="Give widths >= 1.") for width in self.hidden)
        object.__setattr__(self, "hidden", widths)

    @property
    def statistics(self) -> tuple[str, ...]:
        """No leaf is a statistic."""
        return ()

    @cached_property
    def _net(self) -> Net:
        return Net((self.inputs, *self.hidden, max(self.classes, 1)), self.classes)

    @property
    def nodes(self) -> tuple[Nodes, ...]:
        """Which weights belong to one neuron, for each hidden layer."""
        return chained((name, 1) for name in self._net.names)

    def init(self, round: Round) -> Tree:
        """Random weights from `round.rng("init")`: {"0.weight": (hidden, inputs), "0.bias": (hidden,), ...} float32."""
        net, rng = self._net, round.rng("init")
        vector = np.zeros(net.layout.size, np.float32)
        *hidden, (last, _) = net.layers(vector)
        for w, _ in hidden:
            w[...] = rng.normal(0.0, np.sqrt(2.0 / w.shape[1]), w.shape)
        edge = np.sqrt(6.0 / sum(last.shape))
        last[...] = rng.uniform(-edge, edge, last.shape)
        return over(net.layout, vector)

    def fit(self, params: Tree, data: Any, round: Round, step: Step = Step()) -> tuple[Tree, Metrics]:
        """Train from `params` on data (X, y); `params` is not changed.

        Returns:
            New parameters, and `examples` (rows, 1) and `train_loss` (summed loss, samples seen).

        Raises:
            ConfigError: data or parameters that do not fit, or Step(loss).
        """
        return _fit(self, params, data, round, step)

    def check(self, data: Any) -> None:
        """Refuse data that `fit` cannot learn from.

        Raises:
            ConfigError: shapes or classes that are not the model's, or NaN or infinity.
        """
        _check(self, data)

    def predict(self, params: Tree, x: Any) -> Array:
        """(rows, classes) float32 probabilities, rows sum to 1; for regression (rows,) float32."""
        return _predict(self, params, x)

    def features(self, params: Tree, x: Any, taps: Sequence[str]) -> Mapping[str, Array]:
        """ "hidden0", "hidden1"...: (rows, width) float32 after the ReLU; "outputs": logits or (rows, 1) values."""
        return _features(self, params, x, taps)
