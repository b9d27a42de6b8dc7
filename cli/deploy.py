"""``crewship deploy``: pack, upload, follow the build; or go back to an earlier deployment."""

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.options import Globals, choose_project, config_text, connect, pick

if TYPE_CHECKING:
    from cli.build import BuildView
    from cli.client import Client


_UNCHECKED_BYTES: Final = 1 << 20
"""What is packed and sent in less time than it takes to load what checks the values in ``crewship.toml``; the platform does."""


def deploy(
    ctx: typer.Context,
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="PATH|DEP", help="The project's folder; default: this one. With --rollback a deployment's id."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-n", metavar="NAME", help="Which [deployments.NAME] of crewship.toml.")
    ] = None,
    project: Annotated[
        str | None,
        typer.Option("--project", "-p", metavar="PROJECT", help="The project; default: the one of the folder."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Deploy every [deployments.NAME].")] = False,
    activate: Annotated[
        bool, typer.Option("--activate/--no-activate", help="Whether it becomes the current deployment.")
    ] = True,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Make DEP current, or the one that was before; nothing is built.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Build also when nothing has changed.")] = False,
    with_env: Annotated[
        bool,
        typer.Option("--with-env", help="With --rollback: restore the env vars too, as DEP last ran with them."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the Deployment (or rollback) as JSON.")] = False,
) -> None:
    """Deploy the crew in a folder.

    The current deployment stays current until the new one is ready, and when it fails. When nothing has changed since, there is
    nothing to do. Ctrl-C cancels the build.

    Examples:

      crewship deploy

      crewship deploy --rollback

      crewship deploy --rollback dep_abc123
    """
    from crewship.errors import InvalidConfig, Usage

    if rollback:
        if all_ or force or not activate:
            other = "--all" if all_ else "--force" if force else "--no-activate"
            raise Usage(f"--rollback does not go with {other}")
        roll_back(ctx, path, project, name, with_env=with_env, as_json=as_json)
        return
    if with_env:
        raise Usage("--with-env goes with --rollback: a deploy leaves the env vars as they are")
    folder = Path(path or ".")
    if not folder.is_dir():
        hint = f"to go back to it: crewship deploy --rollback {path}" if (path or "").startswith("dep_") else None
        raise Usage(f"{folder} is not a folder", hint=hint)
    text = config_text(folder)
    if text is None:
        where = "this folder" if path in (None, ".") else str(folder)
        raise InvalidConfig(f"there is no crewship.toml in {where}", hint=f"crewship init{_argument(path)} writes one")
    from crewship.config_file import deployment_names

    names = deployment_names(text)
    if all_:
        if name or project:
            raise Usage(f"--all does not go with {'-n' if name else '-p'}: each deployment has its own project")
        chosen: list[str | None] = [*names] or [None]
    else:
        chosen = [name or (pick(names) if names else None)]
    failed = False
    with connect(ctx) as client:
        options = ctx.find_object(Globals) or Globals()
        for each in chosen:
            ready = deploy_one(
                client, folder, text, each, project,
                activate=activate, force=force, as_json=as_json, verbose=options.verbose,
            )  # fmt: skip
            failed = failed or not ready
    if failed:
        raise typer.Exit(1)


def deploy_one(
    client: "Client", folder: Path, text: bytes, name: str | None, project: str | None, *,
    activate: bool, force: bool, as_json: bool, verbose: bool,
) -> bool:  # fmt: skip
    """Deploy one table of the config; whether it became ready."""
    from cli.human import count, duration, size
    from cli.output import data_json, say, say_done, say_next, say_warning
    from cli.pack import pack
    from cli.screen import Screen
    from cli.upload import send
    from crewship.config_file import choose, project_name

    began = time.monotonic()
    exclude = choose(text, name).table["build"].get("exclude", [])
    if not (isinstance(exclude, list) and all(isinstance(pattern, str) for pattern in exclude)):
        _check(text, name)
    target = project or project_name(folder, name)
    with Screen(lambda: "packing"):
        packed = pack(
            folder, exclude, before=lambda size_bytes: _check(text, name) if size_bytes > _UNCHECKED_BYTES else None
        )
    try:
        for warning in packed.warnings:
            say_warning(warning)
        say(f"Deploying {target}: {count(packed.files, 'file')}, {size(packed.size_bytes)}")
        deployment = send(client, target, packed, name, activate=activate, force=force)
    finally:
        packed.path.unlink(missing_ok=True)
    if deployment.get("unchanged"):
        if as_json:
            data_json(deployment)
        took = duration((time.monotonic() - began) * 1000)
        say_done(f"Nothing has changed: {deployment['id']} is current ({took})")
        if not as_json:
            say_next("crewship deploy --force", "build it all the same")
        return True
    found, view, interrupted = follow_build(client, deployment, verbose=verbose)
    took = duration((time.monotonic() - began) * 1000)
    if as_json:
        data_json(found)
    if found["status"] != "ready":
        say_failed(found, view)
    else:
        say_ready(found, target, took)
    if interrupted:
        raise typer.Exit(130)
    return bool(found["status"] == "ready")


def _check(text: bytes, name: str | None) -> None:
    """Refuse a config that the platform would refuse."""
    from crewship.config import load

    load(text, name)


def follow_build(
    client: "Client", deployment: dict[str, Any], *, verbose: bool
) -> "tuple[dict[str, Any], BuildView, bool]":
    """Show the build until its end: the Deployment as it ended, what was shown, and whether Ctrl-C was pressed.

    The first Ctrl-C cancels the build, the second leaves it.
    """
    from contextlib import closing

    from cli.build import BuildView
    from cli.client import segment
    from cli.output import say, say_next
    from cli.screen import Screen
    from cli.watch import Interrupts

    deployment_id = deployment["id"]
    path = f"/deployments/{segment(deployment_id)}"
    screen = Screen(lambda: f"{deployment_id}  {'canceling' if canceling else view.activity}")
    view = BuildView(screen.paint, show_output=verbose or screen.live)
    interrupts = Interrupts()
    after, canceling, is_read = 0, False, False
    with screen, interrupts:
        while True:
            try:
                if not is_read:
                    batches = client.events(f"{path}/events", after=after, quiet_seconds=20.0, connected=True)
                    with closing(batches):
                        while True:
                            with interrupts.allowed():
                                batch = next(batches, None)
                            if batch is None:
                                break
                            if batch:
                                after = batch[-1].event.seq
                            screen.show(text for line in batch for text in view.lines(line.event))
                    is_read = True
                with interrupts.allowed():
                    found: dict[str, Any] = client.get(path)
                    if found["status"] in ("ready", "failed"):
                        return found, view, canceling
                    time.sleep(0.2)
            except KeyboardInterrupt:
                interrupts.take()
                if canceling:
                    with screen.paused():
                        say(f"The build of {deployment_id} is being canceled")
                        say_next(f"crewship deployments show {deployment_id}", "how it went")
                    raise
                canceling = True
                if not screen.live:
                    say(f"canceling {deployment_id}; Ctrl-C again leaves it")
                client.post(f"{path}/cancel")


def say_ready(found: dict[str, Any], project: str, took: str) -> None:
    """The last lines of a deploy that worked."""
    from cli.output import BOLD, paint_for, say_done, say_next

    paint = paint_for(sys.stderr)
    option = "" if choose_here(project) else f" -p {project}"
    if found.get("current"):
        say_done(f"Deployed {paint(found['id'], BOLD)} to {project} ({took})")
        say_next(f"crewship invoke{option} --stream", "run it")
    else:
        say_done(f"Built {paint(found['id'], BOLD)} of {project} ({took}); it is not current")
        say_next(f"crewship invoke {found['id']} --stream", "try it")
        say_next(f"crewship deployments promote {found['id']}", "make it current")


def say_failed(found: dict[str, Any], view: "BuildView") -> None:
    """What went wrong, where, and how to mend it."""
    from cli.ansi import plain
    from cli.output import CYAN, DIM, RED, paint_for, say

    paint = paint_for(sys.stderr)
    error = found.get("error") or {}
    if error.get("code") == "canceled":
        say(f"{paint('✗', RED)} {found['id']} was canceled; what was current stays current")
        return
    traceback = (error.get("traceback") or "").splitlines()
    told = str(error.get("message") or "the build failed")
    if view.output:  # where a package's own output is, in lines
        told = re.split(r" \[(?:stdout|stderr)\] ", told)[0]
    said = _words(told)
    for line in view.output if not view.show_output else []:
        if _words(line) not in said:  # what an installer says of a failure becomes the message
            say("  " + paint(line, DIM))
    if not set(map(plain, traceback)) <= set(view.output):  # a crew's traceback is mostly in its output too
        for line in traceback:
            say("  " + paint(plain(line), DIM))
    message, *more = told.splitlines() or [""]
    say(f"{paint('error:', RED)} {plain(message)} [{error.get('code', 'build_failed')}]")
    for line in more:
        say(f"  {plain(line)}")
    if error.get("hint"):
        say(f"{paint('hint:', CYAN)} {plain(error['hint'])}")
    say(f"{paint('✗', RED)} {found['id']} failed; what was current stays current")


def _words(text: str) -> str:
    """A line without what an installer puts before it, to find it in another text."""
    from cli.ansi import plain

    words = " ".join(plain(text).split())
    return words.removeprefix("error: ").removeprefix("cause: ")


def roll_back(
    ctx: typer.Context, deployment: str | None, project: str | None, name: str | None, *, with_env: bool, as_json: bool
) -> None:
    """Make another deployment current; no build."""
    from cli.client import segment
    from crewship.errors import NotFound, Usage

    folder = Path.cwd()
    if deployment is not None and not deployment.startswith("dep_"):
        folder, deployment = Path(deployment), None
        if not folder.is_dir():
            raise Usage(f"{folder} is neither a deployment's id nor a folder", hint="crewship deployments list")
    with connect(ctx) as client:
        chosen = None
        if deployment is not None and not (project or name):
            target = client.get(f"/deployments/{segment(deployment)}")["project"]
            here = projects_of(folder)
            if here and target not in here:
                raise NotFound(
                    f"{deployment} is a deployment of {target}, and this folder's project is {' or '.join(here)}",
                    hint=f"if you mean that one: crewship deploy --rollback {deployment} -p {target}",
                    code="deployment_not_found",
                )
        else:
            chosen = choose_project(project, name, folder)
            target = chosen.name
        body: dict[str, Any] = {"with_env": True} if with_env else {}
        try:
            done = client.post(
                f"/projects/{segment(target)}/rollback", body | ({"deployment_id": deployment} if deployment else {})
            )
        except NotFound as error:
            raise (chosen.explain(error) if chosen else error) from None
    say_switched(done, "is on {} again", as_json=as_json)


def say_switched(done: dict[str, Any], words: str, *, as_json: bool) -> None:
    """What a rollback or a promotion has done; ``words`` have a place for the deployment's id."""
    from cli.human import duration
    from cli.output import data_json, say, say_done, say_next

    if as_json:
        data_json(done)
    project, deployment, previous = done["project"], done["deployment_id"], done.get("previous_deployment_id")
    if not done["changed"]:
        if not as_json:
            say(f"{project} is on {deployment} already")
        return
    option = "" if choose_here(project) else f" -p {project}"
    if not as_json:
        say_done(f"{project} {words.format(deployment)} ({duration(done['duration_ms'])})")
    say_env(done.get("env"), deployment)
    if previous and not as_json:
        restored = " --with-env" if (done.get("env") or {}).get("restored") else ""
        say_next(f"crewship deploy --rollback {previous}{option}{restored}", "undo")


def say_env(env: dict[str, Any] | None, deployment: str) -> None:
    """How the env vars stand to those that a deployment last ran with; names only."""
    from cli.output import say, say_warning

    if env is None:
        return
    if env["restored"]:
        say(f"  env vars are those of version {env['deployment_version']} again, as version {env['version']}")
        return
    changes = env["changes"]
    parts = [f"{word} {', '.join(changes[word])}" for word in ("added", "removed", "changed") if changes[word]]
    if parts:
        say_warning(
            f"the env vars have changed since {deployment} was current, and stay as they are: {'; '.join(parts)}"
        )
        say(f"  --with-env restores version {env['deployment_version']} of them")


def projects_of(folder: Path) -> list[str]:
    """The projects that ``crewship.toml`` in ``folder`` is deployed as; none without one.

    Raises:
        InvalidConfig: it cannot be read.
    """
    from crewship.config_file import deployment_names, project_name

    text = config_text(folder)
    if text is None:
        return []
    names: list[str | None] = [*deployment_names(text)] or [None]
    return [project_name(folder, name) for name in names]


def choose_here(project: str) -> bool:
    """Whether commands in this folder mean ``project`` without being told."""
    from crewship.config_file import project_name
    from crewship.errors import CrewshipError

    try:
        return (projects_of(Path.cwd()) or [project_name(Path.cwd())]) == [project]
    except CrewshipError:
        return False


def _argument(path: str | None) -> str:
    return f" {path}" if path not in (None, ".") else ""
