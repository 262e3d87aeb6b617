"""The command line: parses, calls one function of a room below, prints.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auto_merge.errors import AutoMergeError, Interrupted, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from auto_merge.config import RunConfig
    from auto_merge.runs.view import RunView

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigOption = Annotated[Path, typer.Option("--config", help="Configuration file (YAML).")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as search.max_trials=20."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", help="No progress, no text.")]
OverwriteFlag = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
DocumentsOption = Annotated[
    str, typer.Option("--documents", help="Which documents to score: search or heldout.")
]
CodeFlag = Annotated[
    bool,
    typer.Option(
        "--allow-code-execution", help="Run programs that a model wrote, inside a sandbox."
    ),
]
OutFolder = Annotated[Path, typer.Argument(help="Folder to write; must not exist.")]
RunFolder = Annotated[Path, typer.Argument(help="Run folder, as runs/config_lfs.")]


@app.callback(invoke_without_command=True)
def search(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", help="Configuration file (YAML) to run or resume.")
    ] = None,
    overrides: SetOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Run folder; default runs/<name>.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and estimate; run nothing.")
    ] = False,
    allow_code: CodeFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (any command).")] = False,
) -> None:
    """Finds the best merge of fine-tuned models.

    python merge.py --config exp_config/config_lfs.yaml runs a search, or resumes it.
    """
    del debug  # run_command has seen to it, wherever on the line it stands
    if context.invoked_subcommand is not None:
        given = {"--config": config, "--set": overrides, "--output": output, "--dry-run": dry_run}
        given |= {"--json": as_json, "--quiet": quiet, "--allow-code-execution": allow_code}
        for option, value in given.items():
            if value:
                raise UserError(f"{option} goes behind the command {context.invoked_subcommand!r}")
        return
    if config is None:
        print(context.get_help())
        raise typer.Exit(2)
    loaded = _load(config, (*(overrides or ()), *_output_override(output)), quiet, allow_code)
    if dry_run:
        from auto_merge.search.dry_run import dry_run as check

        _print(check(loaded), as_json)
        return
    from auto_merge.search.run import run

    _show_run(run(loaded, quiet=quiet), as_json)


@app.command()
def merge(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (YAML or JSON).")],
    out: OutFolder,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    overwrite: OverwriteFlag = False,
) -> None:
    """Merges once, to a Hugging Face folder; no evaluation."""
    from auto_merge.search.replay import merge_file

    _print(merge_file(recipe, out, overwrite=overwrite), as_json, quiet)


@app.command()
def replay(
    file: Annotated[str, typer.Argument(help="Search configuration JSON, recipe, or RUN:TRIAL.")],
    config: ConfigOption,
    overrides: SetOption = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write the model to this folder.")
    ] = None,
    no_evaluate: Annotated[
        bool, typer.Option("--no-evaluate", help="Decode (and export) only.")
    ] = False,
    documents: DocumentsOption = "search",
    allow_code: CodeFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    overwrite: OverwriteFlag = False,
) -> None:
    """Rebuilds one stored merge: decodes, evaluates in full, exports on request."""
    from auto_merge.search.replay import replay as rebuild

    loaded = _load(config, overrides, quiet, allow_code)
    result = rebuild(
        file,
        loaded,
        export=export,
        documents=None if no_evaluate else documents,
        overwrite=overwrite,
        quiet=quiet,
    )
    _print(result, as_json, quiet)


@app.command()
def recipe(
    file: Annotated[str, typer.Argument(help="Search configuration JSON, recipe, or RUN:TRIAL.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="Configuration that names the models.")
    ] = None,
    overrides: SetOption = None,
    form: Annotated[
        str, typer.Option("--format", help="recipe, plan, published, or mergekit.")
    ] = "recipe",
    roles: Annotated[
        bool, typer.Option("--roles", help="Call the models model_0, model_1, ..., and base.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Prints the decoded recipe, the plan of every tensor, or the published key names."""
    from auto_merge.config import load_config
    from auto_merge.search.replay import show_recipe

    loaded = load_config(config, overrides or ()) if config is not None else None
    data, text = show_recipe(file, loaded, form, roles=roles)
    print(json.dumps(data, indent=1) if as_json else text.rstrip())


@app.command()
def export(
    run: RunFolder,
    out: OutFolder,
    trial: Annotated[str, typer.Option("--trial", help="Trial number, best, or pareto.")] = "best",
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    overwrite: OverwriteFlag = False,
) -> None:
    """Writes a trial of a run as a Hugging Face folder with a model card."""
    from auto_merge.search.replay import export_trial

    _print(export_trial(run, trial, out, overwrite=overwrite), as_json, quiet)


