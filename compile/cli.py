"""The `penstock` command. Whatever takes time to import is imported by the command that needs it."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from penstock.compile.errors import PenstockError

_ROOT = Path("penstock-out")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class _Failure(click.ClickException):
    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}", err=True)


class _Command(click.Command):
    def get_short_help_str(self, limit: int = 0) -> str:
        return super().get_short_help_str(1000)  # the whole first sentence: a list has room below


class _Group(_Command, click.Group):
    command_class = _Command
    group_class = type

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            if close := difflib.get_close_matches(args[0], self.list_commands(ctx), n=1):
                raise click.UsageError(f"{error.message} Did you mean {close[0]}?", ctx) from None
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PenstockError as error:
            raise _Failure(str(error)) from error
        except KeyboardInterrupt:
            click.echo("stopped by SIGINT", err=True)
            ctx.exit(128 + signal.SIGINT)


def main() -> None:
    """Run the command and exit."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character is no reason to fail.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    said: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            click.echo(f"warning: {message}", err=True)

    warnings.showwarning = show
    penstock(prog_name="penstock")


def _read_fast() -> None:
    """Collect no garbage while a command reads large specs, which would take half as long again."""
    import gc  # `runs gc` has the name in this module

    gc.disable()
    click.get_current_context().call_on_close(gc.enable)


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from penstock.compile.catalog import entries

    found = [
        CompletionItem(entry.name, help=entry.sentence) for entry in entries() if entry.name.startswith(incomplete)
    ]
    return [*found, CompletionItem(incomplete, type="file")]


def _run_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from penstock.compile.targets.local import runs

    found = [CompletionItem(run.id, help=run.state.lower()) for run in runs.listed(ctx.params.get("root") or _ROOT)]
    return [item for item in [*found, CompletionItem(runs.LATEST)] if item.value.startswith(incomplete)]


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="penstock", message="%(prog)s %(version)s")
def penstock() -> None:
    """Reusable KFP components, and one compiled pipeline for laptop, Kubeflow, Vertex AI and Azure ML.

    \b
    Example: penstock run tabular_training
    """


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@penstock.command("list")
@_json
def list_(as_json: bool) -> None:
    """List components and pipelines.

    Those of other installed packages that declare the same entry points are listed too.

    \b
    Example: penstock list --json
    """
    from penstock.compile import catalog
    from penstock.compile._cli import output

    found = catalog.entries()
    if as_json:
        keys = ("name", "kind", "sentence", "package")
        output.print_json([{key: getattr(entry, key) for key in keys} for entry in found])
    else:
        output.print_entries(found)


@penstock.command()
@click.argument("what", metavar="NAME|FILE.py:function|SPEC.yaml", shell_complete=_names)
@_json
@click.option(
    "--draw",
    type=click.Choice(["mermaid", "svg"]),
    help="Draw its tasks instead: as text of Mermaid, which pages on GitHub and GitLab draw, or as an SVG file.",
)
@click.option(
    "--output", "path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the drawing there."
)
def describe(what: str, as_json: bool, draw: str | None, path: Path | None) -> None:
    """Show what a component or pipeline takes and gives, or draw its tasks.

    \b
    Examples: penstock describe train
              penstock describe tabular_training --draw svg --output graph.svg
    """
    if as_json and draw:
        raise click.UsageError("a drawing is no JSON: leave out --json, or --draw")
    if path and not draw:
        raise click.UsageError("--output is for drawings: give --draw, or leave it out")
    _read_fast()
    import dataclasses

    from penstock.compile import ports
    from penstock.compile._cli import output
    from penstock.compile._cli.sources import find_source

    source = find_source(what)
    if draw:
        from penstock.compile import from_kfp, sketch

        pipeline = from_kfp.parse(source.text(), what)
        output.write(sketch.svg(pipeline) if draw == "svg" else sketch.mermaid(pipeline), path)
        return
    description = ports.describe(source.spec(), source.function)
    if as_json:
        output.print_json({"package": source.package, **dataclasses.asdict(description)})
    else:
        output.print_description(description, source.package)


# Known without an import, which completion and help would wait for; a test holds it to check.TARGETS.
_TARGETS = ("local", "kubeflow", "vertex", "azureml")


