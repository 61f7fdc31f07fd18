"""Rank and world from flags or SLURM, and signals that set a flag."""

import os
import signal
import threading

import pytest

from fastgen.errors import FastgenError, Interrupted
from fastgen.job import StopSignal, job_share

ARRAY = {
    "SLURM_JOB_ID": "7",
    "SLURM_ARRAY_TASK_ID": "2",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_MIN": "0",
}
SOME = {  # sbatch --array=3,7
    **ARRAY,
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_COUNT": "2",
    "SLURM_ARRAY_TASK_MIN": "3",
    "SLURM_ARRAY_TASK_MAX": "7",
    "SLURM_ARRAY_TASK_STEP": "1",
}
STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "3"}


@pytest.mark.parametrize(
    "flags, environ, expected",
    [
        ((None, None), {}, "rank 0 of 1 (one process)"),
        ((2, 5), {}, "rank 2 of 5 (--rank, --world)"),
        ((None, None), ARRAY, "rank 2 of 4 (SLURM_ARRAY_TASK_ID/COUNT)"),
        ((None, None), STEP, "rank 1 of 3 (SLURM_PROCID/NTASKS)"),
        ((None, None), {**ARRAY, **STEP}, "rank 7 of 12 (SLURM_ARRAY_TASK_ID/COUNT and SLURM_PROCID/NTASKS)"),
        ((2, 4), ARRAY, "rank 2 of 4 (--rank, --world)"),
        ((0, 1), ARRAY, "rank 0 of 1 (--rank, --world)"),
        ((None, 4), ARRAY, "rank 2 of 4 (--world and SLURM_ARRAY_TASK_ID)"),
        ((None, 8), SOME, "rank 7 of 8 (--world and SLURM_ARRAY_TASK_ID)"),
        ((None, 24), {**SOME, **STEP}, "rank 22 of 24 (--world and SLURM_ARRAY_TASK_ID, SLURM_PROCID)"),
        ((None, 3), STEP, "rank 1 of 3 (--world, SLURM_PROCID)"),
        ((None, 1), {}, "rank 0 of 1 (--world)"),
        ((None, None), {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, "rank 0 of 2 (SLURM_PROCID/NTASKS)"),
        (
            (None, None),
            {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
            "rank 0 of 1 (one process)",
        ),
        (
            (None, None),
            {**STEP, "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "8"},
            "rank 1 of 2 (SLURM_PROCID/NTASKS)",
        ),
    ],
)
def test_who_decides_and_what_it_says(flags, environ, expected):
    assert str(job_share(*flags, environ=environ)) == expected


def test_an_array_may_start_anywhere_and_take_steps():
    environ = {"SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_MAX": "20"}
    environ["SLURM_ARRAY_TASK_STEP"] = "5"
    for world in (None, 3):
        ranks = [job_share(None, world, environ={**environ, "SLURM_ARRAY_TASK_ID": str(i)}).rank for i in (10, 15, 20)]
        assert ranks == [0, 1, 2]


@pytest.mark.parametrize(
    "flags, environ, message",
    [
        ((1, None), {}, "got --rank without --world: give both"),
        ((None, 2), {}, "got --world without --rank"),
        ((2, 2), {}, "got --rank 2 --world 2; allowed"),
        ((-1, 2), {}, "got --rank -1"),
        ((0, 0), {}, "--world >= 1"),
        ((None, 2), ARRAY, "--world 2 contradicts SLURM, which starts 4 processes"),
        ((None, 4), STEP, "--world 4 contradicts SLURM, which starts 3 processes"),
        ((None, 10), {**SOME, **STEP}, "--world 10 contradicts SLURM, which starts 6 processes"),
        ((None, 7), SOME, "SLURM_ARRAY_TASK_ID=7 is beyond --world 7: number the tasks of the array from 0 to 6"),
        ((None, 0), ARRAY, "got --world 0; allowed: 1 or more"),
        ((None, None), SOME, "one regular range (0-9 or 0-9:3); to start only some tasks of one, give the --world"),
        ((None, None), {**SOME, "SLURM_ARRAY_TASK_ID": "3"}, "one regular range"),
        ((1, 4), ARRAY, "contradicts SLURM, which says rank 2 of 4"),
        ((0, 3), STEP, "contradicts SLURM, which says rank 1 of 3"),
        ((None, None), {"SLURM_ARRAY_TASK_ID": "2"}, "SLURM_ARRAY_TASK_COUNT is not"),
        ((None, None), {**ARRAY, "SLURM_ARRAY_TASK_ID": "9"}, "one regular range"),
        ((None, None), {**ARRAY, "SLURM_ARRAY_TASK_ID": "x"}, "is 'x'; allowed: a whole number"),
        ((None, None), {**STEP, "SLURM_PROCID": "3"}, "SLURM_PROCID=3 is not below the 3 tasks"),
        (
            (None, None),
            {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},
            "was not started by srun, so only one of them runs it: start it as `srun fastgen run",
        ),
    ],
)
def test_contradictions_are_refused(flags, environ, message):
    with pytest.raises(FastgenError) as error:
        job_share(*flags, environ=environ)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_sets_the_flag_and_check_raises(name):
    before = signal.getsignal(signal.Signals[name])
    with StopSignal() as stop:
        stop.check()
        assert not stop.requested and stop.name == ""
        os.kill(os.getpid(), signal.Signals[name])
        assert stop.requested and stop.name == name
        with pytest.raises(Interrupted, match=f"stopped by {name}: 3 rows are saved. Run the same command") as error:
            stop.check("3 rows are saved")
        assert error.value.exit_code == 75
    assert signal.getsignal(signal.Signals[name]) is before


def test_a_second_interrupt_stops_at_once():
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)


def test_another_thread_gets_no_handlers():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with StopSignal() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
