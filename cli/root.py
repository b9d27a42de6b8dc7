"""The command group at the root: options that may stand anywhere, one look for every error, one table of exit codes.

A domain error reaches a person as ``error:`` and ``hint:`` and as its exit code, whichever way the app was called; the
command line's own mistakes look the same. There is no traceback without ``--debug``.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from crewship.errors import CrewshipError, Usage

VALUED = ("--url", "--api-key")
FLAGS = ("--verbose", "--debug")


class RootGroup(TyperGroup):
    """Lets the global options stand after the command too, and turns every ending into an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, hoist(args))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(
                arguments, prog_name or "crewship", complete_var, False, windows_expand_args, **extra
            )  # fmt: skip
            sys.stdout.flush()
        except typer.TyperException as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                print(error.format_message(), file=sys.stderr)
                sys.exit(Usage.exit_code)
            _finish(_usage(error))
        except CrewshipError as error:
            if "--debug" in arguments:
                raise
            _finish(error)
        except (KeyboardInterrupt, typer.Abort):
            sys.exit(130)
        except BrokenPipeError:
            # Who read our output went away (`| head`): nothing is wrong, and there is nobody to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except Exception as error:
            if "--debug" in arguments or os.environ.get("PYTEST_CURRENT_TEST"):
                raise
            _finish(
                CrewshipError(
                    f"crewship has a fault of its own: {type(error).__name__}: {error}",
                    hint="--debug shows where; please report it",
                )
            )
        sys.exit(code if isinstance(code, int) else 0)


def hoist(args: list[str]) -> list[str]:
    """Move global options to the front, wherever they stand before a ``--``."""
    front: list[str] = []
    rest: list[str] = []
    pending = iter(args)
    for argument in pending:
        if argument == "--":
            rest += [argument, *pending]
        elif argument in FLAGS or argument.startswith(tuple(f"{name}=" for name in VALUED)):
            front.append(argument)
        elif argument in VALUED:
            front += [argument, *[value for value in [next(pending, None)] if value is not None]]
        else:
            rest.append(argument)
    return front + rest


def _usage(error: typer.TyperException) -> CrewshipError:
    """A mistake on the command line, in the product's own words and look."""
    context = getattr(error, "ctx", None)
    message = error.format_message().strip()
    if error.exit_code != Usage.exit_code:
        return CrewshipError(message)
    message = message.removesuffix(".")
    command = "crewship" if context is None else context.command_path
    return Usage(message[:1].lower() + message[1:], hint=f"{command} --help")


def _finish(error: CrewshipError) -> NoReturn:
    from cli.output import say_error

    say_error(error)
    sys.exit(error.exit_code)