@penstock.command("check")
@click.argument(
    "what", metavar="SPEC.yaml|FOLDER|NAME|FILE.py:function...", nargs=-1, required=True, shell_complete=_names
)
@click.option("--target", type=click.Choice(_TARGETS), help="Hold it to this platform's features and limits, too.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings, too.")
@_json
def check_(what: tuple[str, ...], target: str | None, strict: bool, as_json: bool) -> None:
    """Say what is wrong with compiled pipelines, anybody's.

    Each finding has a code, the path of its task, what is wrong and how to mend it; docs/checks.md lists the codes.
    Exits with 0 where there is no error, else 1; with 2 where a file cannot be read.

    \b
    Examples: penstock check specs/tabular_training.yaml --target vertex
              penstock check specs --json
    """
    from penstock.compile._cli.checking import check_and_show

    _read_fast()
    sys.exit(check_and_show(what, target or "", strict, as_json))


@penstock.command("compile")
@click.argument("what", metavar="[NAME|FILE.py:function]...", nargs=-1, shell_complete=_names)
@click.option("--all", "everything", is_flag=True, help="Every component and pipeline that `penstock list` shows.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("."),
    show_default=True,
    help="Folder to write NAME.yaml into.",
)
@click.option(
    "--image",
    "swaps",
    multiple=True,
    metavar="NAME=OTHER",
    help="Run in another image what runs in one: tabular=tensorflow. Can be repeated.",
)
@click.option(
    "--registry",
    metavar="R",
    help="Name images at this registry, R/NAME, by the digests that it gave them when pushed.",
)
@click.option(
    "--digests",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="What `penstock images push` wrote.  [default: containers/digests.json of the repository]",
)
@click.option("--allow-mutable-tags", is_flag=True, help="With --registry, put up with images that have no digest.")
@click.option(
    "--by-tag",
    multiple=True,
    metavar="IMAGE",
    help="With --registry, put up with this one, of others, by its tag: HOST/NAME. Can be repeated.",
)
@_json
def compile_(
    what: tuple[str, ...],
    everything: bool,
    output: Path,
    swaps: tuple[str, ...],
    registry: str | None,
    digests: Path | None,
    allow_mutable_tags: bool,
    by_tag: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write the spec that every platform runs.

    The same source gives the same bytes anywhere. Prints the SHA-256 and the path of each, as sha256sum does.

    \b
    Examples: penstock compile tabular_training --output specs
              penstock compile my_pipelines.py:weekly_training --output specs
              penstock compile tabular_training --image tabular=tensorflow --output specs
              penstock compile --all --registry europe-docker.pkg.dev/my-project/penstock --output specs
    """
    if everything == bool(what):
        raise click.UsageError("say what to compile, by name or with --all: penstock compile tabular_training")
    if not registry and (digests or allow_mutable_tags or by_tag):
        raise click.UsageError("--digests, --allow-mutable-tags and --by-tag go with --registry")
    if swaps and everything:
        raise click.UsageError("--image goes with what is named, not with --all")
    from penstock.compile._cli import output as terminal
    from penstock.compile._cli.sources import compile_all

    rewrite = None
    if registry or swaps:
        from penstock.compile import images as images_of

        swap = images_of.swapping(swaps)
        pin = images_of.pinning(registry, digests, allow_mutable_tags, by_tag) if registry else dict
        rewrite = lambda spec: pin(swap(spec))  # noqa: E731
    written = compile_all(what, everything, output, rewrite)
    if as_json:
        terminal.print_json([{"name": spec.name, "path": str(path), "sha256": spec.sha256} for path, spec in written])
    else:
        for path, spec in written:
            click.echo(f"{spec.sha256}  {path}")


@penstock.command("diff")
@click.argument("old", metavar="OLD", shell_complete=_names)
@click.argument("new", metavar="NEW", shell_complete=_names)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
    help="For a terminal, a comment on a pull request, or a program.",
)
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
@click.option("--breaking", is_flag=True, help="Exit with 0 unless a change is breaking.")
def diff(old: str, new: str, form: str, as_json: bool, breaking: bool) -> None:
    """Say what changed between two pipelines: NAME, FILE.py:function or SPEC.yaml each.

    A change is breaking where a caller or schedule that gives what it gave before fails, or a reader of outputs does.
    Exits with 0 where both mean the same, 1 where no change is breaking, 3 where one is; with 2 where one of them
    cannot be read.

    \b
    Examples: penstock diff specs/tabular_training.yaml tabular_training
              penstock diff old.yaml new.yaml --format markdown --breaking
    """
    from penstock.compile._cli.diffing import diff_and_show

    _read_fast()
    sys.exit(diff_and_show(old, new, "json" if as_json else form, breaking))


@penstock.command()
@click.argument("path", metavar="SPEC", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write there, not to stdout."
)
def slim(path: Path, output: Path | None) -> None:
    """Make a compiled spec smaller: what is in it more than once is in it once.

    The slimmed spec means the same everywhere, and names of tasks stay. Says on stderr how many bytes it was and is.
    What `penstock compile` writes is slim already.

    \b
    Example: penstock slim theirs.yaml --output slim.yaml
    """
    from penstock.compile import documents, sharing
    from penstock.compile._cli import output as terminal

    _read_fast()
    before = documents.text_of(path)
    after = sharing.slim(before, str(path))
    sizes = [len(text.encode()) for text in (before, after)]
    terminal.write(after, output)
    click.echo(f"{path}: {sizes[0]:,} bytes, slimmed to {sizes[1]:,}", err=True)


@penstock.command()
@click.argument("what", metavar="[NAME|FILE.py:function|SPEC.yaml]", required=False, shell_complete=_names)
@click.option("--to", type=click.Choice(["azureml"]), required=True, help="The platform.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the job; one that holds a converted job is replaced.",
)
@click.option(
    "--each",
    "folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Try every compiled pipeline below a folder, write no job, and show a table of what came of them.",
)
@click.option(
    "--options",
    "options",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="YAML file: compute, machines, uri_map, max_iterations, …; docs/azureml.md lists them.",
)
@click.option(
    "-p", "--parameter", "given", multiple=True, metavar="NAME=VALUE", help="A parameter of the job. Can be repeated."
)
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="File to write findings into, as JSON.")
@click.option("--strict", is_flag=True, help="Refuse what would be warned of.")
@_json
def convert(
    what: str | None,
    to: str,
    output: Path | None,
    folder: Path | None,
    options: Path | None,
    given: tuple[str, ...],
    report: Path | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Make of a compiled pipeline, anybody's, a job of a platform that does not take it as it is.

    For Azure ML: job.yml, pipeline.yml, and a component and a code snapshot for each step; images stay as they are. The
    same pipeline gives the same bytes. Where something cannot be converted, all that stands in the way is named and
    nothing is written. Exits with 0 where it is converted, 1 where it is refused, 2 where it cannot be read.

    \b
    Examples: penstock convert specs/tabular_training.yaml --to azureml --output job --options azure.yaml
              penstock convert --to azureml --each specs
    """
    from penstock.compile._cli.converting import Request, convert_and_show, convert_each_and_show

    _read_fast()
    request = Request(given, options, strict)
    if folder and not what and not output:
        sys.exit(convert_each_and_show(folder, request, report, as_json))
    if not what or not output or folder:
        raise click.UsageError(
            "say what to convert and where to: penstock convert SPEC --to azureml --output DIR; or --each FOLDER"
        )
    sys.exit(convert_and_show(what, output, request, report, as_json))


@penstock.command()
@click.argument("what", metavar="[NAME|FILE.py:function|SPEC.yaml]", required=False, shell_complete=_names)
@click.option(
    "-p",
    "--parameter",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter; lists and objects as JSON. Can be repeated, and goes before --params.",
)
@click.option(
    "--params",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="YAML or JSON file of parameters by name.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=_ROOT,
    show_default=True,
    help="Folder of runs and of the local registry.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Tasks at a time.  [default: number of CPUs]")
@click.option(
    "--runner",
    type=click.Choice(["auto", "subprocess", "docker"]),
    help="What commands run in: processes, containers, or (auto) processes for lightweight Python components and "
    "containers for those made of their image.  [default: auto]",
)
@click.option("--no-cache", is_flag=True, help="Run every task, also where the same task gave the same in another run.")
@click.option(
    "--resume",
    metavar="ID",
    shell_complete=_run_ids,
    help="Take up a run that failed, was stopped or was killed, in place of starting one; its tasks that had succeeded "
    "are not run again.",
)
@click.option(
    "--each",
    "folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Run every compiled pipeline below a folder, one after another, and show a table of what came of them. "
    "Parameters go to those pipelines that have them.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End a run that takes longer; it is CANCELLED then.  [default: 120 with --each, else none]",
)
@click.option(
    "--kubernetes-objects",
    "objects",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="YAML file of Kubernetes manifests: the Secrets and ConfigMaps that the pipeline names. Can be repeated.",
)
@click.option(
    "--events",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write a line of JSON for each event, as it happens, to a file, a FIFO or stdout (-).",
)
@click.option(
    "--openlineage",
    metavar="URL",
    help="Report the run to an OpenLineage backend.  [default: the environment's OPENLINEAGE_URL]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the run's record as JSON when it has ended, nothing else.")
@click.option(
    "--target",
    type=click.Choice(["local", "azureml-local"]),
    default="local",
    show_default=True,
    help="What runs it: the local engine or, for the job.yml of `penstock convert` or its folder, what stands in for "
    "Azure ML.",
)
def run(
    what: str | None,
    given: tuple[str, ...],
    file: Path | None,
    root: Path,
    jobs: int | None,
    runner: str | None,
    no_cache: bool,
    resume: str | None,
    folder: Path | None,
    timeout: float | None,
    objects: tuple[Path, ...],
    events: str | None,
    openlineage: str | None,
    as_json: bool,
    target: str,
) -> None:
    """Run a pipeline on this machine.

    Compiles it if need be, then runs that very spec. Leaves a folder with the spec, the record (run.json), logs and
    report.html. Exits with 0 when the run succeeded, 1 when a step failed, 2 when it could not start; with --each,
    with 0 when every pipeline succeeded, else 1.

    \b
    Examples: penstock run tabular_training -p framework=lightgbm -p 'slices=["weekday", "hour"]'
              penstock run specs/tabular_training.yaml --params weekly.yaml
              penstock run --resume tabular-training-20261121-093045-1f2e
              penstock run --each specs --runner subprocess
              penstock run job/job.yml --target azureml-local --runner docker
    """
    import os

    if target == "azureml-local":
        others = (file, resume, folder, objects, events, openlineage, no_cache)
        if not what or any(others):
            raise click.UsageError(
                "--target azureml-local takes a job.yml, -p, --root, --jobs, --runner, --timeout and --json"
            )
        from penstock.compile._cli import rehearsing

        how = rehearsing.Options(root, jobs or os.cpu_count() or 1, runner or "auto", timeout)
        sys.exit(rehearsing.rehearse_and_show(Path(what), given, how, as_json))

    from penstock.compile._cli import running, watching

    if sum(each is not None for each in (what, resume, folder)) != 1:
        raise click.UsageError("say what to run, or which run to resume: penstock run tabular_training")
    if folder and events:
        raise click.UsageError("--events is for one pipeline: leave it out, or --each")
    if resume and (given or file):
        raise click.UsageError("a resumed run keeps its parameters; start another to change them")
    if as_json and events == "-":
        raise click.UsageError("--json and --events - would both write to stdout; give --events a file")
    watch = watching.Watch(events, openlineage)
    options = running.Options(root, jobs or os.cpu_count() or 1, runner, not no_cache, objects, timeout)
    if folder:
        from penstock.compile._cli.each import run_each_and_show

        sys.exit(run_each_and_show(folder, given, file, options, watch, as_json))
    if resume:
        sys.exit(running.resume_and_show(resume, options, watch, as_json))
    assert what is not None
    sys.exit(running.run_and_show(what, given, file, options, watch, as_json))


_root = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=_ROOT,
    show_default=True,
    help="Folder of runs.",
)
_run_id = click.argument("name", metavar="ID", shell_complete=_run_ids)


