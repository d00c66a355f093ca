"""The commands by name. Each command has a file, and its function imports heavy packages on call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from assay._version import __version__
from assay.cli import options
from assay.cli.audit import audit
from assay.cli.audit_many import audit_many
from assay.cli.bench import bench
from assay.cli.calibrate import calibrate
from assay.cli.commit import check, commit
from assay.cli.demo import demo
from assay.cli.evaluate import evaluate
from assay.cli.listing import list_built_in
from assay.cli.pair import pair
from assay.cli.plant import plant
from assay.cli.sign import sign
from assay.cli.stage import stage
from assay.cli.verify import verify

app = typer.Typer(
    help="Audit machine-learning models for backdoors, in the form of their deployment.",
    no_args_is_help=True,
    add_completion=False,
)
app.command()(audit)
app.command("audit-many")(audit_many)
app.command()(verify)
app.command()(plant)
app.command()(stage)
app.command()(sign)
app.command()(evaluate)
app.command()(pair)
app.command()(calibrate)
app.command()(commit)
app.command()(check)
app.command("list")(list_built_in)
app.command()(demo)
app.add_typer(bench, name="bench")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"assay {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Exceptions of the command pass through."""
    command = typer.main.get_command(app)
    _add_box_options(command)
    return command.main(args=list(arguments), prog_name="assay", standalone_mode=False) or 0


def _add_box_options(command: Any) -> None:
    """Add the options of the box to a command and to all commands below it. The supervisor reads their values."""
    box = typer.Typer(add_completion=False)
    box.command()(_box)
    parameters = typer.main.get_command(box).params
    for parameter in parameters:
        parameter.expose_value = False
    command.params += parameters
    for below in getattr(command, "commands", {}).values():
        _add_box_options(below)


def _box(limits: options.Limits = None, no_sandbox: options.NoSandbox = False) -> None:
    pass
