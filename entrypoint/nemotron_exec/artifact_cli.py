"""`nemotron-artifact`: look at a manifest store, add to it, check it, clean it.

Results go to stdout, everything else to stderr. Exit codes: 0 done; 1 `verify` found errors; 2 wrong usage; 75 it may
work later, also `flush` where something stays unsent; 125 it failed; 130 interrupted.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from nemotron_exec import __version__
from nemotron_exec.errors import EXIT_FAILED, LaunchError, TemporaryError, UsageError
from nemotron_exec.message import Messages
from nemotron_exec.sitecustomize.payload import manifest as layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem

    from nemotron_exec.inventory import Entry, Inventory

__all__ = ["EXIT_FINDINGS", "cli", "main", "root_of_store"]

EXIT_FINDINGS = 1
_MOST_KEPT = 10  # lines of gc; more than a screen tells nobody anything
EXIT_INTERRUPTED = 130

# Subcommands that live in a module of their own, as `module:command`.
_ELSEWHERE = {"flush": "nemotron_exec.artifact_flush:flush"}


class Commands(click.Group):
    """The commands of this module, and those of `_ELSEWHERE`, which are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the help text."""
        others = [name for name, target in _ELSEWHERE.items() if importlib.util.find_spec(target.partition(":")[0])]
        return sorted([*super().list_commands(ctx), *others])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None if there is none."""
        module, _, attribute = _ELSEWHERE.get(cmd_name, "").partition(":")
        if module and importlib.util.find_spec(module):
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return super().get_command(ctx, cmd_name)


class ReferenceType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3
    """`NAME` or `NAME:REF`, completed from the store."""

    name = "reference"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """What there is in the store; nothing where it cannot be read."""
        from click.shell_completion import CompletionItem

        try:
            files = _files(ctx.find_root().params.get("store"))
            name, colon, _ = incomplete.partition(":")
            if not colon:
                return [CompletionItem(one) for one in layout.names(files) if one.startswith(incomplete)]
            words = ["latest", *layout.aliases(files, name), *(f"v{one}" for one in layout.versions(files, name))]
        except (layout.StoreError, LaunchError):
            return []
        return [CompletionItem(f"{name}:{word}") for word in words if f"{name}:{word}".startswith(incomplete)]