@penstock.group()
def runs() -> None:
    """Look at runs and remove them.

    Runs are named by their ids, by the beginning of one, or by "latest".

    \b
    Examples: penstock runs list
              penstock runs show latest
    """


@runs.command("list")
@_root
@click.option("--size", "sizes", is_flag=True, help="Show what each takes on disk, too.")
@_json
def list_runs(root: Path, sizes: bool, as_json: bool) -> None:
    """List the runs, newest first.

    A run whose engine is gone before the run had ended is shown as killed; one whose record cannot be read, as
    unreadable.

    \b
    Example: penstock runs list --json
    """
    from penstock.compile._cli import runs as shown

    shown.list_runs(root, sizes, as_json)


@runs.command()
@_run_id
@_root
@click.option("--log", metavar="TASK", help="Print the log of a task, nothing else.")
@_json
def show(name: str, root: Path, log: str | None, as_json: bool) -> None:
    """Show what a run did and what came of it.

    \b
    Examples: penstock runs show latest
              penstock runs show tabular-training-20261121 --log train
    """
    if log and as_json:
        raise click.UsageError("a log is no JSON: leave out --json, or --log")
    from penstock.compile._cli import runs as shown

    shown.show_run(root, name, log, as_json)


@runs.command("open")
@_run_id
@_root
@click.option("--print", "only_print", is_flag=True, help="Print the path, and open nothing.")
def open_(name: str, root: Path, only_print: bool) -> None:
    """Open a run's report in the browser, and print its path.

    \b
    Example: penstock runs open latest
    """
    from penstock.compile._cli import runs as shown

    shown.open_report(root, name, only_print)


