"""The command: comity demo, compare, predict, show, report, audit, check."""

import os
import shlex
import sys
import traceback as tracebacks
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comity import __version__
from comity.core.errors import ComityError, ConfigError

if TYPE_CHECKING:
    from comity.comparison.compare import Comparison

app = typer.Typer(
    name="comity",
    help="Learn together, each keeping what is theirs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


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


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the two reports go.")] = Path("comity-demo"),
    repeats: Annotated[int, typer.Option(help="Random splits.")] = 5,
    rounds: Annotated[int, typer.Option(help="Rounds of joint training.")] = 30,
    seed: Annotated[int, typer.Option(help="Of splits, models and training.")] = 0,
) -> None:
    """Is it worth joining? On two real data sets that come with scikit-learn."""
    from rich.console import Console

    from comity.comparison.compare import compare
    from comity.demo import comparisons
    from comity.report.terminal import print_demo, progress

    _writable(folder / "digits.html")
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


@app.command()
def compare(
    table: Annotated[
        list[Path], typer.Argument(help="A table with one row for each record; or one file for each party.")
    ],
    target: Annotated[str, typer.Option(help="The column to be predicted.")],
    party: Annotated[str | None, typer.Option(help="The column that says whose a row is, in one table.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="A column by whose words scores are given too; repeat it.")
    ] = None,
    fair: Annotated[str | None, typer.Option(help="Groups for a fairer model, and its price.")] = None,
    model: Annotated[str, typer.Option(help="auto, linear, mlp or trees.")] = "auto",
    rounds: Annotated[int, typer.Option(help="Rounds of joint training.")] = 30,
    repeats: Annotated[int, typer.Option(help="Random splits; intervals are over them.")] = 5,
    seed: Annotated[int, typer.Option(help="Of splits, models and training.")] = 0,
    pooled: Annotated[bool, typer.Option("--pooled/--no-pooled", help="The ceiling, which moves rows.")] = True,
    unseen: Annotated[bool, typer.Option("--unseen/--no-unseen", help="Score at parties that took no part.")] = True,
    words: Annotated[str, typer.Option(help="Words of categories: open, hashed or dictionary.")] = "open",
    fill: Annotated[str, typer.Option(help="What a missing number is taken for: mean or median.")] = "mean",
    schema: Annotated[Path | None, typer.Option(help="A schema.toml: codes and ranges.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all results to this file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the page to this file.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Keep the joint runs and the models in this folder.")] = None,
) -> None:
    """Is it worth joining? Alone, ensemble, joint, personal and pooled on the same splits."""
    from rich.console import Console

    from comity.comparison.compare import compare as compared
    from comity.report.terminal import print_results, progress

    _ready(table, party, (json, report))
    with progress() as update:
        answer = compared(
            table[0] if len(table) == 1 else table, target, party=party, model=model, rounds=rounds, repeats=repeats,
            seed=seed, pooled=pooled, groups=group or (), unseen=unseen, words_from=words, fill=fill, fair=fair,
            dictionary=schema, runs=runs, command=shlex.join(["comity", *_args()]), tell=update,
        )  # fmt: skip
    _kept(answer, json, report)
    print_results(answer.results, Console(), report_path=report)


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

    _writable(out)
    found = predicted(run, table, party=party, way=way)
    if out is None:
        sys.stdout.write(found.write_csv())
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        found.write_csv(out)
    except OSError as error:
        raise ConfigError(f"Predictions must go to a file that can be written. Got {out}: {error}.") from error


@app.command()
def show(folder: Annotated[Path, typer.Argument(help="Of a run, or of a comparison.")]) -> None:
    """What lies in a folder: scores, bytes, models, who answered, what to do next."""
    from comity.comparison import shown
    from comity.comparison.saved import holds_outcome, read_results
    from comity.ledger.audit import audit as audited

    if (folder / "run.db").is_file() and not holds_outcome(folder):
        found = audited(folder)
        _print(shown.show_run(found))
        _left(found.ok)
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

    _writable(out)
    write_page(read_results(folder), out)
    _print([((f"{'report':<11}{out}", ""),)])


@app.command()
def audit(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or a comparison's for its chosen run.")],
    against: Annotated[Path | None, typer.Option(help="A file with a head that was kept, or a copy's folder.")] = None,
) -> None:
    """Check the ledger of a run: is it whole, who was heard when, what was spent."""
    from comity.comparison import shown
    from comity.ledger.audit import audit as audited

    run = shown.run_of(folder)
    found = audited(run, against=against)
    _print([*([((f"{'run':<11}{run}", ""),)] if run != folder else []), *shown.show_audit(found)])
    _left(found.ok)


@app.command()
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

    if schema is None and write_schema is None:
        raise ConfigError("A dictionary must be named. Got none. Use --schema FILE, or draft one: --write-schema FILE.")
    if write_schema is not None:
        _writable(write_schema)
        drafted = Dictionary.draft(table, target, party).to_toml()
        write_schema.parent.mkdir(parents=True, exist_ok=True)
        write_schema.write_text(drafted, encoding="utf-8")
        _print([((f"{'schema':<11}{write_schema}   read and correct it before you send it", ""),)])
    if schema is not None:
        findings = check_table(table, Dictionary.load(schema))
        _print([((line, ""),) for line in told(findings).splitlines()])
        _left(not any(f.severity == "error" for f in findings))


def _print(lines: Iterable[Sequence[tuple[str, str]]]) -> None:
    """Lines of (text, style) pieces to standard output."""
    from rich.console import Console
    from rich.text import Text

    from comity.report.terminal import ALARM, WAY, clean

    styles = {"alarm": ALARM, "ok": WAY["personal"], "joint": WAY["joint"]}
    console = Console()
    for line in lines:
        pieces = [(clean(text), styles.get(style, style)) for text, style in line]
        console.print(Text.assemble(*pieces), highlight=False, soft_wrap=True)


def _left(ok: bool) -> None:
    """End with 1 where what was looked at is wrong."""
    if not ok:
        raise typer.Exit(FAILED)


def _titled(title: str, update: Callable[[str, float], None]) -> Callable[[str, float], None]:
    def tell(text: str, done: float) -> None:
        update(f"{title}   {text}", done)

    return tell


def _ready(tables: Sequence[Path], party: str | None, outputs: Iterable[Path | None]) -> None:
    """Refuse before the work what would end it."""
    for path in outputs:
        _writable(path)
    if party is None and len(tables) == 1 and not tables[0].is_dir() and "*" not in str(tables[0]):
        raise ConfigError(
            "One table wants --party, the column that says whose a row is. Or give a file for each party."
        )


def _kept(answer: "Comparison", json: Path | None, report: Path | None) -> None:
    if json is not None:
        answer.json(json)
    if report is not None:
        answer.report(report)


def _writable(path: Path | None) -> None:
    """Refuse before the work what could not be written after it."""
    if path is None:
        return
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if path.is_dir() or (there != path and not there.is_dir()) or not os.access(there, os.W_OK):
        raise ConfigError(f"Results must go to a file that can be written. Got {path}. Name another file.")


def _args() -> list[str]:
    """What was asked for; --traceback may stand anywhere."""
    return [arg for arg in sys.argv[1:] if arg != "--traceback"]


def main() -> None:
    """Run the command: 0 done, 1 ran but failed, 2 wrong input, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # an old code page has no minus sign
    try:
        app(_args())
    except SystemExit as left:
        if left.code == INTERRUPTED:
            _say("stopped", "Interrupted. Run the same command to start again.")
        raise
    except ComityError as error:
        if "--traceback" in sys.argv:
            tracebacks.print_exc()
        _say("error", str(error))
        sys.exit(WRONG if isinstance(error, ConfigError) else FAILED)


def _say(label: str, text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    first, *rest = text.splitlines() or [""]
    console = Console(stderr=True)
    console.print(Text(f"{label:<11}", "#B33D00") + Text(first), highlight=False, soft_wrap=True)
    for line in rest:
        console.print(Text(" " * 11 + line), highlight=False, soft_wrap=True)
