"""Personal tickets on a schedule: each participant prunes its own mask, beside a core that the hub prunes for all.

participant  cuts its mask to the density of the round by the magnitudes of its own trained weights, the core always
             kept; trains the shared weights under it; sends a delta, float32, with a weight for each coordinate: its
             examples where its mask keeps it, 0 elsewhere
hub          averages each coordinate over those who kept it, steps with momentum (a coordinate that nobody covered in a
             round stays as it is, and so does its velocity), and narrows the core
never leaves examples, labels, the values of the own mask as they were trained last, buffers with the policy "local";
             the mask itself shows in what is sent
bytes        one model down, and two up (values and weights); with [Sparse(), Quantize(up=4, down=8), Deflate()] only
             the values at the kept coordinates each way, the mask when it changed, and the core down
"""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import Mean
from comity.core.checks import number, refusal, shown, whole
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError, ContributionError
from comity.core.fits import Unchanged
from comity.core.parts import Combiner, Model, Secret
from comity.core.positions import encode_mask
from comity.core.round import Round
from comity.core.spec import Spec, check, like
from comity.methods.augmenting import Augment, augment_fits, fitted_anew
from comity.methods.fedltn import FedLTN, pair, scored
from comity.methods.sparsity import (
    decoded,
    everything,
    magnitude_mask,
    masked,
    prunable,
    schedule_fits,
    scheduled,
    sparse_delta,
    to_prune,
)
from comity.methods.steps import as_dict
from comity.methods.training import model_fits, weighed

SHARED = frozenset(("params", "core", "density", "scope"))
STATE = frozenset(("params", "velocity", "core", "closed"))