@runs.command()
@_root
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Keep the newest N.")
@click.option("--older-than", metavar="AGE", help="Only what is older: 90m, 12h, 30d, 2w.")
@click.option("--failed", is_flag=True, help="Only runs that did not succeed.")
@click.option("--dry-run", is_flag=True, help="Remove nothing; show what would go, and how much that frees.")
@_json
def gc(root: Path, keep: int | None, older_than: str | None, failed: bool, dry_run: bool, as_json: bool) -> None:
    """Remove old runs.

    Of several criteria, a run has to meet each. With the runs goes what is of no use without them: entries of the cache
    that lead to them, halves that a kill has left, and, with --older-than, environments that were not used since.
    Runs at work stay; so do volumes/, which hold your data, and the model registry.

    \b
    Examples: penstock runs gc --keep 10
              penstock runs gc --failed --older-than 7d --dry-run
    """
    from penstock.compile._cli import runs as shown

    shown.collect(root, keep, older_than, failed, dry_run, as_json)


_target = click.option(
    "--target", type=click.Choice(["kubeflow", "vertex", "azureml"]), required=True, help="The platform."
)
_PLACE: Sequence[Decorator] = [
    click.option("--project", metavar="P", help="Vertex AI: Google Cloud project.  [default: Google's own]"),
    click.option("--location", metavar="L", help="Vertex AI: region.  [default: Google's own, us-central1]"),
    click.option(
        "--endpoint",
        metavar="URL",
        help="Vertex AI: address of the API, where it is a private one.  [default: the environment's "
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM]",
    ),
    click.option(
        "--host", metavar="URL", help="Kubeflow: address.  [default: the environment's KF_PIPELINES_ENDPOINT]"
    ),
    click.option("--namespace", metavar="N", help="Kubeflow: namespace, where there are several."),
    click.option("--token", metavar="env:NAME|file:PATH", help="Kubeflow: where the bearer token is."),
    click.option("--cookies", metavar="env:NAME|file:PATH", help="Kubeflow: where the cookies of a session are."),
    click.option("--ca-cert", metavar="FILE", help="Kubeflow: certificates to trust."),
    click.option("--subscription", metavar="S", help="Azure ML: subscription.  [default: AZURE_SUBSCRIPTION_ID]"),
    click.option("--resource-group", metavar="G", help="Azure ML: resource group.  [default: AZURE_RESOURCE_GROUP]"),
    click.option(
        "--workspace",
        metavar="W",
        help="Azure ML: workspace.  [default: AZUREML_WORKSPACE_NAME, else all three of its config.json]",
    ),
]
_PIPELINE: Sequence[Decorator] = [
    click.argument("what", metavar="NAME|FILE.py:function|SPEC.yaml|JOB", shell_complete=_names),
    _target,
    click.option(
        "-p", "--parameter", "given", multiple=True, metavar="NAME=VALUE", help="A parameter, as for penstock run."
    ),
    click.option(
        "--params",
        "file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="YAML or JSON file of parameters by name.",
    ),
    click.option(
        "--cache/--no-cache",
        "caching",
        default=None,
        help="Reuse of earlier outputs, for all tasks.  [default: as in the spec]",
    ),
    click.option(
        "--label", multiple=True, metavar="NAME=VALUE", help="Vertex AI: a label; Azure ML: a tag. Can be repeated."
    ),
    click.option("--service-account", metavar="A", help="Account that the tasks run as."),
    click.option("--network", metavar="N", help="Vertex AI: network, projects/NUMBER/global/networks/NAME."),
    click.option("--encryption-key", metavar="K", help="Vertex AI: key of Cloud KMS that encrypts what the run makes."),
    click.option("--experiment", metavar="E", help="Experiment that the run belongs to; it is made if need be."),
    click.option("--pipeline-root", metavar="URI", help="Folder that artifacts go to, such as gs://BUCKET/FOLDER."),
    click.option(
        "--options",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Azure ML: YAML file of what the conversion is told, as for penstock convert.",
    ),
    click.option(
        "--identity",
        metavar="managed[:ID]|user_identity|aml_token",
        help="Azure ML: whom the tasks run as; ID is the client id of a managed identity.  [default: the compute's]",
    ),
    click.option(
        "--register",
        multiple=True,
        type=click.Choice(["environments", "components"]),
        help="Azure ML: register these under names and versions that follow from their content. Can be repeated.",
    ),
]


