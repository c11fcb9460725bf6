"""What a comparison leaves behind: results and models, saved without code and verified when read.

    results.json              the results, for people and programs
    index.json                what lies here: the hash of everything else, written last
    models/<sha256>.model     one model each, as wire bytes named by content: joint, personal, alone

Each model file holds its preparation too, so that one of them can be handed out alone.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from comity.core.checks import refusal, shown
from comity.core.contribution import Tree
from comity.core.errors import ConfigError, LedgerError, WireError, nearest
from comity.core.recipe import canonical
from comity.core.wire import decode_tree, encode_tree
from comity.ledger.folder import complaint
from comity.ledger.folder import write as write_file

VERSION = 1
MODELS, INDEX, RESULTS = "models", "index.json", "results.json"
_OWN = ("personal", "alone")
_DAMAGED = "Restore it from a copy, or run the same comparison again."


@dataclass(frozen=True, eq=False)
class Outcome:
    """What can be used after a comparison: of one repeat, the first.

    Attributes:
        results: as in the JSON.
        preparation: the joint one, as `Preparation.to_tree` gives it.
        joint: {"family", "rate", "params"} of the joint model; None where none was trained.
        personal: party to the params of the joint family tuned at home.
        alone: party to {"family", "preparation", "params"} of its own model.
    """

    results: Mapping[str, Any]
    preparation: Tree
    joint: Mapping[str, Any] | None = None
    personal: Mapping[str, Tree] = field(default_factory=dict)
    alone: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.personal and self.joint is None:
            raise ConfigError("Personal models are tuned from a joint one. Got none. Give joint={'family': ...}.")


@dataclass(frozen=True, eq=False)
class Saved:
    """One model that can be applied to new rows.

    Attributes:
        way: "joint", "personal" or "alone".
        party: whose; "" for the joint one.
        family: "linear", "mlp" or "trees".
        preparation: as `Preparation.to_tree` gives it.
        params: as fitted.
        rate: the learning rate; 0 where there is none.
    """

    way: str
    party: str
    family: str
    preparation: Tree
    params: Tree
    rate: float = 0.0

    def encode(self) -> bytes:
        """The bytes of its file."""
        named = {"way": self.way, "party": self.party, "family": self.family, "rate": self.rate}
        return encode_tree({"version": VERSION, **named, "preparation": self.preparation, "params": self.params})

    @classmethod
    def decode(cls, data: bytes, where: Path) -> "Saved":
        """The model in a file.

        Raises:
            LedgerError: the bytes hold no model.
        """
        try:
            tree = dict(decode_tree(data))
            if tree.pop("version") != VERSION:
                raise LedgerError(f"{where} must be of version {VERSION}. It is not. Use the comity that wrote it.")
            return cls(**tree)
        except (WireError, TypeError, ValueError, KeyError):
            raise LedgerError(f"{where} must hold a model that comity saved. It does not. {_DAMAGED}") from None


def write(folder: str | Path, outcome: Outcome) -> Path:
    """Write an outcome, whole or not at all; one that lies there is replaced.

    Args:
        folder: made where there is none. Other things in it (the joint runs) are left alone.
        outcome: results and models.

    Returns:
        The folder.

    Raises:
        LedgerError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kept = read(write(folder, Outcome({"version": 1}, {}, {"family": "linear", "rate": 0.1, "params": {}})))
        >>> kept.results, kept.joint
        ({'version': 1}, {'family': 'linear', 'rate': 0.1, 'params': {}})
    """
    path = Path(folder)
    results = (json.dumps(outcome.results, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    with _explained(path):
        (path / MODELS).mkdir(parents=True, exist_ok=True)
        put = _putter(path)
        joint = outcome.joint and put(_tuned(outcome, "joint", "", outcome.joint["params"]))
        parties: dict[str, dict[str, str]] = {}
        for model in _own_models(outcome):
            parties.setdefault(model.party, {})[model.way] = put(model)
        prepared = put(outcome.preparation)
        named = {"joint": joint, "parties": parties, "preparation": prepared, "results": sha256(results).hexdigest()}
        _commit(path, {"version": VERSION, **named}, results)
    return path


def read(folder: str | Path) -> Outcome:
    """The outcome that lies in a folder, every hash checked.

    Raises:
        ConfigError: the folder holds no outcome.
        LedgerError: names the file that does not match its hash.
    """
    path = within(folder)
    index = _index(path)
    shared = _model(path, index["joint"]) if index["joint"] else None
    joint = None if shared is None else {"family": shared.family, "rate": shared.rate, "params": shared.params}
    preparation = decode_tree(_verified(_file(path, index["preparation"]), index["preparation"]))
    own = {way: {p: _model(path, f[way]) for p, f in index["parties"].items() if way in f} for way in _OWN}
    personal = {p: m.params for p, m in own["personal"].items()}
    alone = {p: {"family": m.family, "preparation": m.preparation, "params": m.params} for p, m in own["alone"].items()}
    return Outcome(read_results(path), preparation, joint, personal, alone)


def read_results(folder: str | Path) -> dict[str, Any]:
    """The results that lie in a folder, their hash checked.

    Raises:
        ConfigError: the folder holds no outcome.
        LedgerError: they do not match their hash.
    """
    path = within(folder)
    found: dict[str, Any] = json.loads(_verified(path / RESULTS, _index(path)["results"]))
    return found


def read_model(folder: str | Path, party: str | None = None, way: str | None = None) -> Saved:
    """One model of a comparison; nothing but its own file is read.

    Args:
        folder: of a comparison; or one of its model files, handed out alone.
        party: whose model.
        way: "joint", "personal" or "alone"; by default the party's personal one if it has one, else the joint one.

    Raises:
        ConfigError: no outcome there, no such party, or no such model.
        LedgerError: names the file that does not match its hash.
    """
    path = within(folder)
    _check_way(way, party)
    if path.is_file() and path.name not in (INDEX, RESULTS):
        return _handed_out(path, party, way)
    path = path.parent if path.is_file() else path
    index = _index(path)
    own = _own(index, party, path)
    way = way or ("personal" if "personal" in own else "joint")
    name = index["joint"] if way == "joint" else own.get(way)
    if name is None:
        kept = ", ".join([*["joint"] * bool(index["joint"]), *(w for w in _OWN if w in own)]) or "none"
        hint = "" if party is not None else " Name a party, too."
        whose = "" if party is None else f" for '{party}'"
        raise ConfigError(f"A {way} model must have been trained. {path} holds{whose}: {kept}.{hint or ' Use that.'}")
    return _model(path, name)


def files_of(folder: str | Path) -> dict[str, dict[str, Path]]:
    """Party to way to the file that can be handed out; the joint model's under "".

    Raises:
        ConfigError: the folder holds no outcome.
    """
    path = within(folder)
    index = _index(path)
    named = {"": {"joint": index["joint"]} if index["joint"] else {}, **index["parties"]}
    return {party: {way: _file(path, name) for way, name in own.items()} for party, own in named.items()}


def within(folder: str | Path) -> Path:
    """The comparison's folder: this one, or the only one in it, as where `compare(..., runs=folder)` put it."""
    path = Path(folder)
    inside = [] if holds_outcome(path) else [file.parent for file in path.glob(f"*/{INDEX}")]
    return inside[0] if len(inside) == 1 else path


