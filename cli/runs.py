"""``crewship runs``: look at runs, their events, logs and artifacts; cancel; verify."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Json, Name, Project, choose_project, connect

if TYPE_CHECKING:
    from cli.client import Line

app = typer.Typer(no_args_is_help=True, help="Look at runs, their events, logs and artifacts; cancel them.")

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id: run_...")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")]


@app.command("list")
def list_runs(
    ctx: typer.Context,
    project: Annotated[
        str | None, typer.Option("--project", "-p", metavar="PROJECT", help="Only those of this project.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-n", metavar="NAME", help="Only those of this [deployments.NAME].")
    ] = None,
    deployment: Annotated[
        str | None, typer.Option("--deployment", metavar="DEP", help="Only those of this deployment.")
    ] = None,
    status: Annotated[
        str | None,
        typer.Option("--status", metavar="STATUS", help="Only pending, running, succeeded, failed or canceled."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="K=V", help="Only those with this label; repeated: with all of them."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List runs of all projects, the newest first."""
    from cli.human import age, duration
    from cli.invoke import read_labels
    from cli.output import data_json, say, table
    from cli.output import status as colored
    from crewship.errors import Usage

    statuses = ("pending", "running", "succeeded", "failed", "canceled")
    if status is not None and status not in statuses:
        raise Usage(f"{status!r} is not a status", hint=f"one of {', '.join(statuses)}")
    labels = [f"{key}:{value}" for key, value in read_labels(label or []).items()] or None
    chosen = choose_project(project, name).name if project or name else None
    with connect(ctx) as client:
        listed = client.pages(
            "/runs", "runs", limit=limit, project=chosen, deployment_id=deployment, status=status, label=labels
        )
    if as_json:
        data_json(listed)
        return
    if not listed["runs"]:
        say("No runs; crewship invoke starts one" if not (chosen or deployment or status or labels) else "No such runs")
        return
    table(
        ["run", "project", "status", "created", "took", "labels"],
        [
            [run["id"], run["project"], colored(run["status"]), age(run["created_at"]),
             "-" if run.get("duration_ms") is None else duration(run["duration_ms"]),
             " ".join(f"{key}={value}" for key, value in (run.get("labels") or {}).items())]
            for run in listed["runs"]
        ],
    )  # fmt: skip
    if listed["next_cursor"]:
        say("  … and more: --limit")


@app.command("show")
def show_run(ctx: typer.Context, run: RunId, as_json: Json = False) -> None:
    """Show a run: how it went, what it got, gave and used."""
    import sys

    from cli.client import segment
    from cli.output import data_json, fields, is_terminal
    from cli.sparkline import graphs

    with connect(ctx) as client:
        found = client.get(f"/runs/{segment(run)}")
        if as_json:
            data_json(found)
            return
        print_run(found)
        if is_terminal(sys.stdout):
            fields(graphs(client.get(f"/runs/{segment(run)}/samples")["samples"]))


@app.command("events")
def show_events(
    ctx: typer.Context,
    run: RunId,
    follow: Follow = False,
    after: Annotated[int, typer.Option("--after", metavar="SEQ", min=0, help="Only events after this one.")] = 0,
    types: Annotated[
        str | None, typer.Option("--types", metavar="T,T", help="Only these types, such as log,artifact.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the log's own lines (NDJSON).")] = False,
) -> None:
    """Print a run's events as a timeline.

    Those so far, or with --follow all until its end.
    """
    import sys

    from cli.logs import read_log
    from cli.screen import Screen
    from cli.timeline import Timeline
    from cli.watch import write_bytes

    wanted = {part.strip() for part in types.split(",") if part.strip()} if types else None
    with connect(ctx) as client:
        screen = Screen(lambda: timeline.activity or run, sys.stdout, quiet=as_json or not follow)
        timeline = Timeline(screen.paint, screen.width)
        with screen:
            for batch in read_log(client, run, after=after, follow=follow, types=wanted):
                lines = [line for line in batch if wanted is None or line.event.type in wanted]
                if as_json:
                    write_bytes(sys.stdout, b"".join(line.raw + b"\n" for line in lines))
                else:
                    screen.show(text for line in lines for text in timeline.lines(line.event))