def _with(options: Sequence[Decorator]) -> Decorator:
    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@penstock.command()
@_with(_PIPELINE)
@click.option("--name", metavar="TEXT", help="What the run is called.  [default: the pipeline's name]")
@click.option(
    "--idempotency-key",
    "key",
    metavar="K",
    help="The same spec with the same key begins one run, however often it is submitted.  [default: a new one]",
)
@click.option("--wait", is_flag=True, help="Wait until the run is over; the exit code is the run's.")
@click.option("--watch", is_flag=True, help="Wait, and show each task as it begins and ends.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Wait no longer; the run goes on.",
)
@click.option("--cancel-on-exit", is_flag=True, help="Cancel the run when this command is told to stop.")
@click.option("--dry-run", is_flag=True, help="Send nothing; show what would be sent.")
@_with(_PLACE)
@_json
def submit(what: str, target: str, **options: Any) -> None:
    """Send a pipeline to Kubeflow, Vertex AI or Azure ML.

    Compiles it if need be; a compiled spec is sent as it is, but to Azure ML, for which it is converted, unless it is a
    JOB already that penstock convert wrote. Prints the SHA-256 of the bytes sent and the page of the run. Exits with 0
    when it was submitted, or with --wait and --watch when it succeeded; 1 when the run failed or took too long; 2 when
    it could not be submitted.

    \b
    Examples: penstock submit specs/weekly.yaml --target vertex --pipeline-root gs://my-bucket/runs --watch
              penstock submit specs/weekly.yaml --target kubeflow --host https://kubeflow.example.com/pipeline
              penstock submit specs/weekly.yaml --target azureml --workspace my-workspace --options azure.yaml --watch
    """
    from penstock.compile import submission
    from penstock.compile._cli import submitting

    submission.check_options(target, options)
    if options["timeout"] and not (options["wait"] or options["watch"]):
        raise click.UsageError("--timeout goes with --wait or --watch")
    pipeline, how = submitting.what(what, options), submitting.how(options)
    sys.exit(submitting.submit_and_show(pipeline, target, submitting.place(options), how))


