"""A real Slurm on one machine: a login node, and virtual nodes that are separate like real nodes.

    login (slurmctld, munged, and the tests' sbatch and srun)  10.213.0.254
       |  bridge
    node1 10.213.0.1, node2 10.213.0.2, ...                    (slurmd and its steps)

A node is one process tree in namespaces of its own, so it has its own host name, address, PIDs, /tmp, /var/tmp and
/dev/shm (node.sh). The login node has a network of its own, too. So clusters do not see each other, and the machine's
network is not changed.

Needs root and the Debian packages of `.ci/engines`. The cluster ends with the process that started it, however that
process ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SUBNET = "10.213.0"
# The times are seconds in place of a real cluster's minutes. There are no cgroups and no accounting database.
CONFIGURATION = """\
ClusterName=virtual
SlurmctldHost=login({subnet}.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={directory}/munge.socket,cred_expire=5
SlurmctldPort=6817
SlurmdPort=6818
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/nodes/%n/slurmd.pid
SlurmdSpoolDir={directory}/nodes/%n/spool
StateSaveLocation={directory}/state
SlurmctldLogFile={directory}/log/slurmctld.log
SlurmdLogFile={directory}/log/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
MpiDefault=none
GresTypes=gpu
AccountingStorageType=accounting_storage/none
MinJobAge=86400
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=100000,bf_interval=1,batch_sched_delay=0
KillWait=3
SlurmdTimeout=8
SlurmctldTimeout=30
MessageTimeout=10
BatchStartTimeout=10
ReturnToService=2
JobRequeue=1
RequeueExit=75
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE DefaultTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""


class Cluster:
    """A running cluster.

    Args:
        directory: The directory for configuration, state and logs. All nodes see it.
        shared: Further directories that all nodes see. Paths outside /tmp, /var/tmp and /dev/shm are always seen.
        nodes: Number of nodes besides the login node.
    """

    def __init__(self, directory: Path, *, shared: tuple[Path, ...] = (), nodes: int = 4) -> None:
        self.directory = directory
        self.names = [f"node{number}" for number in range(1, nodes + 1)]
        # Sorted, so that a directory comes before directories inside it.
        self._shared = sorted({str(path.resolve()) for path in (directory, ROOT, Path(sys.prefix), *shared)})
        self._daemons: dict[str, subprocess.Popen] = {}

    # -- starting and ending ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the cluster; returns when all nodes take jobs."""
        for name in ("log", "state", "munge", "gpu", "nodes"):
            (self.directory / name).mkdir(parents=True)
        self._write_configuration()
        self._login()
        for name in self.names:
            self._start_node(name)
        self.until(self._all_idle, 60, "all nodes are idle")

    def stop(self) -> None:
        """End all processes of `start`."""
        for daemon in reversed(self._daemons.values()):
            daemon.kill()
            daemon.wait()
        self._daemons.clear()

    def _write_configuration(self) -> None:
        nodes = "\n".join(
            f"NodeName={name} NodeAddr={self.address(name)} CPUs=16 RealMemory=4000 Gres=gpu:8 State=UNKNOWN"
            for name in self.names
        )
        values = {"subnet": SUBNET, "directory": self.directory, "nodes": nodes}
        (self.directory / "slurm.conf").write_text(CONFIGURATION.format(**values))
        # The GPUs exist only by name: without cgroups any file can be the device.
        for number in range(8):
            (self.directory / "gpu" / str(number)).touch()
        gpus = "".join(f"Name=gpu File={self.directory}/gpu/{number}\n" for number in range(8))
        (self.directory / "gres.conf").write_text(gpus)
        # slurmd still loads a plugin for cgroups. The plugin for version 2 needs systemd.
        (self.directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        (self.directory / "plugstack.conf").touch()
        known = [line for line in Path("/etc/hosts").read_text().splitlines() if not re.search(r"\bnode\d+\b", line)]
        names = [f"{SUBNET}.254 login", *(f"{self.address(name)} {name}" for name in self.names)]
        (self.directory / "hosts").write_text("\n".join([*known, *names]) + "\n")
        key = self.directory / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)

    def _login(self) -> None:
        pid = self._daemon("login", "unshare", "--net", "--uts", "--mount", "sleep", "infinity")
        self.until(lambda: _has_own_network(pid), 10, "the login node has a network of its own")
        at = f"""
            hostname login
            mount --bind {self.directory}/hosts /etc/hosts
            ip link set lo up
            ip link add br0 type bridge
            ip address add {SUBNET}.254/24 dev br0
            ip link set br0 up
        """
        self.run("sh", "-ec", at)
        munge = self.directory / "munge"
        socket_path = self.directory / "munge.socket"
        self._daemon(
            "munged",
            *(*self._inside(), "munged", "--foreground", "--force", f"--key-file={munge}/key"),
            *(f"--socket={socket_path}", f"--pid-file={munge}/pid", f"--seed-file={munge}/seed"),
            *(f"--log-file={self.directory}/log/munged.log", "--num-threads=2"),
        )
        self.until(lambda: _accepts(socket_path), 10, "munged answers")
        self._daemon("slurmctld", *self._inside(), "slurmctld", "-D", "-c")

    def _start_node(self, name: str) -> None:
        pid = self._daemon(
            name,
            *("unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child"),
            *(str(HERE / "node.sh"), name, self.address(name), str(self.directory), *self._shared),
        )
        self.until(lambda: _has_own_network(pid), 10, f"{name} has a network of its own")
        self.run(
            *("sh", "-ec", 'ip link add "$0" type veth peer name eth0 netns "$1"; ip link set "$0" master br0 up'),
            *(f"{name}-{pid}", str(pid)),
        )

    def _daemon(self, name: str, *words: str) -> int:
        log = (self.directory / "log" / f"{name}.out").open("ab")
        with log:
            self._daemons[name] = subprocess.Popen(
                # The kernel kills the daemon when this process ends, even by SIGKILL.
                ["setpriv", "--pdeathsig", "KILL", *words],
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._daemons[name].pid

    def address(self, name: str) -> str:
        """The address of a node."""
        return f"{SUBNET}.{self.names.index(name) + 1}"

    # -- using ------------------------------------------------------------------------------------------------------

    def environ(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """The environment of a person on the login node."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "PYTEST_"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin", "/sbin"])
        return {**kept, "PATH": path, "SLURM_CONF": str(self.directory / "slurm.conf"), "LC_ALL": "C", **(more or {})}

    def _inside(self, cwd: Path | None = None) -> list[str]:
        return [
            *("nsenter", f"--target={self._daemons['login'].pid}", "--net", "--uts", "--mount"),
            f"--wdns={cwd or self.directory}",
        ]

    def run(self, *words: str, env=None, cwd=None, check=True, timeout=60) -> subprocess.CompletedProcess[str]:
        """Run a command on the login node."""
        done = subprocess.run(
            [*self._inside(cwd), *map(str, words)],
            env=self.environ(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def on(self, name: str, *words: str, **options) -> subprocess.CompletedProcess[str]:
        """Run a command on a node without Slurm."""
        return self.run(*self.words_on(name), *words, **options)

    def words_on(self, name: str) -> list[str]:
        """The words before a command to run on a node without Slurm."""
        outer = self._daemons[name].pid
        inner = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0]
        return ["nsenter", "--all", f"--target={inner}", "--"]

    def fail(self, name: str) -> None:
        """Cut the power of a node."""
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def repair(self, name: str) -> None:
        """Start a node again whose power was cut."""
        self._start_node(name)
        self.until(self._all_idle, 60, "all nodes are idle")

    def submit(self, *words: str, env=None, cwd=None) -> Job:
        """`sbatch WORDS`; with `--wrap`, or with a script and its arguments."""
        done = self.run("sbatch", "--parsable", *words, env=env, cwd=cwd)
        return Job(self, done.stdout.strip().partition(";")[0])

    def jobs_of(self, array: str) -> list[Job]:
        """The tasks of a job array, in order; of a heterogeneous job its components."""
        shown = self.run("scontrol", "--oneliner", "show", "job", array).stdout.splitlines()
        return [Job(self, match[1]) for line in shown if (match := re.match(r"JobId=(\d+)", line))][::-1]

    def until(self, holds, seconds: float, what: str, output=lambda: ""):
        """Wait until `holds()` is true, and return what it returned.

        Raises:
            AssertionError: It is not true after so many seconds. The text has the result of `output()`, and the last
                lines of the daemons' logs.
        """
        end = time.monotonic() + seconds
        while not (found := holds()):
            if time.monotonic() > end:
                logs = [f"{path}:\n{path.read_text()[-400:]}" for path in sorted(self.directory.glob("log/slurm*.log"))]
                raise AssertionError(f"not after {seconds:g} s: {what}\n{output()}\n" + "\n".join(logs))
            time.sleep(0.05)
        return found

    def _all_idle(self) -> bool:
        done = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t", check=False)
        return sorted(done.stdout.splitlines()) == [f"{name} idle" for name in sorted(self.names)]


class Job:
    """A job that was submitted."""

    def __init__(self, cluster: Cluster, number: str) -> None:
        self.cluster, self.number = cluster, number

    def show(self) -> dict[str, str]:
        """The fields of `scontrol show job`."""
        done = self.cluster.run("scontrol", "--oneliner", "show", "job", self.number)
        return dict(word.split("=", 1) for word in done.stdout.splitlines()[0].split() if "=" in word)

    def wait_for(self, *states: str, seconds: float = 90) -> dict[str, str]:
        """Wait until the job is in one of the states."""

        def there():
            shown = self.show()
            return shown if shown["JobState"] in states else None

        return self.cluster.until(there, seconds, f"job {self.number} is {' or '.join(states)}", self.output)

    def end(self, *, seconds: float = 90) -> tuple[str, str]:
        """Wait for the end of the job; its state and its exit code, such as ("FAILED", "125:0")."""
        shown = self.wait_for(
            *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "OUT_OF_MEMORY"),
            seconds=seconds,
        )
        return shown["JobState"], shown["ExitCode"]

    def output(self) -> str:
        """The output of the job's batch script and its steps."""
        with contextlib.suppress(OSError):
            return Path(self.show()["StdOut"]).read_text(errors="replace")
        return ""

    def signal(self, name: str, *options: str) -> None:
        """`scancel --signal`."""
        self.cluster.run("scancel", f"--signal={name}", *options, self.number)

    def requeue(self) -> None:
        """`scontrol requeue`, without the minutes for which Slurm holds a requeued job."""
        self.cluster.run("scontrol", "requeue", self.number)

    def cancel(self) -> None:
        """`scancel`."""
        self.cluster.run("scancel", self.number)


def _has_own_network(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    except OSError:
        return False


def _accepts(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        return True
    return False
