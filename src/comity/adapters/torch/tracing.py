"""One step of many clients at once as a short list of torch calls: vmap traced to a graph, and the graph made shorter.

The step is `vmap(grad_and_value(functional_call))`, traced by make_fx. What comes out does each operation on all
clients together, without autograd and without the user's Python. Then:

- what gives a tensor back as it was (expand to its own shape, times 1, transposed twice) falls away, and so does what
  is computed twice;
- views of the parameters, and tensors that are the same in every step, are made once: the parameters live in one matrix
  that is changed in place;
- a product and the sum after it are one call (`baddbmm`), and so are the gradient of a linear layer and its update.

A graph holds for one shape of its inputs. It knows nothing of Python's own control flow: that was run once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen

aten = torch.ops.aten
_MADE = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}
"""They look at the shape of their input alone."""
_WRITES = {"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"}
"""They write into running statistics, which their schema does not say."""
_HELD = 2**20
"""The most numbers in a tensor that is computed once and held."""


@dataclass(frozen=True, eq=False)
class Goal:
    """Where what a step computes is put, in place.

    Attributes:
        parameters: one view for each leaf, of as many clients as the step has.
        slopes: where the gradients go; None where the parameters are moved at once.
        rate: parameters -= rate * gradient, where there are no slopes.
        buffers: one view for each buffer.
    """

    parameters: Sequence[Tensor]
    slopes: Sequence[Tensor] | None
    rate: float
    buffers: Sequence[Tensor]


def compiled(step: Callable[..., Any], goal: Goal, inputs: Sequence[Tensor]) -> Callable[..., Tensor]:
    """A function of the inputs that does the step and gives the loss of each client.

    Args:
        step: (parameters, buffers, *inputs) -> [*gradients, losses, *buffers afterwards]; it writes into nothing.
        goal: what it works on, and where the results go.
        inputs: of the shape, dtype and strides of all that will come.

    Raises:
        Exception: whatever the step raises when it is traced.
    """
    inputs = [t.clone() for t in inputs]  # the module may write into them
    with _one_fake_mode():
        graph = make_fx(step)(goal.parameters, goal.buffers, *inputs).graph
    return _Shortened(graph, goal, inputs).function()


def _one_fake_mode() -> Any:
    """make_fx notes a fake twin of every tensor, and would make a new mode for each: most of its time."""
    return tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True)))


class _Shortened:
    """A graph and the value of each of its nodes, on which all decisions rest."""

    def __init__(self, graph: Graph, goal: Goal, inputs: Sequence[Tensor]) -> None:
        self.graph, self.goal, self.values, self.held = graph, goal, dict[Node, Any](), dict[Node, Any]()
        self.root: dict[Node, Node] = {}
        given = [*goal.parameters, *goal.buffers, *inputs]
        self.places = [n for n in graph.nodes if n.op == "placeholder"]
        self.values.update(zip(self.places, given, strict=True))
        self.fixed = set(self.places[: len(goal.parameters) + len(goal.buffers)])
        self.own, graph.owning_module = graph.owning_module, None
        self._evaluate()
        self.written = {self.root[a] for n in graph.nodes for a in _written(n)}
        twice = (self._identities, self._evaluate) * 2
        for work in (*twice, self._doubles, self._hold, self._biases, self._goals, self._direct):
            work()
            self._prune()

    def function(self) -> Callable[..., Tensor]:
        """Plain Python of what is left: what is held comes first among its arguments."""
        graph, held = self.graph, list[Tensor]()
        self.held |= {n: self.values[n] for n in graph.nodes if n.op == "get_attr"}
        first = next(iter(graph.nodes))
        for n in list(graph.nodes):
            if n in self.held and n.users:
                with graph.inserting_before(first):
                    n.replace_all_uses_with(graph.placeholder(f"held{len(held)}"))
                held.append(self.held[n])
        self._prune()
        graph.set_codegen(CodeGen())
        for n in self.places[: len(self.goal.parameters) + len(self.goal.buffers)]:
            graph.erase_node(n)
        return partial(GraphModule(torch.nn.Module(), graph).forward, *held)

    def _prune(self) -> None:
        """Erase what nobody uses."""
        for n in reversed(self.graph.nodes):
            if not n.users and n.op in ("call_function", "get_attr") and not _is_writing(n):
                self.graph.erase_node(n)

    def _evaluate(self) -> None:
        """The value of each node, and where its storage began."""
        for n in self.graph.nodes:
            if n.op == "get_attr":
                self.values[n] = getattr(self.own, n.target)
            elif n.op == "call_function":
                self.values[n] = n.target(*self._of(n.args), **self._of(n.kwargs))
            self.root[n] = self._began(n)

    def _of(self, args: Any) -> Any:
        return torch.fx.node.map_arg(args, lambda a: self.values[a])

    def _began(self, n: Node) -> Node:
        for a in n.all_input_nodes if n.op == "call_function" else ():
            if _shares(self.values[n], self.values[a]):
                return self.root[a]
        return n

    def _still(self, n: Node) -> bool:
        """Does nothing write into it?"""
        return self.root[n] not in self.written

    def _calls(self) -> Iterator[Node]:
        return (n for n in list(self.graph.nodes) if n.op == "call_function")

    def _swap(self, n: Node, other: Node) -> None:
        n.replace_all_uses_with(other)

    def _identities(self) -> None:
        for n in self._calls():
            if _is_writing(n) or not isinstance(self.values[n], Tensor):
                continue
            same = next((a for a in self._above(n) if _alike(self.values[n], self.values[a])), None)
            same = same or (self._times_one(n) if self._still(n) else None)
            if same is not None:
                self._swap(n, same)

    def _above(self, n: Node) -> Iterator[Node]:
        """What it is a view of, one after the other."""
        while n.op == "call_function" and n.args and isinstance(n.args[0], Node):
            above = n.args[0]
            if not _shares(self.values[n], self.values[above]):
                return
            n = above
            yield n

    def _times_one(self, n: Node) -> Node | None:
        if n.target not in (aten.mul.Tensor, aten.mul.Scalar) or n.kwargs:
            return None
        for one, other in (n.args, n.args[::-1]):
            like = isinstance(other, Node) and self._still(other) and _looks(self.values[n], self.values[other])
            if like and (one == 1 or (isinstance(one, Node) and self._all_one(one))):
                return other  # type: ignore[return-value]
        return None

    def _all_one(self, n: Node) -> bool:
        """Is it made of ones, whatever the inputs are?"""
        n = [n, *self._above(n)][-1]
        return n.op == "call_function" and _name(n) in ("ones_like", "ones", "new_ones") and self._still(n)

    def _doubles(self) -> None:
        seen: dict[Any, Node] = {}
        for n in self._calls():
            inputs = n.all_input_nodes
            if _is_writing(n) or not all(map(self._still, [n, *inputs])) or _random(n):
                continue
            key = (n.target, repr(n.args), repr(n.kwargs))
            if key in seen:
                self._swap(n, seen[key])
            else:
                seen[key] = n

    def _hold(self) -> None:
        """Views of parameters, and what does not depend on the inputs at all."""
        constant: set[Node] = set()
        for n in self.graph.nodes:
            if n in self.fixed or self._view_of_held(n):
                self.held[n] = self.values[n]
            elif n.op == "get_attr" or (n.op == "call_function" and self._is_constant(n, constant)):
                constant.add(n)
                if n.op != "get_attr" and isinstance(self.values[n], Tensor):
                    self.held[n] = self.values[n]

    def _view_of_held(self, n: Node) -> bool:
        inputs = n.all_input_nodes
        if n.op != "call_function" or len(inputs) != 1 or inputs[0] not in self.held:
            return False
        return _shares(self.values[n], self.values[inputs[0]])

    def _is_constant(self, n: Node, constant: set[Node]) -> bool:
        value = self.values[n]
        if _is_writing(n) or _random(n) or not self._still(n) or not isinstance(value, Tensor) or value.numel() > _HELD:
            return False
        return _name(n) in _MADE or all(a in constant for a in n.all_input_nodes)

    def _biases(self) -> None:
        """bias + a @ b in one call."""
        for n in self._calls():
            if n.target is not aten.add.Tensor or n.kwargs:
                continue
            for product, bias in (n.args, n.args[::-1]):
                if self._is_product(product, n) and isinstance(bias, Node) and self._broadcasts(bias, n):
                    with self.graph.inserting_before(n):
                        new = self.graph.call_function(torch.baddbmm, (bias, *product.args))  # type: ignore[union-attr]
                    self.values[new], self.root[new] = self.values[n], new
                    self._swap(n, new)
                    break

    def _is_product(self, n: Any, user: Node) -> bool:
        if not isinstance(n, Node) or n.target is not aten.bmm.default or list(n.users) != [user]:
            return False
        return all(map(self._still, n.all_input_nodes))

    def _broadcasts(self, bias: Node, n: Node) -> bool:
        value, out = self.values[bias], self.values[n]
        return isinstance(value, Tensor) and value.ndim == 3 and value.dtype == out.dtype and value.shape != out.shape

    def _goals(self) -> None:
        """Put gradients and buffers where they go, after everything else."""
        output = next(n for n in self.graph.nodes if n.op == "output")
        results, many = list(output.args[0]), len(self.goal.parameters)
        gradients, losses, buffers = results[:many], results[many], results[many + 1 :]
        with self.graph.inserting_before(output):
            gradients = [self._apart(g) for g in gradients]
            for node, place in zip(buffers, self.goal.buffers, strict=True):
                if not self._untouched(node):
                    self.graph.call_function(Tensor.copy_, (self._place(place), node))
            for i, node in enumerate(gradients):
                if node not in self.held or bool(self.values[node].any()):
                    self._put(node, i)
        output.args = (losses,)

    def _untouched(self, node: Node) -> bool:
        """Is it a buffer that nothing wrote into?"""
        return node.target is aten.clone.default and node.args[0] in self.fixed and self._still(node)

    def _apart(self, node: Node) -> Node:
        """A gradient that is a view of a parameter must be read before that parameter moves."""
        if self.root[node] not in self.fixed:
            return node
        copy = self.graph.call_function(torch.clone, (node,))
        self.values[copy] = self.values[node].clone()
        self.root[copy] = copy
        return copy

    def _put(self, node: Node, i: int) -> None:
        goal = self.goal
        place = goal.parameters[i] if goal.slopes is None else goal.slopes[i]
        beta, alpha = (1, -goal.rate) if goal.slopes is None else (0, 1)
        found = self._product_under(node)
        if found is not None:
            product, turned = found
            a, b = product.args
            if turned:
                a, b = (self.graph.call_function(torch.transpose, (m, 1, 2)) for m in (b, a))
            self.graph.call_function(Tensor.baddbmm_, (self._place(place), a, b), {"beta": beta, "alpha": alpha})
        elif goal.slopes is None:
            self.graph.call_function(Tensor.add_, (self._place(place), node), {"alpha": alpha})
        else:
            self.graph.call_function(Tensor.copy_, (self._place(place), node))

    def _product_under(self, node: Node) -> tuple[Node, bool] | None:
        """The product that a gradient is, and whether it is turned over; None where it is another thing."""
        value = self.values[node]
        if value.ndim != 3:
            return None
        for n in (node, *self._above(node)):
            if n.target is aten.bmm.default and all(map(self._still, n.all_input_nodes)):
                product = self.values[n]
                return (n, False) if _alike(value, product) else (n, True) if _alike(value, product.mT) else None
            if n is not node and len(n.users) > 1:
                return None
        return None

    def _place(self, place: Tensor) -> Node:
        node = self.graph.get_attr("place")
        self.held[node] = self.values[node] = place
        self.root[node] = node
        return node

    def _direct(self) -> None:
        """Torch's own functions in place of the general dispatch of aten, where they give the same to the bit."""
        for n in self._calls():
            plain = _plain(n)
            if plain is not None and not _is_writing(n) and not _random(n) and self._same(n, plain):
                n.target = plain

    def _same(self, n: Node, plain: Callable[..., Any]) -> bool:
        try:
            found = plain(*self._of(n.args), **self._of(n.kwargs))
        except (TypeError, RuntimeError, ValueError):
            return False
        expected = self.values[n]
        pairs = zip(found, expected, strict=False) if isinstance(expected, Sequence) else ((found, expected),)
        return all(isinstance(a, Tensor) and _looks(a, b) and _shares_alike(a, b, n, self) for a, b in pairs)


