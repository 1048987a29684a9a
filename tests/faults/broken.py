"""A lab whose kernel raises, and a worker process, in place of the engine's own, that runs it."""

import dataclasses

from sims.engine import jobs


def raising(lab):
    def simulate(params, replicate, monitor):
        if replicate == 1:
            raise IndexError("index 3 is out of bounds")
        return lab.simulate(params, replicate, monitor)

    return dataclasses.replace(lab, simulate=simulate)


def worker(*arguments):
    known = jobs.get_lab
    jobs.get_lab = lambda lab_id: raising(known(lab_id))
    jobs._worker(*arguments)