@penstock.command()
@click.argument("name", metavar="ID")
@_target
@_with(_PLACE)
@_json
def cancel(name: str, target: str, as_json: bool, **options: Any) -> None:
    """Cancel a run on Kubeflow, Vertex AI or Azure ML, and wait until that is confirmed.

    \b
    Example: penstock cancel --target vertex tabular-training-1f2e3d4c5b6a-0123456789abcdef
    """
    from penstock.compile import submission
    from penstock.compile._cli import submitting

    submission.check_options(target, options)
    sys.exit(submitting.cancel_and_show(name, target, submitting.place(options), as_json))


@penstock.command()
@_with(_PIPELINE)
@click.option(
    "--cron",
    metavar="'M H D M W'",
    help="Minute, hour, day of the month, month, day of the week; on Vertex AI and Azure ML after TZ=Europe/Berlin, if "
    "need be.",
)
@click.option(
    "--every", metavar="'N UNIT'", help="Azure ML: instead of --cron, such as '2 weeks'; counted from --start."
)
@click.option("--name", metavar="TEXT", help="Name of the schedule and its runs.  [default: the pipeline's name]")
@click.option("--start", metavar="TIME", help="Nothing runs before it: ISO 8601 with a time zone.")
@click.option("--end", metavar="TIME", help="Nothing runs after it.")
@click.option("--max-runs", type=click.IntRange(min=1), metavar="N", help="Vertex AI: end after so many runs.")
@click.option(
    "--max-concurrent",
    type=click.IntRange(min=1),
    metavar="N",
    help="Runs at work at a time.  [default: 1]",
)
@click.option(
    "--catch-up/--no-catch-up", default=None, help="Kubeflow: whether missed runs are made up for.  [default: no]"
)
@click.option("--paused", is_flag=True, help="Begin no runs until `penstock schedules resume`.")
@click.option("--replace", is_flag=True, help="Put it in place of another schedule of that name.")
@_with(_PLACE)
@_json
def schedule(what: str, target: str, replace: bool, as_json: bool, **options: Any) -> None:
    """Run a pipeline on Kubeflow, Vertex AI or Azure ML again and again.

    The platform's own scheduler begins the runs. The same command twice changes nothing.

    \b
    Examples: penstock schedule tabular_training --target vertex --pipeline-root gs://my-bucket/runs --cron '30 6 * * 1'
              penstock schedule specs/weekly.yaml --target kubeflow --cron '0 4 * * *' --name nightly --replace
    """
    from penstock.compile import submission
    from penstock.compile._cli import scheduling, submitting

    submission.check_options(target, options)
    if bool(options["cron"]) == bool(options["every"]):
        raise click.UsageError("say when: give --cron, or --every on Azure ML")
    pipeline = submitting.what(what, options)
    scheduling.schedule_and_show(pipeline, target, submitting.place(options), options, replace, as_json)


