"""The commands: comity demo, compare, predict, show, report, audit, check, helper; those of a hub are in `hub.py`."""

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comity import __version__
from comity.cli import FAILED, away, hub, keeping, pages, serve, site
from comity.cli.places import apart, there, writable, writable_folder
from comity.core.errors import ConfigError

if TYPE_CHECKING:
    from comity.comparison.compare import Comparison
    from comity.data.dictionary import Dictionary
    from comity.privacy.budget import Budget

app = typer.Typer(
    name="comity",
    help="Learn together, each keeping what is theirs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(hub.hub, name="hub")
app.command()(hub.join)
app.command()(hub.rotate)
app.command()(site.inspect)
app.command()(site.site)
for _command in (pages.login, pages.logout, keeping.backup, keeping.restore, keeping.migrate, keeping.prune):
    hub.hub.command()(_command)
app.command()(serve.serve)
app.command()(pages.page)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"It must be a whole number. Got '{text}'.") from None


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"It must be a number. Got '{text}'.") from None


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"comity {__version__}")
        raise typer.Exit


@app.callback()
def _comity(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error comes from.")] = False,
) -> None:
    """Learn together, each keeping what is theirs."""


@app.command(short_help="Is it worth joining? On two data sets of scikit-learn.")
def demo(
    folder: Annotated[Path, typer.Option(help="Where the two reports go.")] = Path("comity-demo"),
    repeats: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Random splits.")] = 5,
    rounds: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Rounds of joint training.")] = 30,
    seed: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Of splits, models and training.")] = 0,
) -> None:
    """Is it worth joining? On two real data sets that come with scikit-learn."""
    from rich.console import Console

    from comity.comparison.compare import compare
    from comity.demo import comparisons
    from comity.report.terminal import print_demo, progress

    for title in ("breast-cancer", "digits"):
        writable(folder / f"{title}.html")
    console = Console()
    console.print("Two real data sets that come with scikit-learn. Nothing leaves this machine.", style="dim")
    again = shlex.join(["comity", *_args()])
    answers, paths = {}, {}
    for title, (tables, target, called) in comparisons().items():
        with progress() as update:
            answer = compare(
                tables, target, rounds=rounds, repeats=repeats, seed=seed, title=title, called=called,
                command=again, tell=_titled(title, update),
            )  # fmt: skip
        answers[title], paths[title] = answer.results, folder / f"{title.replace(' ', '-')}.html"
        answer.report(paths[title])
    print_demo(answers, console, paths)


@app.command(short_help="Is it worth joining? Each way, on the same splits.")
def compare(
    table: Annotated[list[Path], typer.Argument(help="One row for each record; or one file for each party.")],
    target: Annotated[str, typer.Option(help="The column to be predicted.")],
    party: Annotated[str | None, typer.Option(help="The column that says whose a row is, in one table.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Scores by the words of this column too; repeat it.")] = None,
    fair: Annotated[str | None, typer.Option(help="Groups for a fairer model, and its price.")] = None,
    private: Annotated[str | None, typer.Option(help="Its price: epsilon=8,delta=1e-5,unit=example.")] = None,
    model: Annotated[str, typer.Option(help="auto, linear, mlp or trees.")] = "auto",
    rounds: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Rounds of joint training.")] = 30,
    repeats: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Random splits, for intervals.")] = 5,
    seed: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Of splits, models and training.")] = 0,
    pooled: Annotated[bool, typer.Option("--pooled/--no-pooled", help="The ceiling, which moves rows.")] = True,
    unseen: Annotated[bool, typer.Option("--unseen/--no-unseen", help="Score at parties that took no part.")] = True,
    words: Annotated[str, typer.Option(help="Words of categories: open, hashed or dictionary.")] = "open",
    fill: Annotated[str, typer.Option(help="What a missing number is taken for: mean or median.")] = "mean",
    schema: Annotated[Path | None, typer.Option(help="A schema.toml: codes and ranges.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all results to this file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the page to this file.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Keep the joint runs and the models in this folder.")] = None,
    at: Annotated[str | None, typer.Option("--hub", metavar="URL", help="Each party at its own machine.")] = None,
    identity: Annotated[Path | None, typer.Option(help="With --hub: the key with which this party joined.")] = None,
    salt: Annotated[Path | None, typer.Option(help="With --hub: of hashed words; the hub must not have it.")] = None,
) -> None:
    """Is it worth joining? Alone, ensemble, joint, personal and pooled on the same splits."""
    from comity.comparison.compare import compare as compared
    from comity.report.terminal import progress

    writable_folder(runs)
    who = None if at is None else away.checked(table, at, identity, party, (json, report))
    if who is None:
        _ready((*table, schema), party, (json, report), {"identity": identity, "salt": salt})
    given: Any = {"model": model, "rounds": rounds, "repeats": repeats, "seed": seed, "unseen": unseen, "fair": fair,
                  "words_from": words, "fill": fill, "groups": group or (), "private": _promised(private),
                  "dictionary": _dictionary(schema)}  # fmt: skip
    with progress() as update:
        if who is not None:
            answer = away.compared(table[0], target, given, identity=who, folder=runs, salt=salt, tell=update)
        else:
            answer = compared(table[0] if len(table) == 1 else table, target, party=party, pooled=pooled, runs=runs,
                              command=_again(), tell=update, **given)  # fmt: skip
    _kept(answer, json, report)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A comparison's folder (comity compare --runs), or a model file of one.")],
    table: Annotated[Path, typer.Argument(help="New rows: CSV, TSV, JSON Lines or Parquet; no target is needed.")],
    party: Annotated[str | None, typer.Option(help="Whose model.")] = None,
    way: Annotated[
        str | None, typer.Option(help="joint, personal or alone; with --party personal, else joint.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write CSV to this file; else to standard output.")] = None,
) -> None:
    """Apply the result of a comparison to new rows."""
    from comity.comparison.predict import predict as predicted
    from comity.ledger.folder import put

    there(run, "folder or model file of a comparison")
    if out is None and sys.__stdout__ is None:
        raise ConfigError("Predictions must go somewhere. Standard output is closed. Use --out FILE.")
    writable(out)
    apart((out,), (run, table))
    found = predicted(run, table, party=party, way=way)
    if out is None:
        sys.stdout.write(found.write_csv())
        return
    put(out, found.write_csv().encode())


