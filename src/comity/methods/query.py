"""Query: one question to everybody, one combined answer.

participant  answers the question with a contribution of the kind that the question implies
hub          combines the answers: side by side (Collect), as a mean (Mean), by vote (Vote)
never leaves what the answers do not say
bytes        the question down and the answer up, once for each participant
"""

from dataclasses import dataclass, field
from typing import Any

from comity.combine.collect import Collect
from comity.core.checks import part
from comity.core.contribution import Contribution, Tree
from comity.core.fits import fits
from comity.core.parts import Combiner
from comity.core.round import Round
from comity.core.spec import Leaf, Spec
from comity.core.wire import encode_tree


@dataclass(frozen=True)
class Query:
    """Ask everybody the same, once; `run(rounds=1).shared` is the combined answer.

    Attributes:
        question: a Tree, shared with kind "query".
        spec: what an answer must look like; by default any finite Tree.
        combiner: how answers are combined, `Collect()` by default.

    Example:
        >>> from dataclasses import dataclass
        >>> import comity as co
        >>> @dataclass(frozen=True)
        ... class Oracle:
        ...     word: str
        ...     def contribute(self, shared, local, round, secret):
        ...         return co.Contribution("text", f"{shared.value['ask']} {self.word}"), local
        >>> people = {"ada": Oracle("yes"), "bob": Oracle("no")}
        >>> co.Collaboration(co.Query({"ask": "join?"}), people, evaluate=False).run(rounds=1).shared
        {'ada': 'join? yes', 'bob': 'join? no'}

    Raises:
        ConfigError: a question that cannot travel, or a combiner or spec that is none.
    """

    question: Tree = field(metadata={"data": True})
    spec: Spec = field(default_factory=lambda: Spec(Leaf(), weights="any"))
    combiner: Combiner = field(default_factory=Collect)

    def __post_init__(self) -> None:
        fits("combine", self.combiner, called="combiner")
        part("spec", "Query", self.spec, ("value", "weights", "max_weight"), "co.Spec(co.Leaf())")
        encode_tree({"question": self.question})

    def init(self, round: Round) -> Any:
        """Nothing is known."""
        return {}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The question; once it is answered, the answer."""
        if "answer" in state:
            return Contribution("answer", state["answer"], state["weight"])
        return Contribution("query", self.question)

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """The spec."""
        return self.spec

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Keep the answer and how much weight it carries."""
        return {"answer": combined.value, "weight": combined.weight}
