"""`nemotron-artifact`: look at a manifest store, add to it, check it, clean it.

Results go to stdout, everything else to stderr. Exit codes: 0 done; 1 `verify` found errors; 2 wrong usage; 75 it may
work later, or `flush` has left an entry unsent; 125 it failed; 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from nemotron_exec import __version__, schemas
from nemotron_exec.artifact_cli.store import (
    REFERENCE,
    find_entry,
    json_option,
    launch_error,
    messages_for,
    open_store_files,
    print_json,
    read_inventory,
    read_once,
    store_label,
    store_option,
)
from nemotron_exec.errors import EXIT_FAILED, EXIT_TEMPFAIL, LaunchError
from nemotron_exec.process import discard_output, hold_closed_streams
from nemotron_exec.sitecustomize.payload.manifest import names as manifest_names

if TYPE_CHECKING:
    pass

__all__ = ["EXIT_FINDINGS", "cli", "main"]

EXIT_FINDINGS = 1

_MOST_KEPT = 10  # lines of `gc` about versions that stay; nobody reads a longer list

EXIT_INTERRUPTED = 130

# Subcommands that live in a module of their own, as `module:command`.
_ELSEWHERE = {
    "add": "nemotron_exec.artifact_cli.add:add",
    "diff": "nemotron_exec.artifact_cli.differences:diff",
    "flush": "nemotron_exec.artifact_cli.flush:flush",
    "graph": "nemotron_exec.artifact_cli.draw:graph",
    "hooks": "nemotron_exec.artifact_cli.hooks:hooks",
}


class Commands(click.Group):
    """The commands of this module, and those of `_ELSEWHERE`, which are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order of the help text."""
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command `cmd_name`; None if there is none."""
        module, _, attribute = _ELSEWHERE.get(cmd_name, "").partition(":")
        if module:
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return super().get_command(ctx, cmd_name)


_SHOWN = 100  # versions that `ls NAME` lists


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


@cli.command("ls")
@click.argument("name", required=False, type=REFERENCE)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=0),
    help=f"Of NAME: the newest N versions, 0 for all. Default: {_SHOWN}, with --json all.",
)
@json_option
@store_option
def list_(name: str | None, limit: int | None, as_json: bool, store: str | None) -> None:
    """List the artifacts, or the versions of the artifact NAME, or the artifacts below the prefix NAME/."""
    from nemotron_exec.artifact_cli.listing import print_artifacts, print_versions

    files = read_once(open_store_files(store), name)
    one = bool(name) and not str(name).endswith("/")
    newest = limit if limit is not None else None if as_json or not one else _SHOWN
    # Read only the versions that are shown: a name may have 20,000 versions, and a store 5,000 names.
    inventory = read_inventory(files, name, newest=newest or None, only_latest=not as_json and not one)
    if as_json:
        print_json(schemas.LS, {"versions": [entry.to_json() for entry in inventory.entries]})
    elif not inventory.entries:
        messages_for().info(f"there is nothing in {store_label(files)} yet; nemotron-artifact add NAME PATH adds to it")
    elif one:
        print_versions(inventory.entries)
        if (total := sum(inventory.counts.values())) > len(inventory.entries):
            messages_for().info(f"the newest {len(inventory.entries)} of {total} versions; --limit 0 lists all")
    else:
        print_artifacts(inventory)


@cli.command()
@click.argument("reference", metavar="NAME[:REF]", type=REFERENCE)
@click.option("--command", is_flag=True, help="Print one command that starts the job again that made it.")
@json_option
@store_option
def show(reference: str, command: bool, as_json: bool, store: str | None) -> None:
    """Show one version: type, place, inputs, fields for ${art:…}, and the changes since the version before it."""
    from nemotron_exec.artifact_cli.listing import print_version
    from nemotron_exec.artifact_cli.store import with_version_before

    files = open_store_files(store)
    entry = find_entry(files, reference)
    if command:
        from nemotron_exec.artifact_cli.made_by import command_again, doubts, record_of

        record = record_of(entry)
        click.echo(command_again(record))
        for doubt in doubts(record):
            messages_for().info(doubt)
        return
    from nemotron_exec.artifact_cli.differences import changed_since

    changed = changed_since(with_version_before(files, entry)).get(entry.qualified_name)
    if as_json:
        found = {**entry.to_json(), "manifest": dict(entry.manifest), "metadata": dict(entry.fields)}
        print_json(schemas.SHOW, {**found, "changed": changed})
    else:
        print_version(entry, changed)


