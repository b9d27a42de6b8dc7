"""``crewship run --local``: run the crew in a folder on this machine's engine, without a platform."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.invoke import EXIT_CANCELED, EXIT_FAILED, EXIT_INTERRUPTED, read_input
from cli.options import Globals, config_text, pick

if TYPE_CHECKING:
    from crewship.builds import BuildFailed
    from crewship.config import DeploymentConfig
    from crewship.local_run import Ended, LocalRuns, Stop


def run(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The project's folder.")] = ".",
    local: Annotated[
        bool, typer.Option("--local", help="Run it here, in the container engine of this machine.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", "-n", metavar="NAME", help="Which [deployments.NAME] of crewship.toml.")
    ] = None,
    input_: Annotated[
        str, typer.Option("--input", "-i", metavar="JSON|@FILE|-", help="A JSON object, a file with one, or stdin.")
    ] = "{}",
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", "-e", metavar="K=V", help="A variable for the crew; of a name alone the value is asked for."
        ),
    ] = None,
    env_file: Annotated[
        Path | None, typer.Option("--env-file", metavar="FILE", help="Variables for the crew, of a .env file.")
    ] = None,
    download: Annotated[
        Path | None, typer.Option("--download", metavar="DIR", help="Save the artifacts there when it has ended.")
    ] = None,
    timeout: Annotated[
        int | None, typer.Option("--timeout", metavar="SECONDS", min=1, help="End the run when it takes longer.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as NDJSON.")] = False,
) -> None:
    """Run the crew in a folder here, without a platform.

    The image, the container and the runner are those of a deployment; nothing is uploaded, and nothing is kept but
    the image of the dependencies. Exits as invoke does: 0, 7 when the run failed, 8 when it was canceled; 1 when it
    cannot be built. Ctrl-C stops it, a second one at once.

    Examples:

      crewship run --local -i '{"topic": "quantum computing"}'

      crewship run --local --env-file .env --download out
    """
    from cli.env import read_file, read_pairs
    from crewship.config import load
    from crewship.config_file import deployment_names, project_name
    from crewship.errors import InvalidConfig, Usage

    if not local:
        raise Usage("run needs --local", hint="crewship run --local runs this folder; crewship invoke a deployment")
    folder = Path(path)
    if not folder.is_dir():
        raise Usage(f"{folder} is not a folder", hint="crewship run --local PATH")
    if download is not None:
        from cli.artifacts import refuse_file

        refuse_file(download)
    given = read_input(input_)
    values = (read_file(env_file) if env_file else {}) | read_pairs(env or [])
    text = config_text(folder)
    if text is None:
        raise InvalidConfig(f"there is no crewship.toml in {folder}", hint="crewship init writes one")
    names = deployment_names(text)
    name = name or (pick(names) if names else None)
    config = load(text, name)
    options = ctx.find_object(Globals) or Globals()
    from crewship.local_run import Stop

    stop = Stop()
    with _interrupted_by(stop), _runs() as runs:
        ended = _run(
            runs, folder, project_name(folder, name), config, values, given, stop,
            download=download, timeout=timeout, as_json=as_json, verbose=options.verbose,
        )  # fmt: skip
    if stop.asked.is_set():
        raise typer.Exit(EXIT_INTERRUPTED)
    if ended is None:
        raise typer.Exit(1)
    if ended.status != "succeeded":
        raise typer.Exit(EXIT_FAILED if ended.status == "failed" else EXIT_CANCELED)


@contextmanager
def _interrupted_by(stop: "Stop") -> Iterator[None]:
    """Ctrl-C, and SIGTERM, ask the run to end instead of ending this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    is_main = threading.current_thread() is threading.main_thread()
    try:
        for number in before if is_main else ():
            signal.signal(number, lambda *_: stop.press())
        yield
    finally:
        for number, handler in before.items() if is_main else ():
            signal.signal(number, handler)