def holds_outcome(folder: str | Path) -> bool:
    """Does a comparison's outcome lie here?"""
    return (Path(folder) / INDEX).is_file()


def _tuned(outcome: Outcome, way: str, party: str, params: Tree) -> Saved:
    """The joint model with these params."""
    assert outcome.joint is not None
    family, rate = outcome.joint["family"], float(outcome.joint["rate"])
    return Saved(way, party, family, outcome.preparation, params, rate)


def _own_models(outcome: Outcome) -> Iterator[Saved]:
    """What belongs to one party each."""
    for party, params in outcome.personal.items():
        yield _tuned(outcome, "personal", party, params)
    for party, own in outcome.alone.items():
        yield Saved("alone", party, own["family"], own["preparation"], own["params"])


def _check_way(way: str | None, party: str | None) -> None:
    if way is not None and (not isinstance(way, str) or way not in ("joint", *_OWN)):
        hint = nearest(str(way), ("joint", *_OWN))
        raise ConfigError(f"The 'way' must be joint, personal or alone. Got {shown(way)}.{hint}")
    if party is not None and not isinstance(party, str):
        raise refusal("party", "", "the name of a party", party)
    if way in _OWN and party is None:
        raise ConfigError(f"A {way} model belongs to a party. Got none. Name the party.")