@app.command("logs")
def show_logs(
    ctx: typer.Context,
    run: RunId,
    follow: Follow = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the log events' own lines (NDJSON).")] = False,
) -> None:
    """Print what the crew printed, and nothing else.

    That is both streams, byte for byte when the output is not a terminal.
    """
    import sys

    from cli.ansi import colored, plain
    from cli.logs import read_log
    from cli.output import paint_for
    from cli.watch import write_bytes

    terminal = sys.stdout.isatty()
    clean = colored if paint_for(sys.stdout).enabled else plain
    is_unfinished = False
    with connect(ctx) as client:
        for batch in read_log(client, run, follow=follow, types={"log"}):
            lines = [line for line in batch if line.event.type == "log" and not line.event.data.get("source")]
            if not lines:
                continue
            if as_json:
                write_bytes(sys.stdout, b"".join(line.raw + b"\n" for line in lines))
                continue
            is_unfinished = bool(lines[-1].event.data.get("partial"))
            if terminal:
                texts = (clean(line.event.data["message"]) + _ending(line.event.data) for line in lines)
                sys.stdout.write("".join(texts))
                sys.stdout.flush()
            else:
                write_bytes(sys.stdout, b"".join(map(_printed, lines)))
    if terminal and is_unfinished:
        sys.stdout.write("\n")


def _printed(line: "Line") -> bytes:
    """The very bytes that the crew printed."""
    import base64

    data = line.event.data
    content = base64.b64decode(data["raw"]) if "raw" in data else data["message"].encode("utf-8", "surrogatepass")
    return content + _ending(data).encode()


def _ending(data: dict[str, Any]) -> str:
    return "" if data.get("partial") else "\n"


@app.command("cancel")
def cancel_runs(
    ctx: typer.Context,
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...")] = None,
    project: Project = None,
    name: Name = None,
    deployment: Annotated[str | None, typer.Option("--deployment", metavar="DEP")] = None,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="pending or running; default: both.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="K=V", help="With this label; repeated: with all.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Kill at once, without time to end by themselves.")] = False,
    as_json: Json = False,
) -> None:
    """Cancel runs, by id or all that fit; wait for their end.

    Examples:

      crewship runs cancel run_abc123

      crewship runs cancel -p research-crew --status pending
    """
    from cli.invoke import read_labels
    from crewship.errors import Usage

    fits: dict[str, Any] = {
        "project": choose_project(project, name).name if project or name else None,
        "deployment_id": deployment,
        "status": status,
        "labels": read_labels(label or []) or None,
    }
    fits = {key: value for key, value in fits.items() if value is not None}
    if status is not None and status not in ("pending", "running"):
        raise Usage(f"a run that is {status!r} cannot be canceled", hint="--status pending, or --status running")
    if bool(runs) == bool(fits):
        raise Usage("which runs?", hint="name some, or say which: crewship runs cancel -p PROJECT --status pending")
    if runs is not None and len(runs) == 1:
        _cancel_one(ctx, runs[0], force=force, as_json=as_json)
    else:
        _cancel_many(ctx, {"run_ids": runs} if runs else fits, force=force, as_json=as_json)


def _cancel_one(ctx: typer.Context, run: str, *, force: bool, as_json: bool) -> None:
    from cli.client import segment
    from cli.human import duration, parse_time
    from cli.output import data_json, say, say_done
    from cli.screen import Screen

    path = f"/runs/{segment(run)}"
    with connect(ctx) as client:
        found = client.post(f"{path}/cancel", {"force": True} if force else {})
        with Screen(lambda: f"{run}  canceling"):
            while found["status"] in ("pending", "running"):
                found = client.get(path, wait=20)
    if as_json:
        data_json(found)
        return
    times = found.get("cancel")
    if found["status"] == "canceled" and times:
        took = parse_time(times["gone_at"]) - parse_time(times["requested_at"])
        killed = ", it had to be killed" if times.get("sigkill_at") else ""
        say_done(f"{run} is canceled; its container was gone after {duration(took.total_seconds() * 1000)}{killed}")
    elif found["status"] == "canceled":
        say_done(f"{run} is canceled")
    else:
        say(f"{run} had ended already: {found['status']}")


