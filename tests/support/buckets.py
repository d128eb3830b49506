"""A bucket for tests: moto's S3 server on the loopback."""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.request


@contextlib.contextmanager
def s3(bucket="artifacts"):
    """Start a new server with one bucket; gives the environment for processes that use it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url, region = f"http://{host}:{port}", "us-east-1"
    try:
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        boto3.client("s3", endpoint_url=url, region_name=region, **keys).create_bucket(Bucket=bucket)
        yield {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": region, **{k.upper(): v for k, v in keys.items()}}
    finally:
        # All moto servers of a process share their buckets. Reset them, so that the next server begins empty.
        with contextlib.suppress(OSError):
            urllib.request.urlopen(urllib.request.Request(url + "/moto-api/reset", method="POST"), timeout=10).close()
        server.stop()


class Requests:
    """The requests to moto's servers in this process, and the largest number of them at one time."""

    def __init__(self):
        self.seen = []
        self.most = 0
        self._at_once = 0
        self._lock = threading.Lock()

    def begin(self, what):
        with self._lock:
            self.seen.append(what)
            self._at_once += 1
            self.most = max(self.most, self._at_once)

    def end(self):
        with self._lock:
            self._at_once -= 1

    def clear(self):
        self.seen, self.most = [], 0


@contextlib.contextmanager
def slow(seconds):
    """Let moto pause for `seconds` before each answer; gives the requests that it sees."""
    from werkzeug.serving import WSGIRequestHandler

    requests, run = Requests(), WSGIRequestHandler.run_wsgi

    def paused(handler):
        requests.begin(f"{handler.command} {handler.path}")
        time.sleep(seconds)
        try:
            run(handler)
        finally:
            requests.end()

    WSGIRequestHandler.run_wsgi = paused
    try:
        yield requests
    finally:
        WSGIRequestHandler.run_wsgi = run