def _own(index: Mapping[str, Any], party: str | None, path: Path) -> Mapping[str, str]:
    """The files of one party."""
    if party is None:
        return {}
    if party not in index["parties"]:
        known = sorted(index["parties"])
        shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
        raise ConfigError(f"There is no party '{party}' in {path}.{nearest(party, known)} It has: {shown}.")
    own: Mapping[str, str] = index["parties"][party]
    return own


def _handed_out(path: Path, party: str | None, way: str | None) -> Saved:
    """A model file without its folder: its name is its hash, unless it was renamed."""
    named = path.stem if len(path.stem) == 64 else sha256(_bytes(path)).hexdigest()
    model = Saved.decode(_verified(path, named), path)
    for what, asked, got in (("party", party, model.party), ("way", way, model.way)):
        if asked is not None and asked != got:
            raise ConfigError(f"The {what} of {path.name} is '{got}'. Got '{asked}'. Leave it out, or name the folder.")
    return model


def _putter(path: Path) -> Callable[[Any], str]:
    """Writes a model or a Tree, and gives the name of its file."""

    def put(thing: Any) -> str:
        data = thing.encode() if isinstance(thing, Saved) else encode_tree(thing)
        name = sha256(data).hexdigest()
        write_file(_file(path, name), data)
        return name

    return put


def _commit(path: Path, index: dict[str, Any], results: bytes) -> None:
    """Without an index there is no outcome; so it goes first and comes last."""
    (path / INDEX).unlink(missing_ok=True)
    write_file(path / RESULTS, results)
    signed = {**index, "hash": sha256(canonical(index).encode()).hexdigest()}
    write_file(path / INDEX, json.dumps(signed, indent=1, ensure_ascii=False).encode())
    kept = {_file(path, name) for name in _names(index)}
    for file in (*(path / MODELS).glob("*.model"), *(path / MODELS).glob(".*.tmp")):
        if file not in kept:
            with suppress(OSError):
                file.unlink()


def _names(index: Mapping[str, Any]) -> Iterator[str]:
    yield index["preparation"]
    yield from [index["joint"]] if index["joint"] else []
    for own in index["parties"].values():
        yield from own.values()


def _index(path: Path) -> dict[str, Any]:
    if not holds_outcome(path):
        what = "a run, not a comparison" if (path / "run.db").exists() else "no finished comparison"
        inside = sorted(file.parent for file in path.glob(f"*/{INDEX}"))
        hint = (
            f"Name one of {', '.join(map(str, inside[:5]))}."
            if inside
            else "Name the folder that comity compare --runs printed."
        )
        raise ConfigError(f"The folder must be one that a comparison wrote. {path} holds {what}. {hint}")
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        told = index.pop("hash")
    except (OSError, ValueError, KeyError, AttributeError):
        raise LedgerError(f"{path / INDEX} cannot be read. {_DAMAGED}") from None
    if told != sha256(canonical(index).encode()).hexdigest():
        raise LedgerError(f"{path / INDEX} does not match its hash. {_DAMAGED}")
    if index["version"] != VERSION:
        raise LedgerError(f"{path / INDEX} must be of version {VERSION}. Got {index['version']}. Update comity.")
    return dict(index)


def _file(path: Path, name: str) -> Path:
    return path / MODELS / f"{name}.model"


def _model(path: Path, name: str) -> Saved:
    return Saved.decode(_verified(_file(path, name), name), _file(path, name))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LedgerError(f"{path} cannot be read ({error.strerror}). {_DAMAGED}") from None


def _verified(path: Path, name: str) -> bytes:
    """What a file holds, if that is what it should hold."""
    data = _bytes(path)
    if sha256(data).hexdigest() != name:
        raise LedgerError(f"{path} does not match its hash. {_DAMAGED}")
    return data


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LedgerError(complaint(path, error)) from error