def _cancel_many(ctx: typer.Context, which: dict[str, Any], *, force: bool, as_json: bool) -> None:
    from cli.client import segment
    from cli.human import count
    from cli.output import data_json, say, say_done
    from cli.screen import Screen

    run_ids: list[str] = []
    canceled = 0
    with connect(ctx) as client, Screen(lambda: f"canceling {count(len(run_ids), 'run')}"):
        more = True
        while more:
            answer = client.post("/runs/cancel", which | {"force": force})
            run_ids += [run_id for run_id in answer["run_ids"] if run_id not in run_ids]
            more = answer["more"]
        for run_id in run_ids:
            run = {"status": "pending"}
            while run["status"] in ("pending", "running"):
                run = client.get(f"/runs/{segment(run_id)}", wait=20)
            canceled += run["status"] == "canceled"
    if as_json:
        data_json({"requested": len(run_ids), "run_ids": run_ids})
        return
    if not run_ids:
        say("No such runs to cancel; crewship runs list shows which are active")
        return
    say_done(f"{count(canceled, 'run')} canceled")
    if canceled < len(run_ids):
        say(f"  {count(len(run_ids) - canceled, 'run')} ended on their own first")


@app.command("artifacts")
def show_artifacts(ctx: typer.Context, run: RunId, as_json: Json = False) -> None:
    """List a run's artifacts."""
    from cli.ansi import plain
    from cli.client import segment
    from cli.human import size
    from cli.output import data_json, say, say_next, table

    with connect(ctx) as client:
        listed = client.pages(f"/runs/{segment(run)}/artifacts", "artifacts")
    if as_json:
        data_json(listed)
        return
    if not listed["artifacts"]:
        say(f"{run} has no artifacts")
        return
    table(
        ["size", "type", "name"],
        [[size(item["size"]), item["content_type"], plain(item["name"])] for item in listed["artifacts"]],
    )
    say_next(f"crewship runs download {run}", "fetch them")


@app.command("download")
def download(
    ctx: typer.Context,
    run: RunId,
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="One artifact's name; default: all.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="Where to: a file, - for stdout, or a folder."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there with other content.")] = False,
) -> None:
    """Download one artifact, or all.

    One goes into this folder, all go into a folder named after the run.
    """
    from cli.artifacts import download_all, download_one
    from crewship.errors import Usage

    if file is None and str(output) == "-":
        raise Usage("stdout takes one artifact", hint=f"crewship runs download {run} FILE -o -")
    with connect(ctx) as client:
        if file is None:
            download_all(client, run, output or Path(run), overwrite=force)
        else:
            download_one(client, run, file, output, overwrite=force)


