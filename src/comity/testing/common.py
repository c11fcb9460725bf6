"""What the checks share: examples, comparisons, and how a broken law is told."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from comity.core.contribution import Contribution
from comity.core.errors import ComityError, ConfigError, ContributionError
from comity.core.parts import Combiner
from comity.core.rng import Rng, keyed
from comity.core.together import Stack
from comity.core.tree import Layout, leaves, ravel, tree_map
from comity.core.wire import as_tree, encode_tree
from comity.loop.fold import Fold

SLACK = 1e-5


class LawBroken(AssertionError):
    """A part breaks a law. The message names the part, the law and what was found."""


def usual_cohort(combiner: Combiner | None) -> list[Contribution]:
    """Seven deltas, or seven voters where deltas are refused."""
    rng = keyed(0, "example")
    shape = {"a": (3,), "b": {"c": (2, 2), "d": ()}}
    deltas = [
        Contribution("delta", tree_map(lambda s: _normal(rng, s), shape), float(w), {"loss": (w / 2, w)}, f"p{w}")
        for w in range(1, 8)
    ]
    votes = [
        Contribution("label", {"votes": rng.dirichlet(np.ones(3), 5).astype("float32")}, float(w), {}, f"p{w}")
        for w in range(1, 8)
    ]
    if combiner is None:
        return deltas
    for cohort in (deltas, votes):
        try:
            combiner.lift(cohort[0])
        except ContributionError:
            continue
        except Exception:  # noqa: BLE001  a law will say what is wrong with it
            return cohort
        return cohort
    raise ConfigError(f"{title(combiner)} takes neither deltas nor votes. Give an example: a list of contributions.")


def _normal(rng: Rng, shape: tuple[int, ...]) -> Any:
    return np.asarray(rng.normal(size=shape), np.float32)


def noise(tree: Any, number: int) -> Any:
    """Other numbers of the same looks, from tiny to large."""
    rng = keyed(0, "noise", str(number))
    scale = 10.0 ** (number % 5 - 2)
    return tree_map(lambda x: np.asarray(rng.normal(scale=scale, size=np.shape(x)), np.asarray(x).dtype), tree)


def summed(cohort: Sequence[Contribution]) -> Any:
    """The sum, as the loop makes it."""
    fold = Fold(len(cohort))
    for i, c in enumerate(cohort):
        fold.add(i, c)
    return fold.total()


def paths(tree: Any) -> list[tuple[str, ...]]:
    """The names of a Tree."""
    return [path for path, _ in leaves(tree)]


def looks(tree: Any) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The names of a Tree with their shapes."""
    return {path: np.shape(x) for path, x in leaves(tree)}


def bits(c: Contribution) -> bytes:
    """All of a contribution, to the bit."""
    return encode_tree(as_tree(c))


def alike(part: object, law: str, a: Any, b: Any, must: str) -> None:
    """The same names, and numbers that are the same but for rounding."""
    if looks(a) != looks(b):
        broken(part, law, f"{must} Got other names or shapes.")
    for (path, x), (_, y) in zip(leaves(a), leaves(b), strict=True):
        numbers = np.asarray(x).dtype.kind in "fiub"
        same = np.allclose(x, y, rtol=SLACK, atol=1e-6) if numbers else bool(np.all(x == y))
        if not same:
            broken(part, law, f"{must} Got a difference in {'.'.join(path) or 'the value'}.")


def said(part: object, law: str, f: Callable[[], Any]) -> Any:
    """What `f` gives; an error is that law's."""
    try:
        return f()
    except LawBroken:
        raise
    except Exception as error:
        own = str(error) if isinstance(error, ComityError) else repr(error)
        raise LawBroken(f"{title(part)} breaks the law of '{law}'. {own}") from error


def broken(part: object, law: str, said: str) -> NoReturn:
    """Say which law a part breaks."""
    raise LawBroken(f"{title(part)} breaks the law of '{law}'. {said}")


def title(part: object) -> str:
    """What a part is called in a message."""
    return type(part).__name__


def stackable(cohort: Sequence[Contribution]) -> bool:
    """Are they of one form, in floats of one dtype, each with one weight?"""
    looked = [{(p, np.shape(x), np.asarray(x).dtype.str) for p, x in leaves(c.value)} for c in cohort]
    dtypes = {dtype for _, _, dtype in looked[0]}
    plain = all(isinstance(c.weight, float | int) for c in cohort)
    return plain and all(x == looked[0] for x in looked) and len(dtypes) == 1 and dtypes.pop()[1] == "f"


def stacked(cohort: Sequence[Contribution]) -> Stack:
    """Contributions of one form, one above the other."""
    layout = Layout.of(cohort[0].value)
    names = [k for k in cohort[0].metrics if all(k in c.metrics for c in cohort)]
    metrics = {k: np.array([c.metrics[k] for c in cohort], float) for k in names}
    rows = np.stack([ravel(c.value, layout) for c in cohort])
    return Stack(cohort[0].kind, rows, layout, np.array([c.weight for c in cohort], float), metrics)