def _store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    # Also after the subcommand, where people write it.
    return click.option("--store", "store", metavar="URI", help="Root of the manifest store.", default=None)(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for machines.")
REFERENCE = ReferenceType()


@click.group(
    cls=Commands,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 `verify` found errors, 2 wrong usage, 75 it may work later, 125 it failed.",
)
@click.option(
    "--store",
    metavar="URI",
    help="Root of the manifest store, a path or any fsspec URI. Default: NEMOTRON_EXEC_STORE, env.toml, "
    "NEMO_ARTIFACT_ROOT, else a directory under the user's data directory.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="nemotron-artifact", message="%(prog)s %(version)s")
def cli(store: str | None, verbose: bool) -> None:
    """Look at a manifest store of artifacts, add to it, check it and clean it."""


@cli.command()
@click.argument("name")
@click.argument("path")
@click.option("--type", "kind", metavar="T", help="Default: `type` of metadata.json in PATH, else dataset.")
@click.option("--meta", metavar="K=V", multiple=True, help="A field of ${art:…}; 4096 is an int, 1e-4 a float.")
@click.option(
    "--input",
    "inputs",
    metavar="REF",
    multiple=True,
    type=REFERENCE,
    help="What it was made from: an artifact of this store, or a URI.",
)
@click.option("--alias", "aliases", metavar="A", multiple=True, help="Another name for this version.")
@click.option("--no-latest", is_flag=True, help="`latest` never means this version.")
@json_option
@_store_option
def add(
    name: str,
    path: str,
    kind: str | None,
    meta: tuple[str, ...],
    inputs: tuple[str, ...],
    aliases: tuple[str, ...],
    no_latest: bool,
    as_json: bool,
    store: str | None,
) -> None:
    """Register the data at PATH as the next version of NAME. Nothing is copied."""
    files = _files(store)
    recorded, fields = _data_at(path)
    nested = fields.get("metadata")
    metadata = {**(nested if isinstance(nested, dict) else {}), **dict(_meta(text) for text in meta)}
    own = {key: value for key, value in metadata.items() if key in dict(_meta(text) for text in meta)}
    used, uris = _inputs(files, inputs)
    kind = kind or (fields["type"] if isinstance(fields.get("type"), str) else "dataset")
    version = layout.register(
        files,
        name,
        type=kind,
        path=recorded,
        metadata=metadata,
        fields={**fields, **own},
        used_artifacts=used,
        inputs=uris,
        aliases=aliases,
        move_latest=not no_latest,
    )
    if as_json:
        _print_json(
            {"qualified_name": version.qualified_name, "path": recorded, "directory": version.directory, "type": kind}
        )
        return
    click.echo(version.qualified_name)
    _messages().info(f"{recorded} is {version.qualified_name} in {_label(files)}")


@cli.command("ls")
@click.argument("name", required=False, type=REFERENCE)
@json_option
@_store_option
def list_(name: str | None, as_json: bool, store: str | None) -> None:
    """List the artifacts, or the versions of the artifact NAME, or the artifacts below the prefix NAME/."""
    from nemotron_exec.listing import print_artifacts, print_versions

    files = _files(store)
    inventory = _inventory(files, name)
    if as_json:
        _print_json([entry.to_json() for entry in inventory.entries])
    elif not inventory.entries:
        _messages().info(f"there is nothing in {_label(files)} yet; nemotron-artifact add NAME PATH adds to it")
    elif name and not name.endswith("/"):
        print_versions(inventory.entries)
    else:
        print_artifacts(inventory.by_name())


@cli.command()
@click.argument("reference", metavar="NAME[:REF]", type=REFERENCE)
@json_option
@_store_option
def show(reference: str, as_json: bool, store: str | None) -> None:
    """Show one version: what it is, where, out of what, and its fields for ${art:…}."""
    from nemotron_exec.listing import print_version

    entry = _entry(_files(store), reference)
    if as_json:
        _print_json({**entry.to_json(), "manifest": dict(entry.manifest), "metadata": dict(entry.fields)})
    else:
        print_version(entry)


@cli.command()
@click.argument("reference", metavar="[NAME[:REF]]", required=False, type=REFERENCE)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "dot", "html", "json"]),
    help="Default: by the ending of -o (.mmd, .dot, .gv, .html, .json), else text.",
)
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write there, not to stdout.")
@click.option("--all", "everything", is_flag=True, help="Every version on its own (html and json always have them).")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@_store_option
def graph(
    reference: str | None, form: str | None, output: str | None, everything: bool, as_json: bool, store: str | None
) -> None:
    """Draw what was made from what: of the whole store, or of one version."""
    from nemotron_exec import lineage_graph

    files = _files(store)
    endings = {".mmd": "mermaid", ".mermaid": "mermaid", ".dot": "dot", ".gv": "dot", ".html": "html", ".htm": "html"}
    ending = os.path.splitext(output or "")[1].lower()
    form = "json" if as_json else form or {**endings, ".json": "json"}.get(ending, "text")
    drawn = lineage_graph.build_graph(_inventory(files))
    root = ""
    if reference:
        root = _entry(files, reference).qualified_name
        drawn = lineage_graph.lineage_of(drawn, root)
    if form not in ("html", "json") and not everything:
        drawn = lineage_graph.condense(drawn, root)
    if form == "html":
        from nemotron_exec.lineage_page import to_html

        text = to_html(drawn, f"Lineage of {root or _label(files)}")
    elif form == "text":
        text = lineage_graph.to_text(drawn, root)
    else:
        text = {
            "mermaid": lineage_graph.to_mermaid,
            "dot": lineage_graph.to_dot,
            "json": lineage_graph.to_json,
        }[form](drawn)
    if form == "mermaid" and lineage_graph.beyond_mermaid(drawn, text):
        _messages().warning(
            "this is more than a Mermaid viewer draws (500 edges, 50,000 characters) unless it is told to: "
            "name one version, or use --format html"
        )
    if output and output != "-":
        _write(output, text)
        _messages().info(f"{len(drawn.nodes)} nodes are drawn in {output}")
    else:
        click.echo(text, nl=False)