@dataclass(frozen=True)
class PersonalTickets:
    """Trains sparse models with a mask for each participant, and if wanted a part of it in common.

    Participants are `PersonalTicketTrainer`. After t closed rounds the mask of each keeps the share d(t) of all
    prunable weights: those of the core, and the largest of the weights that it trained itself last. d falls from 1 to
    `density` as in gradual magnitude pruning (Zhu & Gupta, arXiv 1710.01878, eq. 1). Once d is below 1, the core is the
    share core·d(t) of largest magnitude in the averaged weights, chosen within the core of before, which was everything
    at first: it only shrinks, and so it always lies inside every mask. With core=0 there is none, and each mask is
    wholly personal; with core=1 all would be one mask, which is what `Tickets` does with sums that need no weights.

    The hub steps as `FedLTN` does: for each coordinate i, with n_k the examples of k and m_k its mask, d_i is the mean
    of the changes weighted by n_k m_ki, v_i ← momentum·v_i + d_i and w_i ← w_i + v_i; where Σ n_k m_ki is 0, v_i and
    w_i stay; statistics (BatchNorm) move by their mean. FedLTN (Mugunthan et al., ECCV 2022) prunes by validation
    accuracy, keeps normalisation at the participant and has no core; a schedule, averaged normalisation and the core
    are ours. Nothing is wound back, and masks only shrink.

    What is shared (`run.shared`) is {"params": {name: array}, "core": {name: bytes of core.positions}, "density": d,
    "scope"}: the parameters dense, and without a core {} for it. The whole sparse model of a participant is
    `sites[name].personal(run.shared, run.local(name))`. Weights that no mask keeps any more stay in "params" as they
    were last.

    The hub sees each mask, in the weights of a contribution. Sums of them are enough for it; `Sparse`, which makes
    contributions short, needs each.

    Attributes:
        model: what is trained; the participants hold the same one.
        rounds: of the whole schedule, >= 1; run as many.
        core: the share of each mask that is the same for all, in [0, 1).
        density: the share of prunable weights that each keeps in the end, in (0, 1].
        begin: the share of the rounds before the first weight is pruned, in [0, 1).
        by: the share of the rounds after which the density is reached, in [begin, 1].
        momentum: of the hub, in [0, 1).
        scope: "global" compares all weights with each other; "layer" only those of one layer, and each comes to the
            density. Told to the participants.
        bound: the largest absolute value of a change, > 0; what passes it is refused.
        start: parameters to begin with, or what another run shared (its parameters are taken), or the state of another
            run (`run.state`), whose schedule goes on after the rounds that it closed. A participant without a drawer is
            a newcomer there.

    Raises:
        ConfigError: a setting out of range, a model with nothing to prune, or a start of another form.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.MLP(inputs=4, classes=2, hidden=(50,), rate=0.5)
        >>> sites = {name: co.PersonalTicketTrainer(model, (X, y)) for name in ("a", "b")}
        >>> run = co.Collaboration(co.PersonalTickets(model, 20, core=0.5, density=0.1), sites).run(rounds=20)
        >>> params = sites["a"].personal(run.shared, run.local("a"))
        >>> run.metrics["train_accuracy"], sum(int(np.count_nonzero(params[name])) for name in ("0.weight", "2.weight"))
        (1.0, 30)
    """

    model: Model
    rounds: int
    _: KW_ONLY
    core: float = 0.0
    density: float = 0.3
    begin: float = 0.0
    by: float = 0.4
    momentum: float = 0.5
    scope: str = "global"
    bound: float = math.inf
    start: Tree = None
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        model_fits(self, "statistics")
        schedule_fits(self)
        one = "One mask for all is what co.Tickets does."
        for name, hint in (("core", one), ("momentum", "")):
            value = number(name, "PersonalTickets", getattr(self, name), "[0, 1)", hint=hint)
            object.__setattr__(self, name, value)
        number("bound", "PersonalTickets", self.bound, "(0, inf]", hint="Use math.inf for none.")
        self.init(Round("start", 0))

    @property
    def combiner(self) -> Combiner:
        """Mean, weighted by the examples of those who kept a coordinate."""
        return Mean()

    def density_after(self, closed: int) -> float:
        """The density of each mask after so many closed rounds, of all prunable weights together."""
        return scheduled(self, closed)

    def init(self, round: Round) -> Any:
        """The model's own parameters and a core of everything, or what `start` gives."""
        own, start = as_dict(self.model.init(round)), self.start
        names = to_prune(self, own)
        if isinstance(start, Mapping) and start.keys() == STATE:
            return self._going_on(own, names, start)
        given = start["params"] if isinstance(start, Mapping) and start.keys() == SHARED else start
        whole_core = everything(own, self.model.statistics) if self.core else {}
        core = {name: encode_mask(leaf) for name, leaf in whole_core.items()}
        return {**replace(self._hub, start=given).init(round), "core": core, "closed": 0}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The dense parameters, the core, and the density that masks are to have."""
        told = {"core": state["core"], "density": self.density_after(state["closed"]), "scope": self.scope}
        return Contribution("model", {"params": state["params"], **told})

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """Changes of the parameters, within the bound, each with weights of its own."""
        return Spec({"params": like(state["params"], -self.bound, self.bound)}, kind="delta", weights="tree")

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Step where somebody covered a coordinate, and narrow the core."""
        change: Any = combined.value
        weight = combined.weight["params"] if isinstance(combined.weight, Mapping) else combined.weight
        moved = self._hub.update(state, replace(combined, value=change["params"], weight=weight), round)
        closed = state["closed"] + 1
        return {**moved, "core": self._narrowed(moved["params"], state["core"], closed), "closed": closed}

    def params(self, found: Any) -> Any:
        """The dense parameters of what a run shared, or of its state: {name: array} as the model has them.

        Raises:
            ConfigError: it is neither.
        """
        return self._found(found)["params"]

    def mask(self, found: Any) -> dict[str, Array]:
        """The core of what a run shared, or of its state: {name: bool array}, nothing kept where there is no core.

        Raises:
            ConfigError: it is neither, or of another model.
        """
        own = as_dict(self.model.init(Round("start", 0)))
        return core_of(self._found(found)["core"], own, prunable(own, self.model.statistics))

    @property
    def _hub(self) -> FedLTN:
        """It steps as FedLTN does that shares all."""
        return FedLTN(self.model, self.momentum, norms="average", bound=self.bound)

    def _narrowed(self, params: Any, core: Any, closed: int) -> dict[str, bytes]:
        share = self.density_after(closed)
        if not core or share == 1.0:
            return dict(core)
        before = decoded(core, params, prunable(params, self.model.statistics))
        after = magnitude_mask(params, self.core * share, within=before, scope=self.scope)
        return {name: encode_mask(leaf) for name, leaf in after.items()}

    def _found(self, found: Any) -> Any:
        if isinstance(found, Mapping) and found.keys() in (SHARED, STATE):
            return found
        raise ConfigError(f"It must be what a run of PersonalTickets shared, or its state. Got {shown(found)}.")

    def _going_on(self, own: Any, names: tuple[str, ...], state: Any) -> Any:
        """The state of an earlier run, looked at."""
        begun = replace(self._hub, start=state["params"]).init(Round("start", 0))
        try:
            check(Contribution("velocity", state["velocity"]), Spec(like(begun["velocity"])))
        except ContributionError as error:
            got = shown(state["velocity"])
            raise refusal("start", "", "a state with a velocity like its parameters", got, "Use run.state.") from error
        if bool(state["core"]) != bool(self.core):
            must = f"a state {'with' if self.core else 'without'} a core"
            raise refusal("start", "", must, state["core"], "Use the same share of core.")
        core_of(state["core"], own, names)
        closed = whole("closed", "start", state["closed"])
        return {**begun, "velocity": state["velocity"], "core": dict(state["core"]), "closed": closed}


