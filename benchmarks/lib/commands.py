"""Command lines of the benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of the work, for parallel processes."""

    index: int = 0  # from 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard of a text like ``0/4``."""
        index, _, count = text.partition("/")
        shard = cls(int(index), int(count))
        if not 0 <= shard.index < shard.count:
            raise argparse.ArgumentTypeError(
                f"expected INDEX/COUNT with 0 <= INDEX < COUNT, got {text}. Fix: 0/{count}"
            )
        return shard

    def select(self, items: Iterable[T]) -> list[T]:
        """Return every ``count``-th item, starting with number ``index``."""
        return list(items)[self.index :: self.count]


ALL = Shard()


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return an argument parser with a module's docstring as help text."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_shard(to: argparse.ArgumentParser) -> None:
    """Add the option ``--shard``."""
    to.add_argument("--shard", type=Shard.parse, default=ALL, metavar="INDEX/COUNT", help="part of the models, as 0/4")


def subcommands(to: argparse.ArgumentParser) -> Callable[..., argparse.ArgumentParser]:
    """Return a function that adds a required subcommand: ``add(name, function)``.

    The parsed arguments hold the function as ``run``; :func:`run` calls it with the other arguments by name.
    """
    choices = to.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Callable[..., None], help: str) -> argparse.ArgumentParser:
        command = choices.add_parser(name, help=help)
        command.set_defaults(run=function)
        return command

    return add


def add_run_and_table(
    add: Callable[..., argparse.ArgumentParser],
    run: Callable[..., None],
    table: Callable[..., None],
    help: str,
    *,
    name: str = "run",
) -> None:
    """Add two subcommands with the argument ``directory``: a run in shards, and the result file from its rows.

    Args:
        add: Function of :func:`subcommands`.
        run: Called with ``directory`` and ``shard``.
        table: Called with ``directory``.
        help: Help text of the run.
        name: Name of the run on the command line.
    """
    command = add(name, run, help)
    command.add_argument("directory", type=Path)
    add_shard(command)
    add("table", table, "write the result file").add_argument("directory", type=Path)


def run(parsed_by: argparse.ArgumentParser, arguments: list[str] | None = None) -> None:
    """Parse the command line and call the function of the subcommand with the arguments by name."""
    options = vars(parsed_by.parse_args(arguments))
    options.pop("run")(**options)
