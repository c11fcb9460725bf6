"""The protocols: what the loop asks of a part. There is no base class, and no part is ever asked for its type.

The one question between parts is *sum or each?*: a combiner says what it `needs`, a transform how it
`decodes`, a channel what it `reveals`. `core.rules` checks that they fit before anything moves.
Optional second methods (used when present) are named in each docstring.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, overload, runtime_checkable

from comity.core.contribution import Array, Contribution, Metrics, Tree, View
from comity.core.envelope import Envelope, Owed
from comity.core.rng import Rng
from comity.core.round import Round
from comity.core.spec import Spec

S = TypeVar("S")
Gathered: TypeAlias = Contribution | Sequence[Contribution]


class Stream(Protocol):
    """Random bytes from a cipher, read once from the beginning."""

    def take(self, size: int) -> Array:
        """The next bytes, (size,) uint8; the portions in which it is read make no difference."""
        ...


class Secret(Protocol):
    """A side's own secrets: they never leave it and are never derived from the run's seed."""

    def rng(self, *purpose: str) -> Rng:
        """Randomness that nobody else can reproduce, such as for credited sampling. It is no cipher."""
        ...

    def key(self, *purpose: str) -> bytes:
        """32 bytes that nobody else can reproduce, the same for the same purpose: keys of a channel."""
        ...

    def stream(self, *purpose: str) -> Stream:
        """Bytes from a cipher under such a key: noise that a proof of privacy rests on."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Sign with the long-term identity (Ed25519, 64 bytes)."""
        ...

    def public_key(self) -> bytes:
        """The Ed25519 public key that verifies what `sign` makes, 32 bytes."""
        ...


@runtime_checkable
class Participant(Protocol):
    """Runs where the data is. Data never appear in a signature.

    Optional: `alike`, a Hashable, and `contribute_many(works, plan)`. Participants whose `alike` is the same, and not
    None, may be asked together: the first is given all of `works` (core.together.Works), and answers for each what
    `contribute` would: to the bit, or to rtol 1e-4 and atol 1e-5 where the plan is not "sequential". It gives a list of
    (contribution, drawer), or `Together` where contributions have one form. `plan(works, wish)` measures how they are
    best done, once in a run. Scores are always asked one by one. One that spends privacy on its examples says how much
    by `spend(round)`, a `Spend` or a list of them.
    """

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Answer what the hub shared.

        Args:
            shared: what the hub gives; of kind "score" when it asks for scores only.
            local: this participant's own drawer, {} the first time. It never leaves the site.
            round: what everybody may know.
            secret: this side's own randomness and identity.

        Returns:
            The contribution (its sender may stay "") and the drawer after it, which is kept only if
            the hub accepts the contribution; the drawer after a score is dropped.
        """
        ...


class Method(Protocol):
    """What is being learnt together, and how the shared thing changes.

    A state is a Tree, so that it can be saved without code. Where `share` and `expect` are the same whoever is asked,
    `tells` may be "all": contributions can then be added near the work. Where what is contributed is a change that may
    be added, made smaller, to a later state than the one it was made from, `ages` is True: it may come late.
    """

    @property
    def combiner(self) -> "Combiner":
        """The usual combiner; the user may swap it."""
        ...

    def init(self, round: Round) -> Any:
        """The hub's state before the first round."""
        ...

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """What `to` is given before it is asked ("" for everybody)."""
        ...

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """What a contribution of `to` must look like, before `lift`."""
        ...

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """The state after a round; the old one is not changed."""
        ...


class Combiner(Protocol):
    """Many contributions to one.

    A combiner that sums also says by what it divides: `denominator`, one of "weight" (data),
    "answered" or "expected" (not data). Optional: `lift_many(stack)`, as `lift` for each of a core.together.Stack.
    """

    @property
    def needs(self) -> View:
        """Is the sum of the lifted contributions enough, or must it see groups or each?"""
        ...

    def init(self) -> Any:
        """The combiner's own state, a Tree (reputations, for one)."""
        ...

    def lift(self, c: Contribution) -> Contribution:
        """At the site: a contribution to a summand, x -> (w·x, w)."""
        ...

    def lower(self, gathered: Any, state: Any, round: Round) -> tuple[Contribution, Any]:
        """At the hub: the sum (needs "sum") or the list (otherwise) to one combined contribution."""
        ...


