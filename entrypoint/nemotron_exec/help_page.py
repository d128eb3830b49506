"""`nemotron-exec --help`: options grouped by purpose, three examples, and further notes."""

from __future__ import annotations

import click

from nemotron_exec import __url__

__all__ = ["GROUPS", "HelpPage"]

GROUPS: dict[str, tuple[str, ...]] = {
    "Config": ("config", "artifact", "artifacts", "run", "env_file", "resolve", "pin", "refresh", "lock", "locked"),
    "Where artifacts live": ("backend", "store", "cache_dir"),
    "Several nodes": ("state_dir", "job_id", "rendezvous", "timeout", "stall"),
    "Look first": ("dry_run", "doctor", "resolve_only", "output", "status", "json"),
    "Output": ("verbose", "quiet", "strict", "log_format"),
}
"""The options under each title. --help and --version stand under the last one."""

_EXAMPLES = (
    ("nemotron-exec torchrun --nproc-per-node 8 train.py cfg.yaml", "start it"),
    ("nemotron-exec --dry-run torchrun train.py cfg.yaml", "show the plan"),
    ("nemotron-exec --doctor python train.py cfg.yaml", "check it first"),
)
_MORE = (
    ("Turn it off", "NEMOTRON_EXEC_DISABLE=1 starts COMMAND as it is."),
    ("Variables", "NEMOTRON_EXEC_STORE is --store, and so on; what one looks first with is an option only."),
    ("Artifacts", "nemotron-artifact looks at the store: ls, show, add, graph, diff, verify, gc."),
    ("Pages", __url__),
)


class HelpPage(click.Command):
    """A command whose help shows its options in groups, over the whole width of the terminal."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write usage, description, examples, options and further notes."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        with formatter.section("Examples"):
            formatter.write_dl(list(_EXAMPLES), col_max=64)
        self.format_options(ctx, formatter)
        with formatter.section("More"):
            formatter.write_dl(list(_MORE))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by group."""
        last = list(GROUPS)[-1]
        grouped = {name: title for title, names in GROUPS.items() for name in names}
        order = [name for names in GROUPS.values() for name in names]
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        options.sort(key=lambda option: order.index(option.name) if option.name in order else len(order))
        for title in GROUPS:
            named = [option for option in options if grouped.get(option.name or "", last) == title]
            with formatter.section(title):
                formatter.write_dl([record for one in named if (record := one.get_help_record(ctx))], col_max=26)