@cli.command()
@click.argument("name", required=False, type=REFERENCE)
@click.option("--data", is_flag=True, help="Compare names and sizes of each version's files with its inventory.")
@click.option("--digests", is_flag=True, help="Read every file, and compare its digest with the recorded one.")
@json_option
@store_option
def verify(name: str | None, data: bool, digests: bool, as_json: bool, store: str | None) -> None:
    """Look for damaged files, data that is gone and references to nothing. Exit code 1 if there are errors.

    With hf://org/name@REVISION: whether the cache of Hugging Face has all of its files.
    """
    from nemotron_exec.artifact_cli.verify import verify as look

    if name and name.startswith("hf://"):
        from nemotron_exec.artifact_cli.verify_hub import verify_hub

        findings, looked_at = verify_hub(name, os.environ, digests=digests), 1
    else:
        files = read_once(open_store_files(store), name)
        inventory = read_inventory(files, name)
        findings, looked_at = look(files, inventory), len(inventory.entries)
        if data or digests:
            from nemotron_exec.artifact_cli.verify import verify_data

            findings += verify_data(files, inventory, digests=digests)
    if as_json:
        print_json(schemas.VERIFY, {"findings": [finding.to_json() for finding in findings]})
    elif findings:
        from nemotron_exec.artifact_cli.listing import print_table

        print_table(
            ("LEVEL", "WHAT", "FOUND", "REMEDY"),
            [(finding.level, finding.subject, finding.found, finding.remedy) for finding in findings],
        )
    errors = sum(finding.level == "error" for finding in findings)
    messages_for().info(f"{looked_at} versions, {errors} errors, {len(findings) - errors} notes")
    if errors:
        raise SystemExit(EXIT_FINDINGS)


@cli.command()
@click.argument("name", required=False, type=REFERENCE)
@click.option("--yes", is_flag=True, help="Remove what is proposed.")
@click.option("--unmounted", is_flag=True, help="Also where the data's file system may only not be mounted here.")
@json_option
@store_option
def gc(name: str | None, yes: bool, unmounted: bool, as_json: bool, store: str | None) -> None:
    """Propose to forget versions without data and files that dead writers left; with --yes, forget them.

    Data is never touched. The version that `latest` means stays, and so do the inputs of versions with data.
    """
    from nemotron_exec.artifact_cli.garbage import collect, find_garbage

    files = open_store_files(store)
    seen = read_once(files, name)
    garbage, kept = find_garbage(seen, read_inventory(seen, name), unmounted=unmounted)
    removed = collect(files, garbage) if yes else []
    if as_json:
        print_json(
            schemas.GC,
            {
                "proposed": [one.to_json() for one in garbage],
                "removed": [one.to_json() for one in removed],
                "kept": kept,
            },
        )
        return
    if garbage:
        from nemotron_exec.artifact_cli.listing import print_table

        verb = "REMOVED" if yes else "WOULD REMOVE"
        print_table((verb, "KIND", "SINCE IT"), [(one.subject, one.kind, one.reason) for one in garbage])
    messages = messages_for()
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
    from nemotron_exec.artifact_cli.completion import script

    click.echo(script(shell, cli), nl=False)


def main() -> None:
    """The console script: runs a command, and turns every failure into one line and an exit code."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        hold_closed_streams()
    messages = messages_for()
    try:
        if "_NEMOTRON_ARTIFACT_COMPLETE" in os.environ:
            cli.main(prog_name="nemotron-artifact")
        # Do not call `cli.main`: it exits 1 where the reader of a pipe closes it, which is no failure.
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
    except (manifest_names.StoreError, LaunchError) as e:
        error = launch_error(e) if isinstance(e, manifest_names.StoreError) else e
        messages.error(str(error))
        code = error.exit_code
        _show_traceback()
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of the pipe has closed it (`nemotron-artifact ls | head`), which is no failure.
        discard_output()
        code = 0
    except OSError as e:
        from nemotron_exec.sitecustomize.payload.disk import FULL, no_room

        where = e.filename or _place_of(e)
        messages.error(f"{where}: {no_room(e, str(where)) if e.errno in FULL else e.strerror or e}")
        code = EXIT_TEMPFAIL if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE) else EXIT_FAILED
        discard_output()
        _show_traceback()
    sys.exit(code)


def _place_of(error: OSError) -> str:
    """The place of an error that names no file: a missing working directory, else the output."""
    return "the working directory" if error.errno == errno.ENOENT else "the output"


def _show_traceback() -> None:
    if "-v" in sys.argv[1:] or "--verbose" in sys.argv[1:]:
        import traceback

        traceback.print_exc()