@app.command(short_help="What lies in a folder, and what to do next.")
def show(
    folder: Annotated[Path, typer.Argument(help="Of a run, or of a comparison; or a ticket file.")],
    link: Annotated[
        str | None, typer.Option(metavar="LINK", help="Of a run: minutes if all had this link, as up=5e6,down=50e6.")
    ] = None,
) -> None:
    """What lies in a folder: scores, bytes, models, who answered, what to do next."""
    from comity.comparison import shown
    from comity.comparison.saved import holds_outcome, read_results
    from comity.deploy.shown import holds_ticket, show_ticket
    from comity.ledger.audit import audit as audited
    from comity.ledger.links import Link

    there(folder)
    by = Link.of(link) if link is not None else None
    if (folder / "run.db").is_file() and not holds_outcome(folder):
        found = audited(folder)
        _print(shown.show_run(found, by))
        _left(found.ok)
        return
    if by is not None:
        raise ConfigError(f"--link must be of a run's folder. Got {folder}. Leave it out, or name a run in it.")
    if holds_ticket(folder):
        _print(show_ticket(folder))
        return
    from rich.console import Console

    from comity.report.terminal import print_results

    lines = shown.show_comparison(folder)
    print_results(read_results(folder), Console())
    _print([(), *lines])


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A comparison's folder (comity compare --runs).")],
    out: Annotated[Path, typer.Option(help="Write the page to this file.")],
) -> None:
    """Write the page of a comparison that was kept."""
    from comity.comparison.saved import read_results
    from comity.report.page import write_page

    there(folder, "folder of a comparison")
    writable(out)
    write_page(read_results(folder), out)
    _print([((f"{'report':<11}{out}", ""),)])


@app.command(short_help="Check the ledger of a run; what was spent.")
def audit(
    folder: Annotated[list[Path], typer.Argument(help="A run's folder, or a comparison's for its chosen run.")],
    against: Annotated[Path | None, typer.Option(help="A file with a head that was kept, or a copy's folder.")] = None,
    delta: Annotated[float, typer.Option(parser=_real, metavar="D", help="At which epsilon is given.")] = 1e-5,
    party: Annotated[str | None, typer.Option(help="Sum what the runs spent of one party's budget.")] = None,
) -> None:
    """Check the ledger of a run: is it whole, who was heard when, what was spent."""
    from comity.comparison import shown
    from comity.ledger.audit import audit as audited

    if against is not None and len(folder) > 1:
        raise ConfigError(f"--against must be of one run. Got {len(folder)} folders. Name one.")
    for place in folder:
        there(place, "folder of a run")
    runs = [shown.run_of(place) for place in folder]
    if twice := [run for i, run in enumerate(runs) if run.resolve() in [r.resolve() for r in runs[:i]]]:
        raise ConfigError(
            f"Each run must be named once: what it spent counts once. Got {twice[0]} twice. Leave one out."
        )
    founds = [audited(run, against=against, delta=delta) for run in runs]
    last = shown.show_party(founds, party) if party is not None else []
    for place, run, found in zip(folder, runs, founds, strict=True):
        named = [((f"{'run':<11}{run}", ""),)] if run != place or len(folder) > 1 else []
        _print([*([()] if found is not founds[0] else []), *named, *shown.show_audit(found)])
    _print(last)
    _left(all(found.ok for found in founds))


