"""The command: comity demo, comity compare."""

import os
import shlex
import sys
import traceback as tracebacks
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from comity import __version__
from comity.core.errors import ComityError, ConfigError

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
                tell=_titled(title, update),
            )  # fmt: skip
        answer = _with_command(answer, again)
        answers[title], paths[title] = answer.results, folder / f"{title.replace(' ', '-')}.html"
        answer.report(paths[title])
    print_demo(answers, console, paths)


@app.command()
def compare(
    table: Annotated[Path, typer.Argument(help="CSV or Parquet, one row for each record.")],
    target: Annotated[str, typer.Option(help="The column to be predicted.")],
    party: Annotated[str, typer.Option(help="The column that says whose a row is.")],
    model: Annotated[str, typer.Option(help="auto, linear, mlp or trees.")] = "auto",
    rounds: Annotated[int, typer.Option(help="Rounds of joint training.")] = 30,
    repeats: Annotated[int, typer.Option(help="Random splits; intervals are over them.")] = 5,
    seed: Annotated[int, typer.Option(help="Of splits, models and training.")] = 0,
    pooled: Annotated[bool, typer.Option("--pooled/--no-pooled", help="The ceiling, which moves rows.")] = True,
    json: Annotated[Path | None, typer.Option(help="Write all results to this file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the page to this file.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Keep the joint runs in this folder.")] = None,
) -> None:
    """Is it worth joining? Alone, ensemble, joint, personal and pooled on the same splits."""
    from rich.console import Console

    from comity.comparison.compare import compare as compared
    from comity.report.terminal import print_results, progress

    for path in (json, report):
        _writable(path)
    with progress() as update:
        answer = compared(
            table, target, party=party, model=model, rounds=rounds, repeats=repeats, seed=seed, pooled=pooled,
            runs=runs, tell=update,
        )  # fmt: skip
    answer = _with_command(answer, shlex.join(["comity", *_args()]))
    if json is not None:
        answer.json(json)
    if report is not None:
        answer.report(report)
    print_results(answer.results, Console(), report_path=report)


def _titled(title: str, update: Callable[[str, float], None]) -> Callable[[str, float], None]:
    def tell(text: str, done: float) -> None:
        update(f"{title}   {text}", done)

    return tell


def _with_command(answer: Any, command: str) -> Any:
    """The answer, with how to get it again."""
    from dataclasses import replace

    return replace(answer, results={**answer.results, "settings": {**answer.results["settings"], "command": command}})


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
