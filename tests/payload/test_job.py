"""State of a process: one instance of each part, and a new one in a forked child."""

import subprocess
import sys
import threading

from nemotron_exec.sitecustomize.payload import job

# The main thread forks while other threads hold the locks of this process's parts.
FORK = """
import os
from nemotron_exec.sitecustomize.payload import job
from nemotron_exec.sitecustomize.payload.checkpoints import commit, pruning, same_save

class Anew:
    pass

same_save.own({"checkpoint_path": "/out/iter_1", "iteration": 1, "event": "e"})
of_parent = job.part(Anew), commit.committer()
assert job.part(Anew) is of_parent[0] and commit.committer() is of_parent[1]
job.once("said")
for lock in (job.part(same_save._Known).lock, job.part(pruning._Alive).lock, commit.committer()._changed):
    lock.acquire()
child = os.fork()
if child == 0:
    pruning.look("/out")
    known = same_save.is_known("/out/iter_1", 1), commit.committer().pending()
    print(known, job.once("said"), job.once("by the child"), job.part(Anew) is of_parent[0], flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(job.once("by the child"), job.part(Anew) is of_parent[0])
"""


def test_a_forked_child_waits_for_no_lock_of_its_parents_threads_and_knows_what_the_parent_knew():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["(True, []) False True False", "True True"], done.stderr


def test_of_threads_that_ask_at_once_one_is_the_first_and_all_get_the_same_part():
    class Part:
        pass

    start = threading.Barrier(8)
    got = []

    def ask():
        start.wait()
        got.append((job.once("in a test", 1), job.part(Part)))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(first for first, _ in got) == 1
    assert len({part for _, part in got}) == 1
