"""One launcher resolves, and all others get its answer: real processes on one directory."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from agree_launchers import agreed, eventually, slurm, worker
from nemotron_exec.rendezvous.answer import Answer
from nemotron_exec.rendezvous.relay import Relay

# -- one answer -------------------------------------------------------------------------------------------------------


def test_two_nodes_on_one_directory_resolve_once(launchers):
    results = launchers.run(2, work=0.5)

    assert launchers.resolvers == [agreed(results)["made_by"]]
    assert [result["led"] for result in results] == [True, False]


def test_a_single_launcher_waits_for_nobody_and_loads_no_filelock(launchers):
    [result] = launchers.run(1)

    assert result["code"] == 0
    assert result["led"] is True
    assert result["filelock"] is False


@pytest.mark.parametrize(
    ("hangs", "bound"), [({"hang": True, "stall": 0.5}, "--stall"), ({"until": "/never", "timeout": 0.5}, "--timeout")]
)
def test_a_single_launcher_that_hangs_is_ended(launchers, hangs, bound):
    spec = {"stall": 3600.0, "timeout": 3600.0, **hangs}
    result = launchers.result(launchers.start(0, 1, **spec))

    assert result["code"] == 75
    assert bound in result["error"]
    assert launchers.unfinished() == []


def test_no_thread_is_left_when_the_agreement_is_there(launchers):
    assert [result["threads"] for result in launchers.run(3, work=0.2)] == [1, 1, 1]


def test_sixty_four_launchers_get_one_answer(launchers):
    results = launchers.run(64, work=1.0)

    assert launchers.resolvers == [agreed(results)["made_by"]]
    assert launchers.unfinished() == []


def test_workers_of_one_node_hand_the_answer_on_among_themselves(launchers, tmp_path):
    processes = []
    for index in range(8):
        local = tmp_path / f"node{index // 4}"
        local.mkdir(exist_ok=True)
        processes.append(
            launchers.start(index, 8, worker(index, 2, 4), job="j", local=str(local), work=2.0, timing={"retry": 600.0})
        )
    results = [launchers.result(process) for process in processes]

    assert launchers.resolvers == [agreed(results)["made_by"]]
    # They look on arrival, and when the head start of launcher 0 is over. Otherwise they look only at their node's
    # copy.
    assert all(sibling["looks"] <= 3 for sibling in results[5:])


def test_launchers_of_unknown_rank_let_the_first_lead(launchers):
    command = "torchrun --nnodes 1:4 --rdzv-backend c10d --rdzv-endpoint h:1 train.py"
    processes = [
        launchers.start(index, 3, {}, command=command, job="elastic", host=f"host{index}", work=0.5)
        for index in range(3)
    ]
    first = agreed([launchers.result(process) for process in processes])
    late = launchers.result(launchers.start(3, 4, {}, command=command, job="elastic", host="host3"))

    assert launchers.resolvers == [first["made_by"]]
    assert late["answer"] == first
    assert late["reused"] is True


# -- leaders that die, stop, fail or hang -----------------------------------------------------------------------------


def test_another_takes_over_when_the_leader_is_killed(launchers):
    for index in range(4):
        launchers.start(index, 4, work=1.5)
    leader = launchers.leader()
    leader.kill()

    answer = agreed(launchers.others(leader))

    assert answer["made_by"] == launchers.resolvers[-1] != leader.pid
    assert launchers.unfinished() == []


def test_a_leader_on_a_lost_node_is_replaced_when_its_heartbeat_stops(launchers):
    for index in range(3):
        launchers.start(index, 3, work=1.0, host=f"host{index}")
    leader = launchers.leader()
    leader.kill()

    answer = agreed(launchers.others(leader))

    assert len(launchers.resolvers) == 2
    assert answer["made_by"] == launchers.resolvers[-1] != leader.pid


def test_a_leader_that_was_stopped_adopts_the_answer_of_its_successor(launchers):
    for index in range(3):
        launchers.start(index, 3, work=1.0, steps=10, host=f"host{index}")
    leader = launchers.leader()
    leader.send_signal(signal.SIGSTOP)
    others = launchers.others(leader)
    leader.send_signal(signal.SIGCONT)

    answer = agreed([launchers.result(leader), *others])

    assert answer["made_by"] != leader.pid
    assert launchers.unfinished() == []


def test_a_leader_that_was_stopped_and_then_fails_does_not_spoil_its_successors_answer(launchers):
    first = launchers.start(0, 3, work=1.0, fail=125, host="host0")
    assert launchers.leader() is first
    first.send_signal(signal.SIGSTOP)
    others = [launchers.start(index, 3, work=3.0, host=f"host{index}") for index in (1, 2)]
    eventually(lambda: len(launchers.resolvers) == 2)
    first.send_signal(signal.SIGCONT)

    agreed([launchers.result(process) for process in [first, *others]])


@pytest.mark.parametrize("code", [75, 125])
def test_waiters_fail_at_once_with_the_leaders_error(launchers, code):
    results = launchers.run(5, fail=code, work=0.3, timeout=3600.0)

    assert {result["code"] for result in results} == {code}
    [error] = {result["error"] for result in results}
    assert error.startswith("a reference to be found: nothing, says launcher")
    assert len(launchers.resolvers) == 1
    assert launchers.unfinished() == []


def test_a_waiter_that_is_terminated_ends_with_the_jobs_error_if_there_is_one(launchers):
    leader = launchers.start(0, 2, fail=75, until=str(launchers.directory / "over"))
    assert launchers.leader() is leader
    waiter = launchers.start(1, 2, threshold="debug")
    next(line for line in waiter.stderr if "the lease is held" in line)
    waiter.send_signal(signal.SIGSTOP)
    (launchers.directory / "over").touch()
    assert launchers.result(leader)["code"] == 75
    # `srun --kill-on-bad-exit` does this as soon as the first launcher has ended.
    waiter.terminate()
    waiter.send_signal(signal.SIGCONT)

    assert launchers.result(waiter)["code"] == 75


def test_a_waiter_that_is_terminated_before_there_is_an_answer_ends_by_the_signal(launchers):
    leader = launchers.start(0, 2, until=str(launchers.directory / "over"))
    assert launchers.leader() is leader
    waiter = launchers.start(1, 2, threshold="debug")
    next(line for line in waiter.stderr if "the lease is held" in line)
    waiter.terminate()

    assert launchers.result(waiter)["code"] == 128 + signal.SIGTERM
    (launchers.directory / "over").touch()
    assert launchers.result(leader)["code"] == 0


def test_a_leader_that_has_published_its_error_ignores_termination(launchers):
    # Its 4,095 waiters look seldom. The leader stays until each of them has looked.
    leader = launchers.start(0, 4096, slurm(0, 4096), fail=75)
    eventually(lambda: list(launchers.state.glob("nemotron-exec-*/jobs/*/*.k/answer.1.json")))
    eventually(lambda: _ignores(leader.pid, signal.SIGTERM))
    leader.terminate()

    assert launchers.result(leader)["code"] == 75


def _ignores(pid: int, number: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        status = Path(f"/proc/{pid}/status").read_text()
        ignored = int(next(line for line in status.splitlines() if line.startswith("SigIgn")).split()[1], 16)
        return bool(ignored >> (number - 1) & 1)
    return True


def test_a_bug_in_the_leader_is_everybodys_error(launchers):
    results = launchers.run(3, crash=True, timeout=3600.0)

    assert {result["code"] for result in results} == {125}
    assert all("ZeroDivisionError: a bug" in result["error"] for result in results)
    assert not any("Traceback" in result["stderr"] for result in results)


def test_a_leader_without_progress_is_everybodys_error(launchers):
    results = launchers.run(3, hang=True, stall=1.0, timeout=3600.0)

    assert {result["code"] for result in results} == {75}
    assert len({result["error"] for result in results}) == 1
    assert "--stall" in results[0]["error"]


def test_a_leader_that_makes_progress_for_ever_ends_with_the_timeout(launchers):
    # The waiter's own bound is an hour, so the leader's error ends it.
    leader = launchers.start(0, 2, work=3600.0, steps=36000, timeout=2.0)
    waiter = launchers.start(1, 2, timeout=3600.0)
    results = [launchers.result(leader), launchers.result(waiter)]

    assert {result["code"] for result in results} == {75}
    [error] = {result["error"] for result in results}
    assert error.startswith("to resolve this job's artifacts in the time given (--timeout): launcher 0 on ")
    assert "was still busy with data" in error


def test_a_terminated_leader_leaves_nothing_and_is_replaced(launchers):
    for index in range(3):
        launchers.start(index, 3, work=2.0, host=f"host{index}")
    leader = launchers.leader()
    leader.terminate()

    assert launchers.result(leader)["code"] == 128 + signal.SIGTERM
    agreed(launchers.others(leader))
    assert launchers.unfinished() == []


def test_launcher_0_that_never_appears_is_not_waited_for(launchers):
    processes = [launchers.start(index, 3, work=0.2) for index in (1, 2)]
    answer = agreed([launchers.result(process) for process in processes])
    late = launchers.result(launchers.start(0, 3))

    assert late["answer"] == answer
    assert len(launchers.resolvers) == 1


# -- directories that are not shared ----------------------------------------------------------------------------------


def test_a_directory_that_only_looks_shared_is_noticed(launchers, tmp_path):
    leader = launchers.start(0, 2, work=0.1)
    other = launchers.start(1, 2, state=str(tmp_path / "elsewhere"), timing={"unshared": 2.0})
    result = launchers.result(other)

    assert launchers.result(leader)["code"] == 0
    assert result["code"] == 75
    assert "is not shared" in result["error"]
    assert str(tmp_path / "elsewhere") in result["error"]
    assert "--rendezvous c10d" in result["error"]


def test_several_nodes_without_a_common_identity_are_an_error_at_once(launchers):
    command = "torchrun --nnodes 2 --node-rank 0 train.py"
    result = launchers.result(launchers.start(0, 2, {}, command=command))

    assert result["code"] == 125
    assert "--job-id" in result["error"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_named_before_anything_is_resolved(launchers, number):
    result = launchers.result(launchers.start(0, 2, refuse_links=number))

    assert result["code"] == 125
    assert "hard links" in result["error"]
    assert "--rendezvous c10d" in result["error"]
    assert launchers.resolvers == []


def test_a_full_disk_is_a_temporary_error(launchers):
    result = launchers.result(launchers.start(0, 2, refuse_links=errno.ENOSPC))

    assert result["code"] == 75
    assert "no space left" in result["error"]


def test_a_view_of_the_directory_that_is_three_seconds_old_only_delays(launchers):
    late = {"late": 3.0, "timing": {"unshared": 30.0, "settle": 6.0}}
    processes = [launchers.start(0, 3, work=0.5), *(launchers.start(index, 3, **late) for index in (1, 2))]

    agreed([launchers.result(process) for process in processes])


def test_a_view_that_is_only_renewed_by_a_change_of_ones_own_shows_the_answer(launchers):
    # The leader dies while its lease is valid for ten minutes, so the waiter must find the answer itself.
    long = {"lease": 600.0, "heartbeat": 1.0, "unshared": 60.0}
    leader = launchers.start(0, 2, until=str(launchers.directory / "over"), host="host0", dies="published", timing=long)
    assert launchers.leader() is leader
    waiter = launchers.start(1, 2, host="host1", stale=True, threshold="debug", timing=long)
    next(line for line in waiter.stderr if "the lease is held by host0" in line)
    (launchers.directory / "over").touch()

    assert launchers.result(waiter)["answer"]["made_by"] == leader.pid


def test_a_link_that_was_made_and_answered_with_exists_has_published(launchers):
    results = launchers.run(2, repeat_links=True)

    agreed(results)
    assert sorted(result["led"] for result in results) == [False, True]


# -- restarts and other attempts --------------------------------------------------------------------------------------


def test_a_requeued_job_keeps_its_answer(launchers):
    first = agreed(launchers.run(2))
    again = [
        launchers.start(index, 2, slurm(index, 2, SLURM_RESTART_COUNT="1"), value="v2", host="another")
        for index in range(2)
    ]
    results = [launchers.result(process) for process in again]

    assert agreed(results) == first
    assert [result["reused"] for result in results] == [True, True]


def test_refresh_after_a_requeue_asks_again_once(launchers):
    agreed(launchers.run(2))
    environ = [slurm(index, 2, SLURM_RESTART_COUNT="1") for index in range(2)]
    again = [launchers.start(index, 2, environ[index], value="v2", refresh=True) for index in range(2)]

    assert agreed([launchers.result(process) for process in again])["value"] == "v2"
    assert len(launchers.resolvers) == 2


def test_refresh_concerns_no_launcher_that_arrives_late(launchers):
    first = agreed(launchers.run(2, refresh=True))
    late = launchers.result(launchers.start(5, 2, slurm(5, 6), refresh=True))

    assert late["answer"] == first


def test_a_requeued_job_does_not_inherit_an_error(launchers):
    assert launchers.result(launchers.start(0, 1, slurm(0, 2), fail=75, timing={"head_start": 0.0}))["code"] == 75
    again = [launchers.start(index, 2, slurm(index, 2, SLURM_RESTART_COUNT="1")) for index in range(2)]

    agreed([launchers.result(process) for process in again])


def test_a_job_started_again_under_its_own_id_does_not_inherit_an_error(launchers):
    assert {result["code"] for result in launchers.run(2, job="mine", fail=75)} == {75}

    assert agreed(launchers.run(2, job="mine"))["value"] == "v1"


def test_a_job_id_that_is_given_out_again_begins_anew(launchers):
    def start(when: str, value: str):
        return [
            launchers.start(index, 2, slurm(index, 2, SLURM_JOB_START_TIME=when), value=value) for index in range(2)
        ]

    yesterday = agreed([launchers.result(process) for process in start("1773000000", "v1")])
    today = agreed([launchers.result(process) for process in start("1773086400", "v2")])
    assert (yesterday["value"], today["value"]) == ("v1", "v2")

    requeued = [
        launchers.start(
            index, 2, slurm(index, 2, SLURM_JOB_START_TIME="1773090000", SLURM_RESTART_COUNT="1"), value="v3"
        )
        for index in range(2)
    ]
    assert agreed([launchers.result(process) for process in requeued])["value"] == "v2"


def test_a_worker_that_torchrun_restarts_keeps_its_answer(launchers):
    def start(restart: str, value: str):
        return [
            launchers.start(index, 2, {**worker(index, 1, 2), "TORCHELASTIC_RESTART_COUNT": restart}, value=value)
            for index in range(2)
        ]

    first = agreed([launchers.result(process) for process in start("0", "v1")])

    assert agreed([launchers.result(process) for process in start("1", "v2")]) == first


def test_a_hot_spare_of_ft_launcher_adopts_what_its_array_has_agreed_on(launchers):
    def environ(task: int) -> dict[str, str]:
        array = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_START_TIME": str(1000 + task)}
        return {**slurm(0, 1), "SLURM_JOB_ID": str(41 + task), **array}

    command = "ft_launcher --nnodes 2:3 train.py"
    processes = [launchers.start(0, 1, environ(task), command=command) for task in range(2)]
    first = agreed([launchers.result(process) for process in processes])
    an_hour_ago = time.time() - 3600
    for path in launchers.meeting.rglob("*"):
        os.utime(path, (an_hour_ago, an_hour_ago))
    spare = launchers.result(launchers.start(0, 1, environ(2), command=command, value="v2"))

    assert spare["answer"] == first


def test_tasks_of_an_array_are_jobs_of_their_own(launchers):
    values = [
        launchers.result(
            launchers.start(
                0,
                1,
                {
                    **slurm(0, 1),
                    "SLURM_JOB_ID": str(41 + task),
                    "SLURM_ARRAY_JOB_ID": "40",
                    "SLURM_ARRAY_TASK_ID": str(task),
                },
                value=f"v{task}",
            )
        )["answer"]["value"]
        for task in range(2)
    ]

    assert values == ["v0", "v1"]


def test_two_steps_of_one_job_with_different_configs_do_not_meet(launchers):
    processes = [
        launchers.start(index, 2, slurm(index, 2, SLURM_STEP_ID=step), key=f"config{step}", value=f"v{step}", work=0.5)
        for step in ("1", "2")
        for index in range(2)
    ]
    results = [launchers.result(process) for process in processes]

    assert agreed(results[:2])["value"] == "v1"
    assert agreed(results[2:])["value"] == "v2"


def test_two_programs_in_one_step_do_not_meet(launchers):
    processes = [
        launchers.start(index, 2, key=key, program=key, value=key, work=0.5)
        for key in ("one", "two")
        for index in range(2)
    ]
    results = [launchers.result(process) for process in processes]

    assert agreed(results[:2])["value"] == "one"
    assert agreed(results[2:])["value"] == "two"


def test_a_launcher_that_is_alone_in_its_program_sees_that_the_directory_is_shared(launchers):
    # A trainer on node 0, and a generation server on node 1 (srun --multi-prog).
    over = str(launchers.directory / "over")
    trainer = launchers.start(0, 2, key="one", program="train", host="host0", until=over)
    assert launchers.leader() is trainer
    server = launchers.result(launchers.start(1, 2, key="two", program="serve", host="host1"))
    Path(over).touch()

    assert server["code"] == 0
    assert launchers.result(trainer)["code"] == 0


def test_one_launcher_that_starts_again_with_its_config_changed_makes_no_mistake(launchers):
    # Like one index of a Kubernetes job, it cannot see whether its neighbour on the other machine has ended.
    first = [launchers.start(index, 2, host=f"host{index}", key="one", program="train") for index in range(2)]
    assert [launchers.result(process)["code"] for process in first] == [0, 0]
    again = launchers.result(launchers.start(1, 2, host="host1", key="two", program="train"))

    assert again["code"] == 0, again


@pytest.mark.parametrize("other", [1, 2])
def test_launchers_of_one_step_that_ask_different_questions_all_stop_and_say_in_what_they_differ(launchers, other):
    patient = {"gather": 60.0}
    processes = [
        launchers.start(
            index,
            3,
            host=f"host{index}",
            key="two" if index == other else "one",
            parts={"run.data": "blend:v2" if index == other else "blend:v1", "--backend": "auto"},
            timing=patient,
        )
        for index in range(3)
    ]
    results = [launchers.result(process) for process in processes]

    assert {result["code"] for result in results} == {125}
    for result in results:
        assert "run.data is blend:v" in result["error"]
        assert "--backend" not in result["error"]
    assert f"for launcher {other} on host{other}" in results[0]["error"]


def test_a_launcher_that_is_started_again_with_another_config_does_not_stop_the_job(launchers):
    first = agreed(launchers.run(2, host="host0"))
    # The launcher's node was replaced, and the other launchers' commands still run with the old answer.
    again = launchers.result(launchers.start(1, 2, host="host1", key="changed", value="v2"))

    assert first["value"] == "v1"
    assert again["code"] == 0


def test_a_job_that_ended_a_moment_ago_with_another_config_stops_nobody(launchers):
    assert launchers.result(launchers.start(0, 1, slurm(0, 1), key="before"))["code"] == 0
    # Launcher 1 comes first, and finds the entry of a launcher 0 with another question.
    late = launchers.start(1, 2, timing={"head_start": 0.0, "unshared": 60.0})

    assert launchers.result(late)["code"] == 0
    assert launchers.result(launchers.start(0, 2))["code"] == 0


def test_the_next_step_of_a_job_meets_by_itself_beside_the_former_one(launchers):
    first = agreed(launchers.run(2))
    second = [launchers.start(index, 2, slurm(index, 2, SLURM_STEP_ID="1"), value="v2") for index in range(2)]

    assert agreed([launchers.result(process) for process in second])["made_by"] != first["made_by"]
    assert len(list(launchers.state.glob("nemotron-exec-*/jobs/*/*.k"))) == 2


def test_two_jobs_of_one_name_do_not_meet(launchers):
    processes = [
        launchers.start(
            index, 2, {**slurm(index, 2), "SLURM_JOB_ID": job, "SLURM_JOB_NAME": "pretrain"}, value=job, work=0.3
        )
        for job in ("8", "9")
        for index in range(2)
    ]
    results = [launchers.result(process) for process in processes]

    assert [agreed(results[:2])["value"], agreed(results[2:])["value"]] == ["8", "9"]


def test_an_elastic_job_that_grows_and_shrinks_keeps_its_answer(launchers):
    environ = [{**slurm(index, 2), "SLURM_NTASKS": "2"} for index in range(2)]
    first = agreed([launchers.result(launchers.start(index, 2, environ[index])) for index in range(2)])
    grown = agreed([launchers.result(process) for process in [launchers.start(index, 4) for index in range(2, 4)]])
    alone = launchers.result(launchers.start(0, 1, slurm(0, 1), value="v2"))

    assert first == grown == alone["answer"]


# -- hostile directories ----------------------------------------------------------------------------------------------


def plant(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "directory":
        path.mkdir()
    elif kind == "giant":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind == "truncated":
        path.write_text('{"schema": 1, "job": "slurm-7.0", "conten')
    elif kind == "other":
        path.write_text('{"schema": 1, "job": "slurm-8.0", "key": "k", "round": 1}')
    elif kind == "deep":
        path.write_text("[" * 200_000)
    elif kind == "binary":
        path.write_bytes(os.urandom(4096))
    elif kind == "list":
        path.write_text("[]")


def private_directories(*paths: Path) -> None:
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)


@pytest.fixture
def meeting(launchers):
    # Make the directories that the launchers would make, so that a test can put a file there first.
    with contextlib.suppress(KeyError):
        agreed(launchers.run(1, key="other"))
    [job] = launchers.state.glob("nemotron-exec-*/jobs/*")
    private_directories(job / "0.-.k", job / "0.-.k" / "nodes")
    launchers.log.unlink()
    return job / "0.-.k"


@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "giant", "truncated", "other", "deep", "binary", "list"])
def test_what_is_no_answer_is_passed_over_with_one_line(launchers, meeting, kind):
    plant(meeting / "answer.1.json", kind)

    results = launchers.run(2, work=0.3)

    assert launchers.resolvers == [agreed(results)["made_by"]]
    for result in results:
        assert result["stderr"].count("ignoring") == 1


def test_an_answer_of_a_later_version_is_refused(launchers, meeting):
    (meeting / "answer.1.json").write_text('{"schema": 99}')
    result = launchers.run(1)[0]

    assert result["code"] == 125
    assert "later version" in result["error"]


@pytest.mark.parametrize("kind", ["fifo", "link", "truncated", "binary", "list"])
def test_a_lease_that_is_none_is_replaced(launchers, meeting, kind):
    plant(meeting / "lease", kind)
    os.utime(meeting / "lease", (0, 0), follow_symlinks=False)

    agreed(launchers.run(2))


def test_a_directory_in_place_of_the_lease_is_an_error(launchers, meeting):
    (meeting / "lease").mkdir()
    results = launchers.run(2, timeout=3.0)

    assert all(result["code"] in (75, 125) for result in results)
    assert all(str(meeting) in result["error"] for result in results)


@pytest.mark.parametrize("kind", ["fifo", "link", "giant", "truncated", "deep", "binary", "list"])
def test_progress_that_is_none_only_says_less(launchers, meeting, kind):
    process = launchers.start(1, 2, timeout=60.0, timing={"unshared": 60.0})
    eventually(lambda: list((meeting / "nodes").iterdir()))
    plant(meeting / "progress.json", kind)

    assert launchers.result(launchers.start(0, 2, work=1.0))["code"] == 0
    assert launchers.result(process)["code"] == 0


@pytest.mark.parametrize("name", ["jobs", "nodes"])
def test_a_link_in_place_of_a_directory_of_ours_is_refused(launchers, meeting, tmp_path, name):
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    path = {"jobs": meeting.parent.parent, "nodes": meeting / "nodes"}[name]
    path.rename(tmp_path / "away")
    path.symlink_to(target)

    result = launchers.run(1)[0]

    assert result["code"] == 125
    assert "a symbolic link" in result["error"]
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "open to all", "file"])
def test_workers_whose_tmpdir_was_prepared_by_somebody_ask_the_shared_directory(launchers, tmp_path, kind):
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    local = tmp_path / "local"
    local.mkdir()
    prepared = local / f"nemotron-exec-{os.geteuid()}"
    if kind == "link":
        prepared.symlink_to(target)
    elif kind == "file":
        prepared.touch()
    else:
        prepared.mkdir()
        prepared.chmod(0o777)
    processes = [launchers.start(index, 4, worker(index, 2, 2), job="j", local=str(local)) for index in range(4)]

    agreed([launchers.result(process) for process in processes])

    assert list(target.iterdir()) == []
    assert kind != "open to all" or list(prepared.iterdir()) == []


@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "giant", "truncated", "other", "deep", "binary", "list"])
def test_a_copy_of_the_answer_that_is_none_is_passed_over(tmp_path, kind):
    relay = Relay(str(tmp_path), "/meeting", "j", "k")
    assert relay.open()
    [directory] = tmp_path.glob("*/relay")
    answer = Answer("j", "k", 1, 0, None, "somebody", 1.0, {"made_by": "somebody"})
    relay.write(answer)
    [copy] = directory.iterdir()
    assert relay.read(1) == answer
    copy.unlink()
    plant(copy, kind)

    assert relay.read(1) is None


def test_copies_of_answers_long_over_are_removed(tmp_path):
    relay = Relay(str(tmp_path), "/meeting", "j", "k")
    relay.open()
    for age, name in ((31, "old.1.json"), (29, "young.1.json")):
        path = tmp_path / f"nemotron-exec-{os.geteuid()}" / "relay" / name
        path.touch()
        os.utime(path, (time.time() - 86_400 * age,) * 2)
    relay.write(Answer("j", "k", 1, 0, None, "somebody", 1.0, {}))

    names = {path.name for path in path.parent.iterdir()}
    assert "young.1.json" in names
    assert "old.1.json" not in names
    assert relay.read(1) is not None


def test_nothing_that_we_write_can_be_read_by_others(launchers):
    agreed(launchers.run(2))

    for path in launchers.state.glob("nemotron-exec-*/**/*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077 or path.name == "cfg.yaml", path


# -- state of old jobs ------------------------------------------------------------------------------------------------


def plant_old_job(launchers) -> Path:
    [state] = launchers.state.glob("nemotron-exec-*")
    (state / "cleaned").unlink(missing_ok=True)
    old = state / "jobs" / "old"
    old.mkdir()
    os.utime(old, (0, 0))
    return old


@pytest.mark.parametrize("count", [1, 2])
def test_who_leads_removes_jobs_long_over(launchers, count):
    agreed(launchers.run(count, job="one"))
    old = plant_old_job(launchers)
    agreed(launchers.run(count, job="two"))

    assert not old.exists()


def test_who_comes_late_removes_jobs_long_over(launchers):
    agreed(launchers.run(2))
    old = plant_old_job(launchers)
    assert launchers.result(launchers.start(1, 2))["reused"] is True

    assert not old.exists()


# -- people -----------------------------------------------------------------------------------------------------------


def test_waiters_say_who_leads_what_it_does_and_for_how_long(launchers):
    over = launchers.directory / "over"
    leader = launchers.start(0, 2, until=str(over))
    assert launchers.leader() is leader
    waiter = launchers.start(1, 2)
    line = next(line for line in waiter.stderr if " B/s" in line)
    over.touch()

    assert launchers.result(leader)["code"] == 0
    assert launchers.result(waiter)["code"] == 0
    assert " B of 1 kB" in line
    assert "waiting for" in line
    assert "launcher 0 on" in line
    assert f"(pid {leader.pid})" in line
    assert "data" in line


def test_one_launcher_of_a_node_speaks_for_it(launchers, tmp_path):
    processes = [
        launchers.start(index, 4, worker(index, 2, 2), job="j", local=str(tmp_path), work=1.5) for index in range(4)
    ]
    results = [launchers.result(process) for process in processes]

    agreed(results)
    assert "waiting for" in results[2]["stderr"]
    assert "waiting for" not in results[3]["stderr"]


def test_verbose_tells_each_change_of_state(launchers):
    over = launchers.directory / "over"
    leader = launchers.start(0, 2, threshold="debug", until=str(over), host="host0")
    assert launchers.leader() is leader
    waiter = launchers.start(1, 2, threshold="debug", host="host1")
    seen = []
    for line in waiter.stderr:
        seen.append(line)
        if "the lease is held by host0" in line:
            over.touch()
    result = launchers.result(leader)

    for said in ("signed in to round 1", "took the lease: launcher 0 on host0", "link won"):
        assert result["stderr"].count(said) == 1
    for said in ("signed in to round 1", "another node is here", "the lease is held by host0", "adopted the answer of"):
        assert sum(said in line for line in seen) == 1, said
