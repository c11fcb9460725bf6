"""May these fits be batched? Two small ones are done both ways, and what differs is not batched."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from comity.adapters.torch.batches import Ready
from comity.adapters.torch.losses import Unbatched
from comity.adapters.torch.sequential import one_by_one
from comity.adapters.torch.works import Done, Form, Work, signature
from comity.core.round import Turns

if TYPE_CHECKING:
    from comity.adapters.torch.model import TorchModel

RTOL, ATOL = 1e-4, 1e-5


def form_of(model: "TorchModel", work: Work) -> Form:
    """How to batch them, found once for each shape of rows. The lock of the module is held, and it is in training.

    Raises:
        Unbatched: they cannot be, and why.
    """
    engine, known = model._engine, signature(work.data)
    if known is None:
        raise Unbatched("the data are not all in memory with rows of one shape")
    if known not in engine.proven:
        engine.proven[known] = _proven(model, work)
    found = engine.proven[known]
    if isinstance(found, Unbatched):
        raise found
    return found


def _proven(model: "TorchModel", work: Work) -> Form | Unbatched:
    few, reason = sample(work, model.batch), Unbatched("there is no way to batch the loss")
    before = _attributes(model)
    expected = one_by_one(model, few)
    if changed := next((k for k, v in _attributes(model).items() if before.get(k) is not v), None):
        return Unbatched(f"the module keeps something from step to step: '{changed}'")
    known = signature(work.data)
    assert known is not None
    for i, form in enumerate(model._engine.forms(few.data, known)):
        try:
            found = model._engine.run(few, 2, form)
        except Unbatched as error:
            reason = error if i == 0 else reason
            continue
        if (apart := difference(found, expected)) is None:
            return form
        reason = Unbatched(f"batched steps differ from sequential ones by {apart:.1e}") if i == 0 else reason
    return reason


def _attributes(model: "TorchModel") -> dict[str, Any]:
    """What hangs on each submodule, beside parameters and buffers."""
    return {f"{n}.{k}".lstrip("."): v for n, m in model._flat.module.named_modules() for k, v in vars(m).items()}


def sample(work: Work, batch: int) -> Work:
    """Two of these, the longest and another, with two or three batches of which the last is not full."""
    sizes = work.sizes
    first = int(np.argmax(sizes))
    others = [i for i in range(len(sizes)) if i != first]
    second = max(others, key=lambda i: (sizes[i] != sizes[first], sizes[i]))
    who = [first, second]
    k = _ragged(sizes[first], batch)
    other = _ragged(min(sizes[second], max(2, k // 2)), batch)
    data = [cut(work.data[i], n) for i, n in zip(who, (k, other), strict=True)]
    return replace(part(work, who), data=data, epochs=1.0)


def _ragged(n: int, batch: int) -> int:
    k = min(n, 2 * batch + batch // 2 + 1)
    return k - 1 if k % batch == 0 and k > 2 else k


def cut(data: Ready, n: int) -> Ready:
    """The first n rows."""
    return Ready(data.x[:n], data.y[:n])


def part(work: Work, who: Sequence[int]) -> Work:
    """Some of these."""
    start = work.start if work.start.ndim == 1 else work.start[list(who)]
    rounds = Turns(work.rounds.turn, [work.rounds.names[i] for i in who])
    return replace(
        work, start=start, local=[work.local[i] for i in who], data=[work.data[i] for i in who], rounds=rounds
    )


def difference(found: Done, expected: Done) -> float | None:
    """The largest difference; None where all is close."""
    pairs = [(found.rows, expected.rows), (found.loss, expected.loss)]
    for a, b in zip(found.local, expected.local, strict=True):
        pairs += [(a[name], b[name]) for name in b]
    if all(np.allclose(a, b, RTOL, ATOL, equal_nan=True) for a, b in pairs):
        return None
    return max(float(np.abs(np.subtract(a, b, dtype=np.float64)).max()) for a, b in pairs)
