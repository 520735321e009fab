"""What SLURM's environment says of this process, and putting its job back into the queue.

A job is told of its end by a signal: ``USR1`` or ``USR2`` a while before its time is up or a higher partition takes its
place (``--signal``), ``TERM`` when somebody cancels it. Two owners could answer the former, submitit and Lightning.
Submitit does; where a job was not sent by submitit, :func:`answer_notices` stands in for it.
"""

import logging
import os
import re
import signal
import subprocess
import sys
from typing import Any

log = logging.getLogger(__name__)

NOTICES = (signal.SIGUSR2, signal.SIGUSR1)
"""Signals that say: save, and come back later. Submitit's own is the first."""


def job_id() -> str | None:
    """Of this process's job, ``12`` or ``12_3`` in an array; None outside SLURM."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """How often this job was put back into the queue; 0 outside SLURM."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def is_first_process() -> bool:
    """Whether this is the process of its job that speaks for the others."""
    return os.environ.get("SLURM_PROCID", "0") == "0"


def describe() -> dict[str, Any] | None:
    """The job, for a run's records; None outside SLURM."""
    identity = job_id()
    if identity is None:
        return None
    return {"job": identity, "restarts": restarts(), "nodes": os.environ.get("SLURM_JOB_NODELIST")}


def is_preempted() -> bool:
    """Whether SLURM is taking this job's place away, and not somebody cancelling it; False outside SLURM.

    Where SLURM does not send a job's own signal (``preempt_send_user_signal``) both begin with ``TERM``, and a job that
    then ends by itself is not put back into the queue.
    """
    number = os.environ.get("SLURM_JOB_ID")
    if number is None:
        return False
    try:
        command = ["scontrol", "show", "job", "--oneliner", number]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    states = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in shown.splitlines()]
    mine = next((state for state in states if state.get("JobId") == number), {})
    return mine.get("JobState") == "RUNNING" and mine.get("PreemptTime", "None") != "None"


def answer_notices() -> None:
    """In a job that nobody else requeues: requeue it when notice is given, until training takes the signals over."""
    if job_id() is None or "SUBMITIT_EXECUTOR" in os.environ:
        return
    for notice in NOTICES:
        if signal.getsignal(notice) is signal.SIG_DFL:
            signal.signal(notice, requeue_and_exit)


def requeue_and_exit(signum: int, frame: object = None) -> None:
    """A handler of signals. The first process puts the job back into the queue; all of them end.

    Raises:
        SystemExit: always.
    """
    if is_first_process():
        done = subprocess.run(["scontrol", "requeue", str(job_id())], capture_output=True, text=True)
        if done.returncode:
            log.error("SLURM does not requeue job %s: %s", job_id(), done.stderr.strip())
            sys.exit(1)
        log.info("Job %s is back in the queue.", job_id())
    sys.exit(0)