@app.command(short_help="Does a table fit the data dictionary?")
def check(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, JSON Lines or Parquet, one row for each record.")],
    schema: Annotated[Path | None, typer.Option(help="The data dictionary, usually schema.toml.")] = None,
    write_schema: Annotated[Path | None, typer.Option(help="Draft a dictionary from this table into a file.")] = None,
    target: Annotated[str | None, typer.Option(help="For the draft: the column to be predicted.")] = None,
    party: Annotated[str | None, typer.Option(help="For the draft: the column that says whose a row is.")] = None,
) -> None:
    """Does a table fit the data dictionary? Nothing leaves this machine."""
    from comity.checking import check_table
    from comity.checking import report as told
    from comity.data.dictionary import Dictionary
    from comity.ledger.folder import put

    if schema is None and write_schema is None:
        raise ConfigError("A dictionary must be named. Got none. Use --schema FILE, or draft one: --write-schema FILE.")
    writable(write_schema)
    apart((write_schema,), (table, schema))
    dictionary = _dictionary(schema)
    if write_schema is not None:
        put(write_schema, Dictionary.draft(table, target, party).to_toml().encode())
        _print([((f"{'schema':<11}{write_schema}   read and correct it before you send it", ""),)])
    if dictionary is not None:
        findings = check_table(table, dictionary)
        _print([((line, ""),) for line in told(findings).splitlines()])
        _left(not any(f.severity == "error" for f in findings))


@app.command(short_help="The second of two servers, which adds masks.")
def helper(
    folder: Annotated[Path, typer.Option(help="Where its key and what it answered are kept.")],
    port: Annotated[int, typer.Option(parser=_whole, metavar="N", help="0 takes any that is free.")] = 8471,
    host: Annotated[
        str, typer.Option(help="Where to listen; put TLS before it where the hub is elsewhere.")
    ] = "127.0.0.1",
    minimum: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Members in a sum at least.")] = 3,
    identities: Annotated[
        Path | None, typer.Option(help="A JSON file: name to public key (hex) of all who may take part.")
    ] = None,
) -> None:
    """The second of two servers: adds masks, and never sees what they hide. It runs until it is stopped."""
    from comity.channels.helper import Helper
    from comity.service.helper import serve

    if identities is not None:
        there(identities, "file of identities")
    found = Helper(folder, minimum=minimum, identities=_identities(identities))
    serve(found, host, port, lambda url: typer.echo(f"{'helper':<11}{url}\n{'key':<11}{found.key.hex()}"))


def _identities(path: Path | None) -> Any:
    """What a file of identities holds."""
    import json

    try:
        return None if path is None else json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ConfigError(f"A file of identities must be JSON: {{name: public key in hex}}. {path} is none.") from None


def _again() -> str:
    """The command that gives the same."""
    return shlex.join(["comity", *_args()])


def _promised(text: str | None) -> "Budget | None":
    """What --private asks for."""
    from comity.comparison.private import asked

    return None if text is None else asked(text)


def _dictionary(path: Path | None) -> "Dictionary | None":
    """The dictionary in a file."""
    from comity.data.dictionary import Dictionary

    found = Dictionary.load(path) if path is not None else None
    if found is not None and not found.columns:
        raise ConfigError(f"A dictionary must describe columns. {path} has none. Draft one with --write-schema.")
    return found


def _print(lines: Iterable[Sequence[tuple[str, str]]]) -> None:
    """Lines of (text, style) pieces to standard output."""
    from rich.console import Console
    from rich.text import Text

    from comity.report.terminal import ALARM, WAY, clean, folded

    styles = {"alarm": ALARM, "ok": WAY["personal"], "joint": WAY["joint"]}
    console = Console()
    for line in lines:
        pieces = [(clean(text), styles.get(style, style)) for text, style in line]
        for part in folded(pieces, console.width) if console.is_terminal else [pieces]:
            console.print(Text.assemble(*part), highlight=False, soft_wrap=True)


def _left(ok: bool) -> None:
    """End with 1 where what was looked at is wrong."""
    if not ok:
        raise typer.Exit(FAILED)


def _titled(title: str, update: Callable[[str, float], None]) -> Callable[[str, float], None]:
    def tell(text: str, done: float) -> None:
        update(f"{title}   {text}", done)

    return tell


def _ready(
    inputs: Sequence[Path | None], party: str | None, outputs: Sequence[Path | None], far: dict[str, Path | None]
) -> None:
    """Refuse before the work what would end it. Of the inputs the last is the schema; `far` goes with a hub."""
    away.unused(far)
    for path in outputs:
        writable(path)
    apart(outputs, inputs)
    first, *more = [path for path in inputs[:-1] if path is not None]
    if party is None and not more and not first.is_dir() and "*" not in str(first):
        raise ConfigError(
            "One table wants --party, the column that says whose a row is. Or give a file for each party."
        )


def _kept(answer: "Comparison", json: Path | None, report: Path | None) -> None:
    from rich.console import Console

    from comity.report.terminal import print_results

    if json is not None:
        answer.json(json)
    if report is not None:
        answer.report(report)
    print_results(answer.results, Console(), report_path=report)


def _args() -> list[str]:
    """What was asked for."""
    return [arg for arg in sys.argv[1:] if arg != "--traceback"]