@penstock.group()
def schedules() -> None:
    """Look at the schedules of Kubeflow, Vertex AI or Azure ML, pause, resume and delete them.

    Schedules are named by their names or their ids.

    \b
    Examples: penstock schedules list --target vertex
              penstock schedules pause nightly --target kubeflow --host https://kubeflow.example.com/pipeline
    """


_schedule_name = click.argument("name", metavar="NAME|ID")


@schedules.command("list")
@_target
@_with(_PLACE)
@_json
def list_schedules(target: str, as_json: bool, **options: Any) -> None:
    """List the schedules.

    \b
    Example: penstock schedules list --target vertex --project my-project
    """
    from penstock.compile import submission
    from penstock.compile._cli import scheduling, submitting

    submission.check_options(target, options)
    scheduling.list_and_show(target, submitting.place(options), as_json)


@schedules.command()
@_schedule_name
@_target
@_with(_PLACE)
def pause(name: str, target: str, **options: Any) -> None:
    """Begin no runs until it is resumed.

    \b
    Example: penstock schedules pause nightly --target vertex
    """
    from penstock.compile import submission
    from penstock.compile._cli import scheduling, submitting

    submission.check_options(target, options)
    scheduling.change_and_show(
        name, target, submitting.place(options), lambda platform, found: platform.pause_schedule(found.id), "paused"
    )


@schedules.command()
@_schedule_name
@_target
@click.option(
    "--catch-up/--no-catch-up", default=None, help="Vertex AI: whether missed runs are made up for.  [default: no]"
)
@_with(_PLACE)
def resume(name: str, target: str, catch_up: bool | None, **options: Any) -> None:
    """Begin runs again.

    \b
    Example: penstock schedules resume nightly --target vertex
    """
    from penstock.compile import submission
    from penstock.compile._cli import scheduling, submitting

    submission.check_options(target, options)
    scheduling.change_and_show(
        name,
        target,
        submitting.place(options),
        lambda platform, found: platform.resume_schedule(found.id, catch_up),
        "active",
    )


@schedules.command()
@_schedule_name
@_target
@_with(_PLACE)
def delete(name: str, target: str, **options: Any) -> None:
    """Remove a schedule; the runs that it has begun stay.

    \b
    Example: penstock schedules delete nightly --target vertex
    """
    from penstock.compile import submission
    from penstock.compile._cli import scheduling, submitting

    submission.check_options(target, options)
    scheduling.change_and_show(
        name, target, submitting.place(options), lambda platform, found: platform.delete_schedule(found.id), "deleted"
    )


@penstock.group()
def images() -> None:
    """Build the images of a repository, prove and push them.

    An environment is a folder in containers/ with a requirements.lock; containers/Dockerfile builds the image of any.
    Without names, all of them.

    \b
    Examples: penstock images build --smoke
              penstock images push --registry europe-docker.pkg.dev/my-project/penstock
    """