def _shares_alike(a: Tensor, b: Tensor, n: Node, work: _Shortened) -> bool:
    """Are both views, or neither, and equal?"""
    return (_alike(a, b) or torch.equal(a, b)) and all(
        _shares(a, work.values[i]) == _shares(b, work.values[i]) for i in n.all_input_nodes
    )


def _plain(n: Node) -> Callable[..., Any] | None:
    if not isinstance(n.target, torch._ops.OpOverload):
        return None
    name = _name(n)
    return getattr(torch, name, None) or getattr(Tensor, name, None)


def _name(n: Node) -> str:
    packet = getattr(n.target, "overloadpacket", None)
    return packet.__name__ if packet is not None else ""


def _is_writing(n: Node) -> bool:
    return bool(_written(n)) or n.target in (Tensor.copy_, Tensor.add_, Tensor.baddbmm_)


def _written(n: Node) -> list[Node]:
    """The nodes whose storage it writes into."""
    if n.op != "call_function" or not isinstance(n.target, torch._ops.OpOverload):
        return []
    if _name(n) in _WRITES:
        return [a for a in n.args[3:5] if isinstance(a, Node)]
    schema = n.target._schema
    written = [a.alias_info is not None and a.alias_info.is_write for a in schema.arguments]
    given = [*n.args, *(n.kwargs.get(a.name) for a in schema.arguments[len(n.args) :])]
    return [a for a, w in zip(given, written, strict=False) if w and isinstance(a, Node)]


def _random(n: Node) -> bool:
    return isinstance(n.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in n.target.tags


def _shares(a: Any, b: Any) -> bool:
    if isinstance(b, list | tuple):
        return any(_shares(a, part) for part in b)
    if isinstance(a, list | tuple):
        return any(_shares(part, b) for part in a)
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() and a.untyped_storage().nbytes() > 0


def _looks(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return all(i == j or n == 1 for n, i, j in zip(a.shape, a.stride(), b.stride(), strict=True))


def _alike(a: Any, b: Any) -> bool:
    """The same numbers in the same place."""
    return isinstance(b, Tensor) and _looks(a, b) and a.data_ptr() == b.data_ptr() and _shares(a, b)
