"""Workers, in place of the engine's own, of a lab that takes half a gigabyte, or says so, or fails, or is deaf."""

import dataclasses
import time

import numpy as np

from sims.engine import jobs, workers

BYTES = 2**29


def _take(lab, says_so):
    def simulate(params, replicate, monitor):
        taken = np.ones(BYTES // 8)  # and not only asked for
        assert taken[-1] == 1.0
        return lab.simulate(params, replicate, monitor)

    def work(params):
        return dataclasses.replace(lab.work(params), bytes=float(BYTES * params.replicates))

    return dataclasses.replace(lab, simulate=simulate, **({"work": work} if says_so else {}))


def worker(*arguments):
    known = jobs.get_lab
    jobs.get_lab = lambda lab_id: _take(known(lab_id), says_so=False)
    jobs._worker(*arguments)


def honest_worker(*arguments):
    known = jobs.get_lab
    jobs.get_lab = lambda lab_id: _take(known(lab_id), says_so=True)
    jobs._worker(*arguments)


def serve(*arguments):
    known = workers.get_lab
    workers.get_lab = lambda lab_id: _take(known(lab_id), says_so=False)
    workers._serve(*arguments)


def serve_failing(*arguments):
    def simulate(params, replicate, monitor):
        raise KeyError(f"no such thing in replicate {replicate}")

    known = workers.get_lab
    workers.get_lab = lambda lab_id: dataclasses.replace(known(lab_id), simulate=simulate)
    workers._serve(*arguments)


def serve_deaf(*arguments):
    def simulate(params, replicate, monitor):
        monitor.progress[0] = 1
        time.sleep(600)

    known = workers.get_lab
    workers.get_lab = lambda lab_id: dataclasses.replace(known(lab_id), simulate=simulate)
    workers._serve(*arguments)
