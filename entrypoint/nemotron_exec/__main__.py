"""`python -m nemotron_exec` is `nemotron-exec`."""

import os
import sys


def _isolate() -> None:
    """Start Python again without PYTHONPATH, PYTHONHOME and the working directory, which are meant for the job.

    The installed script starts Python that way already (entrypoint/scripts).
    """
    if sys.flags.isolated or not ("PYTHONPATH" in os.environ or "PYTHONHOME" in os.environ):
        return
    left_out = {os.path.realpath(entry) for entry in ["", *os.environ.get("PYTHONPATH", "").split(os.pathsep)]}
    path = [entry for entry in sys.path if os.path.realpath(entry) not in left_out]
    path.append(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    start = f"import sys; sys.path[:] = {path!r}; sys.argv[0] = {sys.argv[0]!r}; "
    start += "from nemotron_exec.cli import main; main()"
    os.execv(sys.executable, [sys.executable, "-IS", "-c", start, *sys.argv[1:]])


_isolate()

from nemotron_exec.cli import main  # noqa: E402

main()