@cli.command()
@click.argument("name", required=False, type=REFERENCE)
@json_option
@_store_option
def verify(name: str | None, as_json: bool, store: str | None) -> None:
    """Look for damaged files, data that is gone and references to nothing. Exit code 1 if there are errors."""
    from nemotron_exec.verify import verify as look

    files = _files(store)
    inventory = _inventory(files, name)
    findings = look(files, inventory)
    if as_json:
        _print_json([finding.to_json() for finding in findings])
    elif findings:
        from nemotron_exec.listing import print_table

        print_table(
            ("LEVEL", "WHAT", "FOUND", "REMEDY"),
            [(finding.level, finding.subject, finding.found, finding.remedy) for finding in findings],
        )
    errors = sum(finding.level == "error" for finding in findings)
    _messages().info(f"{len(inventory.entries)} versions, {errors} errors, {len(findings) - errors} notes")
    if errors:
        raise SystemExit(EXIT_FINDINGS)


@cli.command()
@click.argument("name", required=False, type=REFERENCE)
@click.option("--yes", is_flag=True, help="Remove what is proposed.")
@click.option("--unmounted", is_flag=True, help="Also where the data's parent directory is not there either.")
@json_option
@_store_option
def gc(name: str | None, yes: bool, unmounted: bool, as_json: bool, store: str | None) -> None:
    """Propose to forget versions whose data is gone and what dead writers left; with --yes, forget them.

    Data is never touched. What `latest` means stays, and so does what a version with data was made from.
    """
    from nemotron_exec.garbage import collect, find_garbage

    files = _files(store)
    garbage, kept = find_garbage(files, _inventory(files, name), unmounted=unmounted)
    removed = collect(files, garbage) if yes else []
    if as_json:
        _print_json(
            {
                "proposed": [one.to_json() for one in garbage],
                "removed": [one.to_json() for one in removed],
                "kept": kept,
            }
        )
        return
    if garbage:
        from nemotron_exec.listing import print_table

        verb = "REMOVED" if yes else "WOULD REMOVE"
        print_table((verb, "KIND", "SINCE IT"), [(one.subject, one.kind, one.reason) for one in garbage])
    messages = _messages()
    for line in kept[:_MOST_KEPT]:
        messages.info(f"kept: {line}")
    if len(kept) > _MOST_KEPT:
        messages.info(f"and {len(kept) - _MOST_KEPT} more are kept; --json names all")
    if garbage and not yes:
        messages.info(f"{len(garbage)} things would be removed; --yes does it")
    else:
        messages.info(f"{len(removed)} things removed")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print shell completion for both programs; eval it in the shell's start-up file."""
    from nemotron_exec.completion import script

    click.echo(script(shell), nl=False)


def main() -> None:
    """The console script: runs a command, turns every failure into one line and an exit code."""
    messages = _messages()
    try:
        if "_NEMOTRON_ARTIFACT_COMPLETE" in os.environ:
            cli.main(prog_name="nemotron-artifact")
        # Not cli.main: it exits 1 where the reader of a pipe goes away, which is no failure.
        with cli.make_context("nemotron-artifact", sys.argv[1:]) as context:
            cli.invoke(context)
        sys.stdout.flush()
        code = 0
    except click.exceptions.Exit as e:
        code = e.exit_code
    except click.UsageError as e:
        usage = e.ctx.command_path if e.ctx else "nemotron-artifact"
        said = e.format_message().rstrip()
        messages.error(f"{said}{'' if said.endswith(('.', '?')) else '.'} See {usage} --help")
        code = e.exit_code
    except click.ClickException as e:
        messages.error(e.format_message())
        code = EXIT_FAILED
    except (layout.StoreError, LaunchError) as e:
        error = _launch_error(e) if isinstance(e, layout.StoreError) else e
        messages.error(str(error))
        code = error.exit_code
        _show_traceback()
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # `nemotron-artifact ls | head`: nobody reads on, which is no failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    except OSError as e:
        messages.error(f"{e.filename or 'the system'}: {e.strerror or e}")
        code = EXIT_FAILED
        _show_traceback()
    sys.exit(code)


def _show_traceback() -> None:
    if "-v" in sys.argv[1:] or "--verbose" in sys.argv[1:]:
        import traceback

        traceback.print_exc()


def _messages() -> Messages:
    return Messages(program="nemotron-artifact")