@app.command()
def status(run: RunFolder, as_json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """Shows where a run stands, also while it is running."""
    from auto_merge.reports.as_json import status_json
    from auto_merge.reports.terminal import status_table

    view = _view(run)
    if as_json:
        print(json.dumps(status_json(view), indent=1))
    elif not quiet:
        _console().print(status_table(view))


@app.command()
def report(
    run: RunFolder,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the one-file report here as well.")
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    overwrite: OverwriteFlag = False,
) -> None:
    """Prints the tables of a run and writes its HTML report."""
    from auto_merge.reports.as_json import report_json
    from auto_merge.reports.terminal import print_report

    view = _view(run)
    if html is not None:
        from auto_merge.search.deliver import write_html

        if html.exists() and not overwrite:
            raise UserError(f"{html} exists; choose another file or add --overwrite")
        write_html(view, html)
    if as_json:
        print(json.dumps(report_json(view), indent=1))
    elif not quiet:
        print_report(view, _console())


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder, or zoo:NAME.")],
    config: ConfigOption,
    overrides: SetOption = None,
    documents: DocumentsOption = "search",
    allow_code: CodeFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Scores any model folder on the documents of a configuration."""
    from auto_merge.search.evaluate import evaluate_folder

    loaded = _load(config, overrides, quiet, allow_code)
    _print(evaluate_folder(model, loaded, documents, quiet=quiet), as_json, quiet)


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Shows versions, devices and memory, and how to mend what is missing."""
    from auto_merge.cli_doctor import examine, to_json
    from auto_merge.config.loading import default_cache_dir

    findings = examine(default_cache_dir())
    if as_json:
        print(json.dumps(to_json(findings), indent=1))
    else:
        for finding in findings:
            print(f"{finding.name:14} {finding.found}")
            if finding.fix:
                print(f"{'':14} -> {finding.fix}")
    if any(finding.fix for finding in findings):
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Prints the JSON schema of configuration files."""
    from auto_merge.config.schema import schema as config_schema

    print(json.dumps(config_schema(), indent=2))


def main() -> None:
    """Runs the command line and exits with its status."""
    raise SystemExit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Runs one command; prints an error as one line on stderr.

    Args:
        arguments: Words behind the program's name.

    Returns:
        Exit status.
    """
    # Set before any vendor is imported: nothing here needs their bars or warnings.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Threads that spin at barriers make small models fifty times slower beside the optimizer.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    as_json, debug = "--json" in arguments, "--debug" in arguments
    words = [word for word in arguments if word != "--debug"]
    try:
        result = app(words, prog_name="merge.py", standalone_mode=False)
    except KeyboardInterrupt:
        return _fail("the same command goes on from here", 130, as_json)
    except typer.Exit as done:
        return done.exit_code
    except Exception as error:  # noqa: BLE001 - the outermost boundary: one line, not a traceback
        if debug:
            traceback.print_exception(error)
        return _fail(*_explain(error), as_json)
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> tuple[str, int]:
    """The line that tells a person what went wrong, and the exit status."""
    if hasattr(error, "format_message"):
        # A usage error of click, which some versions of typer carry as a copy of their own.
        return str(error.format_message()), 2
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, Interrupted):
        return "the same command goes on from here", 130
    if isinstance(error, AutoMergeError):
        return str(error), 1
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} (--debug shows where)", 1


def _fail(message: str, status: int, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": message, "status": status}))
    print(f"{'stopped' if status == 130 else 'error'}: {message}", file=sys.stderr)
    return status


def _load(
    config: Path, overrides: Sequence[str] | None, quiet: bool, allow_code: bool
) -> RunConfig:
    """Loads a configuration and says what is worth a word."""
    from dataclasses import replace

    from auto_merge.config import load_config

    loaded = replace(load_config(config, overrides or ()), allow_code_execution=allow_code)
    if not quiet:
        for warning in loaded.warnings:
            print(f"note: {warning}", file=sys.stderr)
        print("loading models and tasks", file=sys.stderr)
    return loaded


def _output_override(output: Path | None) -> tuple[str, ...]:
    return () if output is None else (f"global_params.output_path={json.dumps(str(output))}",)


def _view(run: Path) -> RunView:
    from auto_merge.runs.reader import view
    from auto_merge.runs.store import RunStore

    return view(RunStore(run))


def _show_run(view: RunView, as_json: bool) -> None:
    if as_json:
        from auto_merge.reports.as_json import report_json

        print(json.dumps(report_json(view), indent=1))
        return
    from auto_merge.reports.terminal import print_report

    print_report(view, _console())


def _console() -> Any:
    from rich.console import Console

    return Console()


def _print(result: Any, as_json: bool, quiet: bool = False) -> None:
    """Prints a result that has ``to_json()`` and ``lines()``."""
    if as_json:
        print(json.dumps(result.to_json(), indent=1))
    elif not quiet:
        print("\n".join(result.lines()))
