"""If W&B does not answer, `wandb.init` fails within a bound, or starts offline under `run.wandb.required: false`.

Why: the clients' own bound, `init_timeout`, does not hold. Measured against a server that refuses, hangs up, hangs or
answers 503 for ever: 0.27.2 waits without end for any value. 0.22 and 0.31 give up in time, but they cannot cancel the
run that they have begun. Its id stays in use, and the end of the process waits for it, 30 s or for ever. So the patch
asks the server before the client begins a run. After any answer but 5xx and 429, the client does the rest.

Can go when the client bounds its own start, and starts offline without an answer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

from .. import flags, handoff, notice

__all__ = ["start"]

REQUIRED_VARIABLE = "NEMOTRON_EXEC_WANDB_REQUIRED"
TIMEOUT_VARIABLE = "NEMOTRON_EXEC_WANDB_TIMEOUT"
BOUND = 90.0  # seconds; the client's own init_timeout
_GRACE = 15.0  # seconds by which the client exceeds its own time-out on a busy machine
_ATTEMPT = 10.0  # seconds for one request
_PAUSE = 1.0  # seconds between two requests
# Parts of the clients' error texts for a server that does not answer, or answers 5xx or 429.
_OUTAGE = (
    *("timed out", "time-out", "timeout", "did not respond", "giving up after"),
    *("http 5", "http 429", "connection", "no such host", "eof"),
)
_QUERY = b'{"query": "query Viewer { viewer { id } }", "operationName": "Viewer", "variables": {}}'


def start(original, args, kwargs, inputs, passed_on=()):
    """Call `wandb.init`, within the bound.

    Args:
        original: The client's function.
        args: Of the call.
        kwargs: Of the call.
        inputs: `inputs()` gives the names of the W&B artifacts that the job uses.
        passed_on: The client's errors with one of these texts are raised to the caller.

    Returns:
        The client's result; an offline run if W&B does not answer and is not required.
    """
    try:
        given = _by_name(original, args, kwargs)
        url, direct = _server(given)
        bound = _bound()
    except Exception as error:
        notice.debug("wandb.init is called without a bound: %r" % (error,))
        url = None
    if url is None:
        return original(*args, **kwargs)
    needed = _required()
    why = _silence(url, bound) if direct else None
    if why is None:
        try:
            with _alarm(url, bound + _GRACE):
                return original(**_bounded(given, bound))
        except Exception as error:
            why = _first_line(error)
            if any(text in str(error) for text in passed_on) or not _is_outage(error):
                raise
            if needed:
                _say_required(url, bound, why)
                raise
            given["id"] = os.urandom(4).hex()  # the client has begun the run, and its id stays in use
    elif needed:
        _say_required(url, bound, why)
        raise _error("W&B at %s did not answer within %g s: %s" % (url, bound, why))
    return _offline(original, given, url, bound, why, inputs)


def _by_name(function, args, kwargs):
    """The arguments of a call by their names.

    Raises:
        TypeError: They do not fit, or not all have a name.
    """
    import inspect

    signature = inspect.signature(function)
    nameless = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    if any(one.kind in nameless for one in signature.parameters.values()):
        raise TypeError("%s has parameters without a name" % (function,))
    return dict(signature.bind(*args, **kwargs).arguments)


def _offline(original, given, url, bound, why, inputs):
    with _alarm(url, bound + _GRACE):
        run = original(**dict(given, mode="offline"))
    try:
        from ..checkpoints import offline_run

        where = offline_run.remember(run, url, inputs())
    except Exception as error:
        where = None
        notice.debug("no outbox entry for the offline run: %r" % (error,))
    notice.warning(
        "W&B at %s does not answer (%s): the run %s is offline. %s"
        % (
            url,
            why,
            run.id,
            "The next start or `nemotron-artifact flush%s` sends it, from %s" % (where[0] and " " + where[0], where[1])
            if where
            else "Send it later with `wandb sync`; it lies below %s" % os.path.dirname(str(getattr(run, "dir", "?"))),
        )
    )
    return run


def _say_required(url, bound, why):
    notice.warning(
        "W&B at %s does not answer within %g s (%s), and this job requires it. With `run.wandb.required: false`, or "
        "%s=0, it trains on offline and sends the run later; %s is the bound"
        % (url, bound, why, REQUIRED_VARIABLE, TIMEOUT_VARIABLE)
    )


def _required(environ=os.environ):
    said = environ.get(REQUIRED_VARIABLE)
    on = flags.is_on(said) if said else None
    if said and on is None:
        notice.warning("%s is %r, which is neither on nor off: the config decides" % (REQUIRED_VARIABLE, said))
    return (handoff.read().get("wandb") or {}).get("required") is not False if on is None else on


def _bound(environ=os.environ):
    try:
        return min(max(1.0, float(environ[TIMEOUT_VARIABLE])), threading.TIMEOUT_MAX / 2)
    except (KeyError, ValueError):
        return BOUND


def _server(given):
    """The address of the server for this call, and whether it can be reached without the client.

    Only the client knows the way through a proxy of its settings. The address is None if the call needs no server.
    """
    from urllib.parse import urlsplit

    wandb = sys.modules["wandb"]
    settings = given.get("settings")
    # A Settings object has defaults for unset fields. Only fields that the caller has set belong to this call.
    chosen = settings if isinstance(settings, dict) else getattr(settings, "model_fields_set", ())

    def of_call(name):
        if name not in chosen:
            return None
        return settings[name] if isinstance(settings, dict) else getattr(settings, name)

    if getattr(wandb, "run", None) is not None:
        return None, False
    mode = given.get("mode") or of_call("mode") or os.environ.get("WANDB_MODE") or "online"
    if mode not in ("online", "shared") or flags.is_on(os.environ.get("WANDB_DISABLED")):
        return None, False
    known = wandb.setup().settings
    if getattr(known, "mode", None) in ("offline", "disabled") and not (given.get("mode") or of_call("mode")):
        return None, False
    proxied = any(getattr(known, name, None) or of_call(name) for name in ("http_proxy", "https_proxy", "x_proxies"))
    url = str(of_call("base_url") or known.base_url).rstrip("/")
    usable = urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname
    return (url, not proxied) if usable else (None, False)


def _silence(url, bound):
    """Ask until there is an answer. Return None, or the reason why there was none within `bound` seconds."""
    import urllib.request

    last = ["no answer"]
    answered = threading.Event()
    # Client and Python read proxy variables differently (NO_PROXY), so try both ways. An answer on either way counts.
    ways = (False, True) if urllib.request.getproxies() else (False,)

    def ask():
        deadline = time.monotonic() + bound
        while time.monotonic() < deadline:
            for direct in ways:
                problem = _ask(url, min(_ATTEMPT, max(1.0, bound / 3)), direct)
                if problem is None:
                    answered.set()
                    return
                last[0] = problem
            time.sleep(_PAUSE)

    # Ask on a thread of its own: the look-up of a host name has no bound.
    threading.Thread(target=ask, name="nemotron-exec-wandb-probe", daemon=True).start()
    return None if answered.wait(bound) else last[0]


def _ask(url, seconds, direct):
    """The reason why one request has no answer; None if it has one, or if only the client can tell."""
    import urllib.error
    import urllib.request

    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if direct else []))
    headers = {"Content-Type": "application/json", "User-Agent": "nemotron-exec", **_credentials(url)}
    # The scheme is http or https: `_server` has checked it.
    request = urllib.request.Request(url + "/graphql", _QUERY, headers)  # noqa: S310
    try:
        opener.open(request, timeout=seconds).close()
    except urllib.error.HTTPError as error:
        return "HTTP %d" % error.code if error.code >= 500 or error.code == 429 else None
    except (OSError, EOFError) as error:
        reason = getattr(error, "reason", None) or error
        if "SSL" in type(reason).__name__ or "unknown url type" in str(reason):
            return None  # the client may have other certificates, or another transport
        return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    except Exception as error:
        return type(error).__name__  # an error of http.client: the answer was not HTTP
    return None


def _credentials(url):
    """The header with the client's key, from the environment or netrc: a front end may answer only with a key."""
    import base64

    key = os.environ.get("WANDB_API_KEY")
    if not key:
        import netrc
        from urllib.parse import urlsplit

        try:
            found = netrc.netrc().authenticators(urlsplit(url).hostname)
        except (OSError, netrc.NetrcParseError):
            found = None
        key = found[2] if found else None
    if not key:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(b"api:" + key.encode("utf-8", "replace")).decode("ascii")}