def _launch_error(e: layout.StoreError) -> LaunchError:
    kind = TemporaryError if e.temporary else LaunchError
    return kind(e.wanted, e.found, e.remedy)


def root_of_store(store: str | None = None) -> str:
    """Root that the command line names, else the environment, else env.toml, else the default."""
    context = click.get_current_context(silent=True)
    given = store or (context.find_root().params.get("store") if context else None)
    root: str = given or os.environ.get("NEMOTRON_EXEC_STORE") or _root_of_env_toml() or layout.default_root(os.environ)
    return root


def _files(store: str | None) -> Any:
    from nemotron_exec.stores.manifest import open_files

    return open_files(root_of_store(store))


def _label(files: Any) -> str:
    return str(getattr(files, "uri", files.root))


def _root_of_env_toml() -> str | None:
    from nemotron_exec.env_toml import find_env_toml, read_env_toml

    return read_env_toml(find_env_toml(os.getcwd(), os.environ)).artifacts_root


def _inventory(files: Any, name: str | None = None) -> Inventory:
    from nemotron_exec.inventory import take_inventory
    from nemotron_exec.sitecustomize.payload.mountinfo import localise

    if not name:
        return take_inventory(files, localise=localise)
    if name.endswith("/"):
        names = [one for one in layout.names(files) if one.startswith(name)]
        return take_inventory(files, names, localise)
    bare = name.partition(":")[0]
    if not layout.versions(files, bare):
        layout.read_version(files, bare)  # raises, and names the nearest
    return take_inventory(files, [bare], localise)


def _entry(files: Any, reference: str) -> Entry:
    name, version = _parse(reference)
    # Somebody who looks wants to see what is gone, too.
    record = layout.read_version(files, name, version, skip_gone=False)
    return next(one for one in _inventory(files, name).entries if one.number == record.number)


def _parse(reference: str) -> tuple[str, str]:
    name, colon, version = reference.removeprefix("art://").rpartition(":")
    return (name, version or "latest") if colon else (version, "latest")


def _data_at(path: str) -> tuple[str, dict[str, Any]]:
    """The path to record, and the content of metadata.json there."""
    if not layout.is_local(path):
        return path, {}
    local = os.path.realpath(
        os.path.expanduser("/" + path.removeprefix("file:").lstrip("/") if path.startswith("file:") else path)
    )
    if not os.path.exists(local):
        raise LaunchError(
            f"to add the data at {path}", f"{local} is not there", "Name an existing file, directory or URI"
        )
    from nemotron_exec.sitecustomize.payload.mountinfo import to_host

    # In a container, what is recorded is where the host has it: the next job may have it elsewhere.
    recorded = to_host(local)
    file = os.path.join(local, "metadata.json")
    data = layout.LocalFiles(local).read(file) if os.path.isdir(local) else None
    if data is None:
        return recorded, {}
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise LaunchError(f"to read the fields in {file}", f"not JSON ({e})", "Mend or remove the file") from e
    if not isinstance(fields, dict):
        raise LaunchError(f"to read the fields in {file}", "JSON that is not an object", "Mend or remove the file")
    return recorded, fields


def _meta(text: str) -> tuple[str, Any]:
    """`K=V` with V as YAML and JSON type it."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError("to read --meta", f"{text!r}", "Write it as KEY=VALUE")
    try:
        return key, json.loads(value)  # 1e-4 is a number in JSON and text in YAML 1.1
    except (ValueError, RecursionError):
        pass
    import yaml

    try:
        typed = yaml.safe_load(value)
        json.dumps(typed)
    except (yaml.YAMLError, TypeError, ValueError, RecursionError):
        return key, value
    return key, value if typed is None and value != "~" else typed


def _inputs(files: Any, references: tuple[str, ...]) -> tuple[list[str], list[str]]:
    used, uris = [], []
    for reference in references:
        if "://" in reference and not reference.startswith("art://"):
            uris.append(reference)
        elif os.path.isabs(reference):
            uris.append("file://" + os.path.realpath(reference))
        else:
            name, version = _parse(reference)
            used.append(f"{name}:v{layout.read_version(files, name, version, skip_gone=False).number}")
    return used, uris


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1, default=str))


def _write(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


if __name__ == "__main__":
    main()
