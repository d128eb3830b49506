"""The client's connection, opened with the client's own settings. Its errors are explained."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.stores.wandb.credentials import LOGIN, find_credentials
from nemotron_exec.stores.wandb.faults import first_line, http_status
from nemotron_exec.stores.wandb.link import end_process
from nemotron_exec.stores.wandb.server import Server, Transport

if TYPE_CHECKING:
    from nemotron_exec.stores.wandb.link import Link

__all__ = ["Connection"]

# Seconds that the client gets after its import, when a request of the launcher has failed already. The client may
# succeed after a passing fault, or by its own certificates, proxy or token.
_GRACE = 2.0
_LONG_GRACE = 10.0
_MARGIN = 1.0  # seconds before the end, in which the reason can still be reported


class Connection:
    """An open `wandb.Api`.

    Args:
        link: Gets a message for each fault after which the client tries again.
        base_url: Address of the server.
        entity: Entity of the job. If it is None, it becomes the key's default entity once the connection is open.
        project: Project of the job.
        deadline: `time.monotonic()` at which all work must be done.
    """

    def __init__(self, link: Link, base_url: str, entity: str | None, project: str | None, deadline: float) -> None:
        self.server = Server(base_url, find_credentials(os.environ))
        self.entity = entity
        self.project = project
        self.api: Any = None
        self.app_url = base_url
        """Address of the web pages; from the client's settings, once the connection is open."""
        self._link = link
        self._deadline = deadline
        self._started = threading.Event()
        self._opened = threading.Event()

    def open(self, wanted: str) -> None:
        """Log in with the client. A request of the launcher's own explains a failure of the client.

        Raises:
            LaunchError: The client is not installed, or the key or the address is wrong.
            TemporaryError: The server cannot be reached, or reports a fault.
        """
        scratch = os.environ.get("WANDB_CACHE_DIR") or "."
        self.server.transport = Transport.of_environment(os.environ, scratch)
        threading.Thread(target=self._watch, args=(wanted,), daemon=True).start()
        client = _import_wandb(wanted)
        if self.entity:
            os.environ["WANDB_ENTITY"] = self.entity  # otherwise the client asks for it with every look-up
        overrides = {name: value for name, value in (("entity", self.entity), ("project", self.project)) if value}
        try:
            settings = client.setup().settings
            self.server.transport = Transport.of_client(settings, os.environ, scratch)
            self.app_url = _app_url(client, settings)
            self._started.set()
            self.api = client.Api(timeout=max(2, int(self.patience())), overrides=overrides)
            self.entity = self.entity or self.api.default_entity
        except Exception as error:  # noqa: BLE001  (the client's own classes are too many, and change)
            self._opened.set()
            self.raise_for(error, wanted, ask=True)
            if "40" in str(error) and "character" in str(error):
                raise LaunchError(wanted, "the API key is malformed", LOGIN) from None
            raise LaunchError(wanted, first_line(error), LOGIN) from None
        finally:
            self._opened.set()
        if self.entity:
            os.environ["WANDB_ENTITY"] = self.entity

    def patience(self) -> float:
        """Seconds to wait for an API that is down. The downloads need the rest of the time."""
        left: float = self._deadline - time.monotonic()
        return max(2.0, min(90.0, 0.6 * left))

    def tell(self, fault: str) -> None:
        """Report a fault after which a request is repeated."""
        self._link.say("retry", found=fault)

    def _watch(self, wanted: str) -> None:
        """Send the server a request beside the client's, so that a waiting user sees its fault at once.

        A fault found here ends the process only after the client has tried, too, and has not reported one.
        """
        try:
            self.server.check(wanted, self.patience(), self._tell_meanwhile)
        except LaunchError as error:
            fault = error
        else:
            return
        self._started.wait(max(0.0, self._left()))
        grace = _GRACE if isinstance(fault, TemporaryError) else _LONG_GRACE
        if not self._opened.wait(max(0.0, min(grace, self._left()))):
            self._link.fail(fault)
            end_process(0)

    def _tell_meanwhile(self, fault: str) -> None:
        if not self._opened.is_set():
            self.tell(fault)

    def _left(self) -> float:
        return self._deadline - _MARGIN - time.monotonic()

    def raise_for(self, error: Exception, wanted: str, *, ask: bool = False) -> None:
        """Raise the launcher's error for an error of the client, if key or server is at fault, and not a name."""
        status = http_status(error)
        if status == 401:
            raise self.server.bad_key(wanted) from None
        if status == 403:
            raise self.server.no_access(wanted) from None
        if ask and status is None:
            # The client's text does not matter: certificate, proxy, address or an unknown key may be the cause.
            self.server.check(wanted, max(0.5, min(5.0, self._left())))
        if status is None and isinstance(getattr(error, "exc", error), ValueError):
            return
        if status is None or status in (408, 429) or status >= 500:
            self.server.check(wanted, max(0.5, min(5.0, self._left())))
            if status is not None or "respond" in str(error) or "imed out" in str(error):
                seconds = f"HTTP {status}" if status else "no answer in time"
                remedy = "Start the job again later, or give it more time with --timeout"
                raise TemporaryError(wanted, f"{self.server.host}: {seconds}", remedy) from None


def _app_url(client: Any, settings: Any) -> str:
    """The address of the web pages, from the client: since CoreWeave Forge it cannot be derived from the API's."""
    # wandb before 0.24 has a function for it, which reads WANDB_APP_URL.
    found = getattr(settings, "app_url", None) or client.util.app_url(settings.base_url)
    return str(found).rstrip("/")


def _import_wandb(wanted: str) -> Any:
    try:
        import wandb
    except ImportError as error:
        found = f"the package wandb cannot be imported ({first_line(error)})"
        raise LaunchError(wanted, found, f"Install it with: {sys.executable} -m pip install 'wandb>=0.22'") from None
    return wandb
