"""Check that the cache of Hugging Face has all files of a repository: by size, and on request by digest.

The check makes no request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemotron_exec.artifact_cli.verify import Finding
from nemotron_exec.artifacts.hub import parse_hub_text
from nemotron_exec.errors import LaunchError
from nemotron_exec.origin import Origin
from nemotron_exec.stores.huggingface.cache import HubCache, cache_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["verify_hub"]


def verify_hub(text: str, environ: Mapping[str, str], *, digests: bool) -> list[Finding]:
    """The faults in the cached files of `hf://org/name@REVISION`. A file that was left out on purpose gives a note.

    Args:
        text: The reference.
        environ: The environment: `HF_HOME` and `HF_HUB_CACHE` count.
        digests: Read every file, and compare its digest with the hub's.

    Raises:
        LaunchError: The cache does not know the revision, or has no list of its files.
    """
    reference = parse_hub_text("verify", text, Origin("the command line"))
    cache = HubCache(cache_directory(environ)[0])
    what = (reference.type, reference.name)
    commit = cache.commit_of(*what, reference.alias)
    record = cache.record(*what, commit) if commit else None
    if commit is None or record is None:
        raise LaunchError(
            f"to verify {text} in {cache.root}",
            "the cache has no list of its files"
            if commit
            else f"the cache knows no revision {reference.alias!r} of it",
            "Download it with nemotron-exec --resolve-only, or check HF_HOME and HF_HUB_CACHE",
        )
    subject, remedy = f"{text} ({commit[:12]})", "The next start that names it fetches it again"
    findings, whole = [], []
    for path in record.files:
        if path not in cache.lacking(*what, commit, record, [path]):
            whole.append(path)
        elif cache.has(*what, commit, path):
            findings.append(Finding("error", subject, f"{path} has another size than the hub says", remedy))
        else:
            findings.append(Finding("note", subject, f"{path} is not here", remedy))
    for path in cache.damaged(*what, commit, record, whole) if digests else ():
        cache_path = cache.snapshot(*what, commit)
        remove = f"Remove {cache_path}/{path} with the file that it links to; the next start fetches it again"
        findings.append(Finding("error", subject, f"{path} has another digest than the hub says", remove))
    return sorted(findings, key=lambda finding: finding.level)