def _bounded(given, bound):
    """The call's arguments with `init_timeout`, unless the caller or the environment sets it."""
    settings = given.get("settings")
    if "WANDB_INIT_TIMEOUT" in os.environ:
        return given
    if settings is None:
        settings = {"init_timeout": bound}
    elif isinstance(settings, dict):
        settings = dict({"init_timeout": bound}, **settings)
    elif "init_timeout" not in getattr(settings, "model_fields_set", ("init_timeout",)):
        settings = settings.model_copy()
        settings.init_timeout = bound
    return dict(given, settings=settings)


@contextlib.contextmanager
def _alarm(url, seconds):
    """Raise in the main thread after `seconds`. That ends a wait of the client that has no bound.

    No alarm is set if the program uses SIGALRM itself, or calls `wandb.init` on another thread.
    """
    usable = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
        and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    )
    if not usable:
        yield
        return

    def ring(_number, _frame):
        raise _error("W&B at %s: timed out after %g s" % (url, seconds))

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _error(text):
    """The client's own error type, which frameworks may handle."""
    kind = getattr(sys.modules.get("wandb.errors"), "CommError", RuntimeError)
    return kind(notice.redact(text))


def _is_outage(error):
    text = str(error).lower()
    return any(sign in text for sign in _OUTAGE)


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]
