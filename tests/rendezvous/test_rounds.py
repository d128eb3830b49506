"""The protocol's decisions as tables: a launcher's view, and its action. No test here starts a process or waits."""

from __future__ import annotations

import pytest

from nemotron_exec import frozen
from nemotron_exec.place.job import JobIdentity
from nemotron_exec.place.rank import Place
from nemotron_exec.rendezvous import rounds
from nemotron_exec.rendezvous.answer import Answer, Failure
from nemotron_exec.rendezvous.rounds import Action, Bounds, Entry, Launcher, View

HOUR = 3600.0
PLACE = Place(
    index=1, count=4, node=1, nodes=4, local_index=0, local_count=1, attempt=0, source="SLURM_PROCID", contradictions=()
)
SLURM = JobIdentity("slurm-7", "SLURM_JOB_ID", shared=True)
NAMED = JobIdentity("mine", "--job-id", shared=True)
SHELL = JobIdentity("process-1", "the process that started this one", shared=False, lasting=False)
ERROR = Failure("to find a", "nothing", "Look", 125)


def me(*, job=NAMED, refresh=False, machine="here", pid=10, **place) -> Launcher:
    return Launcher(frozen.replace(PLACE, **place), job, machine, pid, "aa", refresh)


def answer(number=1, *, attempt=0, started=None, failure=None, files="files.1.ab") -> Answer:
    content = None if failure else {}
    return Answer("j", "k", number, attempt, started, "launcher 0", 0.0, content, failure, files)


def entry(
    index="1", *, number=1, node="1", machine="here", pid=9, nonce="bb", attempt=0, alive=False, age=0.0
) -> Entry:
    return Entry(number, node, index, machine, pid, nonce, attempt, alive, age)


# -- whose answer concerns whom ---------------------------------------------------------------------------------------

CONCERNS = {
    "an answer": (answer(), me(), [], 0, True),
    "an answer however old": (answer(), me(), [], 1000 * HOUR, True),
    "an answer of an earlier attempt": (answer(), me(attempt=1), [], 0, True),
    "an answer where this launcher was before": (answer(), me(), [entry()], 0, True),
    "of a shell: an answer to its siblings": (answer(), me(job=SHELL), [], 0, True),
    "of a shell: this launcher was here before": (answer(), me(job=SHELL), [entry()], 0, False),
    "of a shell: an earlier attempt": (answer(), me(job=SHELL, attempt=1), [], 0, False),
    "an error": (answer(failure=ERROR), me(), [], 0, True),
    "an error of a minute ago": (answer(failure=ERROR), me(), [], 60, False),
    "an error of an earlier attempt": (answer(failure=ERROR), me(attempt=1), [], 0, False),
    "an error where this launcher was before": (answer(failure=ERROR), me(), [entry()], 0, False),
    "an error of another round's self": (answer(failure=ERROR), me(), [entry(number=2)], 0, True),
    "an error where a sibling was before": (answer(failure=ERROR), me(), [entry("2")], 0, True),
    "an error, ranks unknown, this host was here": (
        answer(failure=ERROR),
        me(index=None, node=None),
        [entry("-")],
        0,
        True,
    ),
    "an error, ranks unknown, an earlier attempt": (answer(failure=ERROR), me(index=None, attempt=1), [], 0, False),
    "refresh, first start": (answer(), me(refresh=True), [], 0, True),
    "refresh, this launcher was here before": (answer(), me(refresh=True), [entry()], 0, False),
    "refresh, a requeue": (answer(), me(refresh=True, attempt=1), [], 0, False),
    "refresh, this launcher's own entry": (answer(), me(refresh=True), [entry(pid=10)], 0, True),
    "refresh, a living process of this number": (answer(), me(refresh=True), [entry(alive=True)], 0, True),
    "Slurm, the same start": (
        answer(started="5"),
        me(job=frozen.replace(SLURM, started="5")),
        [],
        1000 * HOUR,
        True,
    ),
    "Slurm, another start": (answer(started="4"), me(job=frozen.replace(SLURM, started="5")), [], 0, False),
    "Slurm, another start, requeued": (
        answer(started="4"),
        me(job=frozen.replace(SLURM, started="5"), attempt=1),
        [],
        0,
        True,
    ),
    "Slurm without a start, of today": (answer(), me(job=SLURM), [], 11 * HOUR, True),
    "Slurm without a start, of yesterday": (answer(), me(job=SLURM), [], 13 * HOUR, False),
}


@pytest.mark.parametrize(("found", "launcher", "entries", "age", "expected"), CONCERNS.values(), ids=CONCERNS)
def test_whose_answer_concerns_whom(found, launcher, entries, age, expected):
    assert rounds.concerns(found, launcher, age=lambda: age, entries=entries, error_life=60.0) is expected