@app.command("verify")
def verify_run(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN|FILE", help="A run's id, a saved events.ndjson, or - for stdin.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check that nothing in a log was changed or lost.

    Each event carries the hash of all before it. A file is checked without a server.
    """
    from cli.logs import read_log
    from cli.output import data_json, fields, say_done, say_warning
    from cli.verify import verify_file, verify_log

    if not run.startswith("run_") or Path(run).is_file():
        found = verify_file(run)
    else:
        with connect(ctx) as client:
            found = verify_log(line.raw for batch in read_log(client, run, follow=False) for line in batch)
    if as_json:
        data_json({"ok": True, "events": found.events, "complete": found.complete, "hash": found.hash})
        return
    say_done(f"{found.events:,} events, no gap, every hash right")
    if not found.complete:
        say_warning("the last one is not a terminal event: the run goes on, or the file was cut there")
    fields([("last hash", found.hash)])


def _total(usage: dict[str, Any], *names: str) -> int:
    return sum(usage.get(name) or 0 for name in names)


def print_run(run: dict[str, Any]) -> None:
    """A run for people."""
    import json

    from cli.ansi import plain
    from cli.human import age, duration, memory, size, waiting
    from cli.output import fields, status

    error, usage = run.get("error") or {}, run.get("usage") or {}
    cancel = run.get("cancel") or {}
    used = [
        f"{usage['cpu_seconds']:.2f} CPU-seconds" if usage.get("cpu_seconds") is not None else "",
        f"{memory(usage['peak_memory_bytes'])} memory" if usage.get("peak_memory_bytes") else "",
        f"{usage['peak_pids']} processes" if usage.get("peak_pids") else "",
        f"{size(_total(usage, 'network_rx_bytes', 'network_tx_bytes'))} network",
        f"{size(_total(usage, 'disk_read_bytes', 'disk_write_bytes'))} disk",
    ]
    output = run.get("output")
    if output is None or isinstance(output, str):
        output_text = output or ""
    else:
        output_text = json.dumps(output, indent=2, ensure_ascii=False)
    fields(
        [
            ("run", run["id"]),
            ("project", run["project"]),
            ("deployment", run["deployment_id"]),
            ("status", status(run["status"])),
            ("waits for", waiting(run.get("waiting_for") or {})),
            ("created", f"{age(run['created_at'])}  {run['created_at']}"),
            ("took", duration(run["duration_ms"]) if run.get("duration_ms") is not None else ""),
            ("labels", " ".join(f"{key}={value}" for key, value in (run.get("labels") or {}).items())),
            ("input", json.dumps(run.get("input"), ensure_ascii=False)),
            ("output", output_text),
            ("error", f"{plain(str(error.get('message', '')))} [{error.get('code')}]" if error else ""),
            ("hint", error.get("hint") or ""),
            ("traceback", "\n".join(plain(line) for line in (error.get("traceback") or "").splitlines())),
            ("canceled", "\n".join(f"{key.removesuffix('_at'):<10}{value}" for key, value in cancel.items() if value)),
            ("used", ", ".join(part for part in used if part and not part.startswith("0 B"))),
            ("isolation", isolation_words(run.get("isolation") or {})),
            ("events", str((run.get("events") or {}).get("last_seq") or "")),
            ("artifacts", str(run.get("artifact_count") or "")),
        ]
    )  # fmt: skip


def _network_words(network: dict[str, Any]) -> str:
    if network.get("mode") == "none":
        return "no network"
    if network.get("guard") != "on":
        return "network without a guard"
    reach = network.get("reach") or []
    return "network without this host and private addresses" + (f" but {', '.join(reach)}" if reach else "")


def isolation_words(facts: dict[str, Any]) -> str:
    """What the kernel said of the container, in words; what has none as it is, what is not known not at all."""
    from cli.human import memory

    # "source" and "sources" say where they were read; they are the same for all runs.
    rest = {key: value for key, value in facts.items() if value is not None and key not in ("source", "sources")}
    words = []
    if rest.get("cap_eff") is not None and rest.get("cap_bnd") is not None:
        bits = (int(rest.pop("cap_eff"), 16), int(rest.pop("cap_bnd"), 16))
        words.append("no capabilities" if bits == (0, 0) else f"capabilities {bits[0]:x} of {bits[1]:x}")
    for key, value, word in (
        ("no_new_privs", True, "no new privileges"), ("seccomp", 2, "seccomp filter"), ("root_read_only", True, "read-only root"),
    ):  # fmt: skip
        if rest.get(key) == value:
            words.append(word)
            del rest[key]
    if rest.get("pids_max"):
        words.append(f"{rest.pop('pids_max')} processes at most")
    if rest.get("memory_max_bytes"):
        words.append(f"{memory(rest.pop('memory_max_bytes'))} memory at most")
    if isinstance(network := rest.pop("network", None), dict):
        words.append(_network_words(network))
    if loosened := rest.pop("loosened", None):
        words.append(f"loosened by {', '.join(loosened)}")
    return ", ".join([*(f"{key} {value}" for key, value in rest.items()), *words])