@contextmanager
def _runs() -> Iterator["LocalRuns"]:
    """The engine of this machine, started when it is not running, without what killed runs have left."""
    from crewship.docker_engine import DockerEngine
    from crewship.local_run import INSTANCE, LocalRuns, local_settings, sweep
    from crewship.provision.engine import ensure_engine
    from crewship.provision.progress import progress_for
    from crewship.settings import Settings

    settings = local_settings(Settings())
    ensure_engine(settings.cache_dir, progress_for(sys.stderr)).close()
    with closing(DockerEngine(INSTANCE)) as engine:
        sweep(engine)
        with closing(LocalRuns(engine, settings)) as runs:
            yield runs


def _run(
    runs: "LocalRuns", folder: Path, project: str, config: "DeploymentConfig", env: dict[str, str],
    given: dict[str, Any], stop: "Stop", *,
    download: Path | None, timeout: int | None, as_json: bool, verbose: bool,
) -> "Ended | None":  # fmt: skip
    """Build and run; None when it could not be built."""
    from cli.output import say, say_warning
    from cli.pack import pack
    from cli.screen import Screen
    from cli.timeline import Timeline
    from cli.watch import print_output, say_end, write_bytes
    from crewship.builds import BuildFailed
    from crewship.events import parse
    from crewship.local_run import new_deployment_id

    deployment = new_deployment_id()
    with tempfile.TemporaryDirectory(prefix="crewship-local-") as scratch:
        with Screen(lambda: "packing"):
            packed = pack(folder, config.build.exclude, target=Path(scratch, "source.tar.gz"))
        for warning in packed.warnings:
            say_warning(warning)
        if config.network.mode == "allow":
            say_warning("a local run may reach every host: [network] allow is enforced by a platform only")
        try:
            try:
                image = _build(runs, deployment, project, config, packed.path, stop, verbose=verbose)
            except BuildFailed as failed:
                if not stop.asked.is_set():
                    _say_failed(failed)
                return None
            if stop.asked.is_set():
                return None
            screen = Screen(lambda: timeline.activity or "running", quiet=as_json)
            timeline = Timeline(screen.paint, screen.width)

            def show(lines: bytes) -> None:
                if as_json:
                    write_bytes(sys.stdout, lines)
                else:
                    screen.show(text for event in parse(lines) for text in timeline.lines(event))

            with screen:
                ended = runs.run(
                    deployment, image, config, env, given, show, stop, timeout_seconds=timeout, save_to=download
                )
        finally:
            runs.forget(deployment)
    error = None
    if ended.error is not None:
        error = ended.error.model_dump() | {"traceback": ended.traceback}
    say_end({"id": deployment, "status": ended.status, "error": error}, drawn=True)
    for file in ended.artifacts:
        say(f"  saved {Path(str(download), file)}")
    if ended.status == "succeeded" and not as_json:
        print_output(ended.output)
    return ended


def _build(
    runs: "LocalRuns", deployment: str, project: str, config: "DeploymentConfig", source: Path, stop: "Stop", *,
    verbose: bool,
) -> str:  # fmt: skip
    """The image's id; shows the build as a deploy does, and nothing of one that has nothing to do."""
    from cli.build import BuildView
    from cli.output import say
    from cli.screen import Screen
    from crewship.builds import BuildFailed
    from crewship.events import parse
    from crewship.local_run import LocalLog, own_build_secrets
    from crewship.redaction import Redactor

    screen = Screen(lambda: view.activity)
    view = BuildView(screen.paint, show_output=verbose or screen.live)
    own = own_build_secrets(os.environ)
    log = LocalLog(
        lambda lines: screen.show(text for event in parse(lines) for text in view.lines(event)), Redactor(own.values)
    )
    try:
        with screen:
            return runs.build(deployment, project, config, source, log, stop.asked, own).image_id
    except BuildFailed:
        for line in view.output if not view.show_output and not stop.asked.is_set() else []:
            say(f"  {line}")
        raise


def _say_failed(failed: "BuildFailed") -> None:
    from cli.watch import say_end

    say_end({"id": "", "status": "failed", "error": failed.error.model_dump()}, drawn=True)