_names_of_images = click.argument("names", metavar="[NAME]...", nargs=-1)
_context = click.option(
    "--context",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("."),
    show_default=True,
    help="The repository, or a folder in it.",
)
_base = click.option(
    "--base-image",
    "base",
    default="",
    metavar="IMAGE",
    help="Base of environments that name none.  [default: the Dockerfile's]",
)
_registry = click.option("--registry", default="", metavar="R", help="Where images that are not here are looked for.")


@images.command("build")
@_names_of_images
@_registry
@_context
@_base
@click.option("--smoke", "then_smoke", is_flag=True, help="Run each one's smoke test, too.")
@click.option("-v", "--verbose", is_flag=True, help="Show all that builds say: also what takes the space.")
@_json
def build_images(
    names: tuple[str, ...], registry: str, context: Path, base: str, then_smoke: bool, verbose: bool, as_json: bool
) -> None:
    """Build the images whose inputs have changed.

    The tag of an image is a hash of its Dockerfile, lock, code and base image. What is here, or at the registry, under
    that tag is not built again, nor are dependencies that have not changed. PROJECT/NAME:VERSION, as specs have it, is
    a tag of the same image on this machine.

    \b
    Example: penstock images build tabular --smoke
    """
    from penstock.compile._cli import images as building

    building.build(building.Options(names, context, registry, base, as_json), verbose, then_smoke)


@images.command("smoke")
@_names_of_images
@_registry
@_context
@_base
@_json
def smoke_images(names: tuple[str, ...], registry: str, context: Path, base: str, as_json: bool) -> None:
    """Run in each image what containers/NAME/smoke.yaml says.

    The containers have no network and no capabilities, and their root is read-only.

    \b
    Example: penstock images smoke tabular
    """
    from penstock.compile._cli import images as building

    building.smoke(building.Options(names, context, registry, base, as_json))


@images.command("push")
@_names_of_images
@click.option("--registry", required=True, metavar="R", help="Where to: NAME becomes R/NAME.")
@_context
@_base
@_json
def push_images(names: tuple[str, ...], registry: str, context: Path, base: str, as_json: bool) -> None:
    """Push images, and write the digests that the registry answers to containers/digests.json.

    The images of their dependencies go with them, for machines that build for the first time.

    \b
    Example: penstock images push --registry europe-docker.pkg.dev/my-project/penstock
    """
    from penstock.compile._cli import images as building

    building.push(building.Options(names, context, registry, base, as_json))


class _Samples(_Group):
    """A command for each sample that the installed packages offer."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from penstock.compile.catalog import sample_names

        return sample_names()

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        from penstock.compile.catalog import find_sample, known_sample

        known_sample(name)
        try:
            text = find_sample(name).sentence
        except PenstockError as error:
            text = str(error)

        example = f"Example: penstock sample {name} --rows 1000 --output data/{name}"

        @click.command(name, cls=_Command, help=f"{text}\n\n\b\n{example}")
        @click.option("--rows", type=click.IntRange(min=1), required=True, help="Rows to write.")
        @click.option(
            "--output",
            type=click.Path(path_type=Path, file_okay=False),
            required=True,
            help="Folder to write into; it is made, and must be empty where it exists.",
        )
        @click.option(
            "--seed", type=int, default=0, show_default=True, help="The same seed and rows give the same files."
        )
        def write(rows: int, output: Path, seed: int) -> None:
            if output.is_dir() and any(output.iterdir()):
                raise PenstockError(f"{output} is not empty; give an --output that does not exist yet")
            for path in find_sample(name).write(output, rows, seed):
                click.echo(path)

        return write


@penstock.group(cls=_Samples)
def sample() -> None:
    """Write synthetic sample data.

    For machines that have no data yet. The rows are made up: nothing in them was measured.

    \b
    Example: penstock sample taxi --rows 100000 --output data/taxi
    """


@penstock.command(hidden=True)
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where a file is not up to date.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("."),
    help="The repository; only files below it are written.",
)
def docs(check: bool, root: Path) -> None:
    """Write the tables of ports and of components into the READMEs.

    \b
    Example: penstock docs --check
    """
    from penstock.compile.docs import refresh

    stale = refresh(root, write=not check)
    for path in stale:
        click.echo(f"{path}: {'not up to date: run `penstock docs`' if check else 'written'}", err=check)
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