class Transform(Protocol):
    """Protects or compresses: a pair, undone in reverse order.

    Optional: `pack(c, state, to, round)` and `unpack(c, local, round)` for the way down,
    `publish(state, round)` for the small public part that `encode` gets, `bounds(spec)` when it bounds
    the norm, `spend(round)` when it adds noise (`central = True` when it does so at the hub),
    `encode_many(stack, public, works)`: as `encode` for each of a core.together.Stack of those in `works`, as
    `Together`.
    """

    @property
    def decodes(self) -> View:
        """Undone on the sum, or one by one ("each")? One by one, `state` is that member's own entry."""
        ...

    @property
    def contracts(self) -> bool:
        """Does it never raise the L2 norm of what it is given?"""
        ...

    def init(self) -> Any:
        """The state at the hub: one for all, or one for each member when decoded one by one."""
        ...

    def encode(
        self, c: Contribution, public: Tree, local: Tree, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: the lifted contribution to what travels, and the drawer after it."""
        ...

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Any]:
        """At the hub: undo it on one contribution or on the sum."""
        ...


@dataclass(frozen=True, slots=True)
class Until:
    """How long to wait for a cohort.

    Attributes:
        quorum: answers that are enough.
        seconds: the deadline; None waits for everybody. Progress extends it.
        grace: seconds to go on waiting once the quorum is there.
        owed: None: the question is closed at the end. Otherwise it stays open, for an answer in a later turn; members
            here owe one to an earlier question: it is yielded as those to this one are, and counts for the quorum. With
            `seconds` None the quorum is then the end; else the quorum together with all who are asked now.
    """

    quorum: int
    seconds: float | None = None
    grace: float = 0.0
    owed: Mapping[str, Owed] | None = None


Ask: TypeAlias = Callable[[Sequence[str], Callable[[str], Contribution], Until], Iterator[Contribution]]


class Session(Protocol):
    """What a channel knows about one cohort of one round.

    Optional: `left_out`, once it was opened: name to the reason why what it sealed is in no sum.
    """

    def view(self, member: str) -> Tree:
        """What travels to the member with the question."""
        ...


class Channel(Protocol):
    """How a cohort's contributions become visible.

    One that adds in a ring of integers has `ring = True`; one that wants a cohort of some size says it by `minimum`.
    One that opens what was sealed, as it was and each alone, and has nothing to tell in its views, may say so by
    `transparent = True`: contributions can then be added near the work.
    """

    @property
    def reveals(self) -> View:
        """What the hub sees: each contribution, sums of groups, or only the sum."""
        ...

    def setup(self, cohort: Sequence[str], ask: Ask, round: Round) -> Session:
        """At the hub, before the question: may ask for keys and shares."""
        ...

    def answer(self, message: Contribution, memory: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """At the site: one phase of the channel's own."""
        ...

    def seal(
        self, c: Contribution, view: Tree, memory: Tree, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: the encoded contribution to what the hub receives."""
        ...

    def open(self, sealed: Iterator[Contribution], session: Session, ask: Ask, until: Until) -> Iterator[Contribution]:
        """At the hub: what it may see, in the order in which it came."""
        ...


class Roster(Protocol):
    """The names of all participants: sized and indexable, never a list of a million names."""

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, index: int, /) -> str: ...
    @overload
    def __getitem__(self, index: slice, /) -> Sequence[str]: ...

    def __contains__(self, name: object, /) -> bool: ...


class Engine(Protocol):
    """Carries envelopes between hub and sites; knows nothing of learning.

    Optional: `total(cohort, task, until)`, an iterator of core.together.Part, when the engine can add near the work;
    the task (core.together.Task) is for the whole cohort. And `close()`, at the end of a run. One that keeps questions
    open as `Until.owed` says has `patient = True`; one whose clock is simulated says by `took()` how many seconds
    passed since it was last asked that.
    """

    def roster(self) -> Roster:
        """Who there is."""
        ...

    def ask(self, cohort: Sequence[str], message: Callable[[str], Envelope], until: Until) -> Iterator[Envelope]:
        """Ask each member once and yield the answers as they come.

        Who drops out is absent; a member whose code failed answers with a body of kind "error".
        """
        ...


class Past(Protocol):
    """A read-only view of the ledger, for selections and stops."""

    @property
    def rounds(self) -> int:
        """Rounds closed so far."""
        ...

    def metric(self, name: str) -> Sequence[float]:
        """The values of a metric, one for each closed round that has it."""
        ...


class Select(Protocol):
    """Who is asked, and who hears whom.

    One where each peer is its own hub has `peers = True`; one whose rounds need more of the cohort than the
    collaboration asks for says so in `quorum`, a share in [0, 1]. One that draws from the secret so that privacy may be
    credited says how: `sampling` ("poisson" or "fixed") and `rate`; one whose cohorts may by chance be too small to be
    hidden in has `fills = True`, and is filled up with others who send zeros.
    """

    def __call__(self, roster: Roster, round: Round, past: Past, secret: Secret) -> Mapping[str, Sequence[str]]:
        """Hub to its members, for one round."""
        ...

    def expected(self, roster: int) -> float:
        """The public expectation of a cohort's size, q·N."""
        ...


@dataclass(frozen=True, slots=True)
class Spend:
    """Privacy that one release uses: a fact; epsilon is computed from all of them.

    Attributes:
        mechanism: "gaussian", "laplace", "response", "tree", "skellam" or "discrete-gaussian".
        noise: standard deviation over the L2 sensitivity (the noise multiplier), where one unit is added or removed;
            of "laplace" the scale over the L1 sensitivity, of "response" its epsilon.
        rate: the sampling rate q in (0, 1] that really was used.
        count: how many such releases.
        unit: what is protected: "example", "participant" or "party".
        sampling: how units really were sampled: "poisson", "fixed" (so many, without replacement) or "none".
        who: whose budget it is: a participant's own, or "" for everybody's.
    """

    mechanism: str
    noise: float
    rate: float = 1.0
    count: int = 1
    unit: str = "participant"
    sampling: str = "none"
    who: str = ""


class Stop(Protocol):
    """When to end a run before its last round; with `complete = True` it is one that had no more to come."""

    def __call__(self, past: Past, ahead: Sequence[Spend]) -> bool:
        """Stop now? It sees the next spend before it happens."""
        ...


@dataclass(frozen=True, slots=True)
class Private:
    """Per-example clip and noise for DP-SGD.

    Attributes:
        clip: the largest L2 norm of one example's gradient.
        noise: standard deviation of the noise over `clip`.
        stream: from the site's secret, never from the run's seed.
        rate: each step takes each example with this probability, drawn from the stream too (Poisson sampling).
    """

    clip: float
    noise: float
    stream: Stream
    rate: float = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """How one step of local training differs from the ordinary.

    Attributes:
        loss: `loss(outputs, features, batch)` in place of the model's own.
        adjust: `adjust(params, gradient, start) -> gradient`, each a flat vector: FedProx, SCAFFOLD, FedDyn.
        mask: a Tree like the parameters, 1 where a weight may move.
        private: per-example clip and noise.
        epochs: epochs in place of the model's own.
    """

    loss: Callable[..., Any] | None = None
    adjust: Callable[[Any, Any, Any], Any] | None = None
    mask: Tree = None
    private: Private | None = None
    epochs: float | None = None


class Model(Protocol):
    """An ordinary model behind one face. Parameters are a Tree whose leaves are views of one flat vector.

    Optional: `norms`, the leaves of layers with running statistics, and `recalibrate(params, x)`: new statistics;
    `nodes`, which weights belong to one channel or neuron (core.nodes).
    """

    @property
    def statistics(self) -> Collection[str]:
        """Top-level names that are statistics (BatchNorm), averaged as they are and never stepped by a hub."""
        ...

    def init(self, round: Round) -> Tree:
        """The first parameters and averaged buffers."""
        ...

    def fit(self, params: Tree, data: Any, round: Round, step: Step = Step()) -> tuple[Tree, Metrics]:
        """Train from `params` on `data`; `params` is not changed.

        Returns:
            New parameters and (sum, count) metrics, of which `examples` is (examples, 1).
        """
        ...

    def predict(self, params: Tree, x: Any) -> Array:
        """(rows, classes) probabilities where there are classes, else (rows,) float."""
        ...

    def features(self, params: Tree, x: Any, taps: Sequence[str]) -> Mapping[str, Array]:
        """Inner representations by module name, each (rows, ...)."""
        ...