@dataclass(frozen=True)
class PersonalTicketTrainer:
    """Keeps a mask of its own, trains the shared weights under it, and is scored with them.

    In each round it is told the density d and the core: of the weights in its mask it keeps those of the core and the
    largest of the others, by the values that *it* had trained when it took part last, until the share d of all is left.
    Only then it trains, from the shared weights under the mask, and sends what changed. Who was away cuts to d at once
    when asked again.

    A newcomer, whose drawer is empty, has trained nothing: it begins with the largest of the *shared* weights at the
    density d, with the core; never with everything (unless d is 1), and without a look at its data.

    The drawer holds `run.local(name)["mask"]`, {name: bool array}, and ["trained"], {name: (kept,) array}. Scores are
    of the shared weights under its mask, cut to d; beside them "density", the share of prunable weights that is kept.
    `Sparse` sends it only the values that the mask of its last reply kept: all that it needs, since masks only shrink.

    Attributes:
        model: the same as the method's; it must offer Step(mask=...), as Linear, MLP and TorchModel do.
        data: (X, y): X (examples, ...), y (examples,); or whatever else the model's `fit` takes.
        epochs: in a round, >= 0; None for the model's own.
        augment: `augment(x, rng) -> x`, as that of `SharedTicketTrainer`.
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_".

    Where neither test nor valid is given, scores are of the training data and begin with "train_".

    Raises:
        ConfigError: epochs below 0 or not finite, an `augment` that cannot be called or has no (X, y) to change, no
            model that can be trained; in a run, a hub that is not `PersonalTickets`.
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    epochs: float | None = None
    augment: Augment | None = None
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)
    drawer: ClassVar[str] = "ticket"

    def __post_init__(self) -> None:
        model_fits(self, "fit()", "statistics")
        augment_fits(self)

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """A delta at the kept coordinates, and the ticket into the drawer; or scores when scores are asked for."""
        mine, told = as_dict(local), _told(shared.value)
        given, mask, buffers = told["params"], self._mask(told, mine), mine.get("buffers", {})
        params = masked(given, mask)
        if shared.kind == "score":
            return scored(self, params, buffers, mask), local
        params, buffers, metrics = fitted_anew(self, params, buffers, round, mask)
        c = sparse_delta(weighed(self, "delta", None, {**metrics, "density": pair(mask)}), params, given, mask)
        trained = {name: np.asarray(params[name])[leaf] for name, leaf in mask.items()}
        mine |= {"mask": mask, "trained": trained, **({"buffers": buffers} if buffers else {})}
        return replace(c, value={"params": c.value}, weight={"params": c.weight}), mine

    def personal(self, shared: Tree, local: Tree) -> dict[str, Any]:
        """The sparse model of a participant: the shared weights under its mask, cut to the density that is told.

        Args:
            shared: `run.shared`.
            local: its drawer, `run.local(name)`; {} stands for a newcomer.

        Raises:
            ConfigError: shared by another method, or of another model.
        """
        told = _told(shared)
        return masked(told["params"], self._mask(told, as_dict(local)))

    def _mask(self, told: Mapping[str, Any], mine: Mapping[str, Any]) -> dict[str, Array]:
        """The mask at the density that is told; the core has the largest magnitude of all."""
        given = told["params"]
        names = prunable(given, self.model.statistics)
        within = mine["mask"] if "mask" in mine else everything(given, self.model.statistics)
        ranked = _spread(mine["trained"], within) if "mask" in mine else given
        core = core_of(told["core"], given, names)
        ranked = {name: np.where(core[name], np.inf, ranked[name]) for name in names}
        return magnitude_mask(ranked, told["density"], within=within, scope=told["scope"])


def core_of(given: Any, own: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Array]:
    """A core as it travels, {name: bytes}, as bool arrays like `own`; of {} one that keeps nothing.

    Raises:
        ConfigError: it is of another model.
    """
    if isinstance(given, Mapping) and not given:
        return {name: np.zeros(np.shape(own[name]), bool) for name in names}
    return decoded(given, own, names)


def _told(shared: Any) -> Mapping[str, Any]:
    if isinstance(shared, Mapping) and shared.keys() == SHARED:
        return shared
    raise ConfigError(f"PersonalTicketTrainer must be told what PersonalTickets shares. Got {shown(shared)}. Use both.")


def _spread(trained: Mapping[str, Any], mask: Mapping[str, Any]) -> dict[str, Array]:
    """The trained values where they belong, 0 elsewhere."""
    out = {name: np.zeros(leaf.shape, trained[name].dtype) for name, leaf in mask.items()}
    for name, leaf in mask.items():
        out[name][leaf] = trained[name]
    return out