def test_an_answer_that_concerns_everybody_is_taken_without_a_list_of_those_who_came():
    def entries():
        raise AssertionError("ten thousand names were read")
        yield

    assert rounds.concerns(answer(), me(), age=lambda: 0.0, entries=entries(), error_life=60.0)


SELVES = {
    "the same number, elsewhere": (entry(machine="there"), me(), True),
    "the same number, dead, here": (entry(), me(), True),
    "the same number, alive, here": (entry(alive=True), me(), False),
    "the same number, alive by chance, elsewhere": (entry(machine="there", pid=10), me(), True),
    "this process": (entry(pid=10), me(), False),
    "another number": (entry("2"), me(), False),
    "number unknown, this host": (entry("-"), me(index=None), True),
    "number unknown, another host": (entry("-", machine="there"), me(index=None), False),
}


@pytest.mark.parametrize(("found", "launcher", "expected"), SELVES.values(), ids=SELVES)
def test_who_is_an_earlier_self(found, launcher, expected):
    assert rounds.is_earlier_self(found, launcher) is expected


ROUNDS = {
    "nothing yet": ([], 0, (1, None)),
    "an answer": ([answer(1)], 0, (1, 1)),
    "one that does not concern": ([answer(1, failure=ERROR)], 0, (2, None)),
    "an answer after one that does not concern": ([answer(1, failure=ERROR), answer(2)], 0, (2, 2)),
    "of an earlier attempt": ([answer(1)], 1, (1, 1)),
    "of this attempt after an earlier one": ([answer(1), answer(2, attempt=1)], 1, (2, 2)),
    "the newest of several earlier ones": ([answer(1), answer(2, attempt=1)], 2, (2, 2)),
    "an earlier one before one that does not concern": ([answer(1), answer(2, failure=ERROR)], 1, (1, 1)),
}


@pytest.mark.parametrize(("published", "attempt", "expected"), ROUNDS.values(), ids=ROUNDS)
def test_which_round_a_launcher_belongs_to(published, attempt, expected):
    by_number = {item.round: item for item in published}

    number, found = rounds.choose_round(
        lambda number: (number, by_number.get(number)), lambda item: item.failure is None, attempt
    )

    assert (number, found and found.round) == expected


def test_a_damaged_answer_begins_the_next_round():
    # Round 1 cannot be read, and a look at it leads to round 2.
    number, found = rounds.choose_round(
        lambda number: (2, answer(2)) if number < 3 else (number, None), lambda _: True, 0
    )

    assert (number, found and found.round) == (2, 2)


# -- lead or wait -----------------------------------------------------------------------------------------------------

BOUNDS = Bounds(unshared=60.0, deadline=900.0)


def view(now=1.0, *, found=None, due=False, closely=False, shared=True) -> View:
    return View(now, found, due, closely, shared)


DECISIONS = {
    "an answer": (view(found=answer()), Action.ADOPT),
    "an answer after the deadline": (view(1000.0, found=answer()), Action.ADOPT),
    "an answer in a directory that looked unshared": (view(100.0, found=answer(), shared=False), Action.ADOPT),
    "an answer, with an attempt due": (view(found=answer(), due=True, closely=True), Action.ADOPT),
    "nothing": (view(), Action.WAIT),
    "an attempt is due": (view(due=True), Action.LOOK_CLOSELY),
    "an attempt is due, and the file system has told": (view(due=True, closely=True), Action.TAKE_LEASE),
    "nobody else in sight: no lead": (view(due=True, closely=True, shared=False), Action.WAIT),
    "nobody else in sight for a minute": (view(60.0, shared=False), Action.NOT_SHARED),
    "nobody else in sight, a last close look": (view(60.0, due=True, shared=False), Action.LOOK_CLOSELY),
    "another node in sight after a minute": (view(60.0), Action.WAIT),
    "the deadline": (view(900.0), Action.TIMED_OUT),
    "the deadline, with an attempt due": (view(900.0, due=True, closely=True), Action.TAKE_LEASE),
    "just before the deadline": (view(899.9), Action.WAIT),
}


@pytest.mark.parametrize(("seen", "expected"), DECISIONS.values(), ids=DECISIONS)
def test_what_a_waiting_launcher_does(seen, expected):
    assert rounds.decide(seen, BOUNDS) is expected


