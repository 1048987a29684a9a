"""Turns: nobody waits for another's whole list, and who gives up frees its place."""

import multiprocessing

import numpy as np
import pytest

from sims.engine import Cancelled
from sims.engine import jobs as jobs_module
from sims.engine.jobs import Jobs
from sims.engine.turns import Turns
from tests.sims.engine.watched import until


def joined(turns, *names, seconds=1.0):
    """A ticket for each name, of one session or of several with plus signs between."""
    return [turns.join(lambda name=name: name.split("+"), seconds) for name in names]


def called_in_turn(turns, tickets, names):
    """The names in the order of their turns; each leaves as soon as it has had its turn."""
    order, left = [], dict(zip(tickets, names, strict=True))
    while left:
        ticket = next(ticket for ticket in left if turns.has_turn(ticket))
        order.append(left.pop(ticket))
        turns.leave(ticket)
    return order


def test_sessions_take_turns_whoever_asked_for_more():
    turns = Turns(1)
    joined(turns, "first")  # keeps the place while the others line up
    names = ["a", "a", "a", "b", "b", "c"]
    tickets = joined(turns, *names)
    assert [turns.ahead(ticket)[0] for ticket in tickets] == [0, 3, 5, 1, 4, 2], "a b c a b a"
    assert not any(ticket.called.is_set() for ticket in tickets)


def test_a_session_whose_run_is_being_computed_waits_for_the_others():
    turns = Turns(2)
    joined(turns, "a", "b")
    late = joined(turns, "a", "c")
    assert [turns.ahead(ticket)[0] for ticket in late] == [1, 0]


def test_a_run_that_many_wait_for_has_the_best_of_their_places():
    turns = Turns(1)
    joined(turns, "first")
    names = ["a", "a", "a+b", "b"]
    tickets = joined(turns, *names)
    assert [turns.ahead(ticket)[0] for ticket in tickets] == [0, 2, 1, 3]


def test_everybody_gets_a_turn_once_and_the_line_is_empty_then():
    turns = Turns(2)
    names = ["a", "a", "b", "c", "a", "b"]
    order = called_in_turn(turns, joined(turns, *names), names)
    assert sorted(order) == sorted(names) and turns.outlook() == (0, 0, 0.0)


def test_who_leaves_the_line_lets_the_others_up():
    turns = Turns(1)
    first, second, third = joined(turns, "a", "b", "c")
    turns.leave(second)
    assert turns.ahead(third)[0] == 0 and not third.called.is_set()
    turns.leave(first)
    assert turns.has_turn(third) and third.called.is_set()


def test_the_wait_is_told_from_the_estimates_before_it():
    turns = Turns(2)
    assert turns.outlook() == (0, 0, 0.0)
    joined(turns, "a", "b", seconds=10.0)
    tickets = joined(turns, "c", "d", seconds=4.0)
    assert [turns.ahead(ticket) for ticket in tickets] == [(0, 5.0), (1, 7.0)]
    assert turns.outlook() == (2, 2, 9.0), "half of two runs of 10 s, and two of 4 s, on two places"


# -- in the jobs of a server -------------------------------------------------------------------------------------------


@pytest.fixture(params=["thread", "process"])
def narrow(request, monkeypatch):
    """Jobs that compute one run at a time, in a thread or in a process."""
    monkeypatch.setattr(jobs_module, "THREAD_SECONDS", 1e9 if request.param == "thread" else 0.0)
    return Jobs(None, short=1, long=1)


def running(job):
    return job.state == "running" and bool(np.any(job.monitor.progress))


def test_a_stop_frees_the_place_at_once(lab, endless, narrow):
    """What is stopped computes nothing more, and the next one begins; a run that waits can be stopped, too."""
    first = narrow.submit(lab, endless, "anna")
    until(lambda: running(first))
    second = narrow.submit(lab, endless.replace(seed=1), "bert")
    until(lambda: second.state == "waiting")
    third = narrow.submit(lab, endless.replace(seed=2), "cora")
    until(lambda: third.state == "waiting")
    assert [job.ahead[0] for job in (second, third)] == [0, 1]
    second.cancel()
    with pytest.raises(Cancelled, match="before its turn"):
        second.result(60)
    assert narrow.computed == 1 and third.ahead[0] == 0
    first.cancel()
    with pytest.raises(Cancelled):
        first.result(60)
    done = first.monitor.progress.copy()
    until(lambda: running(third))
    np.testing.assert_array_equal(first.monitor.progress, done)
    narrow.release("cora")
    with pytest.raises(Cancelled):
        third.result(60)
    until(lambda: narrow.lines() == {"short": (0, 0, 0.0), "long": (0, 0, 0.0)})
    assert multiprocessing.active_children() == []


@pytest.fixture
def one_thread(monkeypatch):
    """Jobs that compute one run at a time, all in threads; and the seeds of those that began, in order."""
    begun = []
    execute = jobs_module.execute

    def noted(lab, params, **more):
        begun.append(params.seed)
        return execute(lab, params, **more)

    monkeypatch.setattr(jobs_module, "THREAD_SECONDS", 1e9)
    monkeypatch.setattr(jobs_module, "execute", noted)
    return Jobs(None, short=1), begun


def test_a_session_that_sends_many_does_not_keep_another_waiting(lab, small, endless, one_thread):
    """The one who asks last, for one run, is served right after the run that is under way."""
    jobs, begun = one_thread
    blocker = jobs.submit(lab, endless, "greedy", "0")
    until(lambda: running(blocker))
    many = [jobs.submit(lab, small.replace(seed=n), "greedy", str(n)) for n in range(1, 9)]
    until(lambda: all(job.state == "waiting" for job in many))
    one = jobs.submit(lab, small.replace(seed=99), "modest")
    until(lambda: one.state == "waiting")
    assert one.ahead[0] == 0 and sorted(job.ahead[0] for job in many) == list(range(1, 9))
    blocker.cancel()
    for job in (*many, one):
        job.result(60)
    assert begun[:2] == [0, 99] and sorted(begun[2:]) == list(range(1, 9))


def test_the_latest_wish_of_a_session_takes_the_place_of_its_earlier_one(lab, small, endless, one_thread):
    jobs, begun = one_thread
    blocker = jobs.submit(lab, endless, "anna")
    until(lambda: running(blocker))
    wishes = [jobs.submit(lab, small.replace(seed=seed), "bert", "focus") for seed in range(1, 6)]
    until(lambda: all(job.finished() for job in wishes[:-1]) and wishes[-1].state == "waiting")
    jobs.release("anna")
    wishes[-1].result(60)
    assert {job.state for job in wishes[:-1]} == {"cancelled"} and begun == [0, 5]