SIGHTINGS = {
    "nobody": ([], me(), False),
    "itself": ([entry(nonce="aa", node="2")], me(), False),
    "another node": ([entry(node="2")], me(), True),
    "another node of another round": ([entry(node="2", number=2)], me(), True),
    "this machine, by another number before the requeue": ([entry(node="2")], me(attempt=1), False),
    "another machine, before the requeue": ([entry(node="2", machine="there")], me(attempt=1), True),
    "a sibling of its node": ([entry("3")], me(), False),
    "its node under another host name": ([entry(machine="there")], me(), False),
    "node unknown, another host": ([entry(node="-", machine="there")], me(), True),
    "node unknown, this host": ([entry(node="-")], me(), False),
    "own node unknown, another host": ([entry(machine="there")], me(node=None), True),
    "a sibling, then another node": ([entry("3"), entry(node="0")], me(), True),
}


@pytest.mark.parametrize(("entries", "launcher", "expected"), SIGHTINGS.values(), ids=SIGHTINGS)
def test_who_proves_that_a_directory_is_shared(entries, launcher, expected):
    assert rounds.sees_another_node(entries, launcher) is expected


DIFFERENT = {
    "nobody": ([], [], me(), None),
    "another launcher, a moment ago": ([entry("0", age=1)], [], me(), "0"),
    "another launcher, an hour ago": ([entry("0", age=HOUR)], [], me(), None),
    "another launcher, before the requeue": ([entry("0", age=1)], [], me(attempt=1), None),
    "this launcher, with its former config": ([entry("0", age=1), entry("1", age=1)], [], me(), None),
    "a launcher that was started again like this one": ([entry("0", age=1)], [entry("0")], me(), None),
    "two, of which one was started again": ([entry("0", age=1), entry("2", age=1)], [entry("0")], me(), "2"),
    "numbers unknown, another machine": (
        [entry("-", machine="there", age=1)],
        [],
        me(index=None, node=None),
        "-",
    ),
    "numbers unknown, this machine's former launcher": ([entry("-", age=1)], [], me(index=None, node=None), None),
}


@pytest.mark.parametrize(("others", "here", "launcher", "expected"), DIFFERENT.values(), ids=DIFFERENT)
def test_who_was_started_together_and_asks_something_else(others, here, launcher, expected):
    found = rounds.asks_differently(others, here, launcher, at_once=60.0)

    assert (found and found.index) == expected


RUNNING = {
    "its launchers have ended": ([entry()], me(), False),
    "one of them runs here": ([entry(), entry("2", alive=True)], me(), True),
    "a process has its number after a requeue": ([entry(alive=True)], me(attempt=1), False),
    "they ran elsewhere": ([entry(machine="there")], me(), False),
}


@pytest.mark.parametrize(("entries", "launcher", "expected"), RUNNING.values(), ids=RUNNING)
def test_which_step_runs_at_once(entries, launcher, expected):
    assert rounds.runs_at_once(entries, launcher) is expected


@pytest.mark.parametrize(
    ("indices", "count", "expected"),
    [(["0", "1"], 2, True), (["0", "0"], 2, False), ([], 1, False), (["0"], None, True), (["0", "1", "2"], 2, True)],
)
def test_when_all_launchers_have_come(indices, count, expected):
    assert rounds.all_have_come([entry(index) for index in indices], 1, count) is expected
    assert rounds.all_have_come([entry(index, number=2) for index in indices], 1, count) is (count is None)


@pytest.mark.parametrize(("index", "expected"), [(0, True), (None, True), (1, False)])
def test_launcher_0_leads_at_once_and_where_it_is_unknown_anybody(index, expected):
    assert me(index=index).may_lead_at_once is expected


# -- leading ----------------------------------------------------------------------------------------------------------

FAILURES = {
    "an answer is there, lease held": (True, True, Action.ADOPT),
    "an answer is there, lease lost": (True, False, Action.ADOPT),
    "lease lost": (False, False, Action.WAIT),
    "lease held": (False, True, None),
}


@pytest.mark.parametrize(("answered", "held", "expected"), FAILURES.values(), ids=FAILURES)
def test_only_the_error_of_the_leader_that_still_leads_is_the_jobs(answered, held, expected):
    assert rounds.after_failure(answered=answered, held=held) is expected


LEFT = {
    "no answer": (None, True),
    "the answer of another leader": (answer(files="files.1.cd"), True),
    "an error": (answer(failure=ERROR, files=None), True),
    "this leader's answer": (answer(files="files.1.ab"), False),
}


@pytest.mark.parametrize(("found", "expected"), LEFT.values(), ids=LEFT)
def test_what_a_leader_wrote_is_removed_unless_the_answer_names_it(found, expected):
    assert rounds.superfluous("files.1.ab", found) is expected
