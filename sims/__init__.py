"""Chalkline's simulators, from Python.

>>> from sims import run, predict
>>> run("label_noise", n_train=60).metrics["test_error"].mean
>>> predict("label_noise", n_train=60).prediction["lp_test_error"]
>>> sweep("label_noise", grid={"learning_rate": [0.01, 0.02]}, replicates=8).table
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .engine import BadInput, ChalklineError, Prediction, Run, all_labs, execute, get_lab, lab_ids
from .engine import predict as _predict
from .engine.lab import Lab
from .engine.params import Params

if TYPE_CHECKING:
    import threading

    import pandas as pd

    from .engine.sweep import Progress, Sweep
    from .engine.sweep_points import Checked

__version__ = "0.1.0"
__all__ = [
    "BadInput",
    "ChalklineError",
    "Prediction",
    "Run",
    "all_labs",
    "get_lab",
    "lab_ids",
    "open_sweep",
    "predict",
    "run",
    "runs",
    "sweep",
    "sweep_point",
    "sweeps",
]


def run(
    lab: str,
    preset: str | None = None,
    *,
    fresh: bool = False,
    store: bool = True,
    backend: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **params: Any,
) -> Run:
    """Run a lab and keep the result, or return the stored run of the same key.

    Args:
        lab: id of the lab.
        preset: start from the run in focus of this preset instead of from the defaults.
        fresh: compute although the run is stored.
        store: False keeps nothing and looks nothing up.
        backend, device, dtype: what to compute with; by default "numba", "cpu", "float64". Labs with a full scale
            also run with "torch", on "cpu" or "cuda", in "float64" or "float32".
        params: fields of the lab's params.

    Raises:
        BadInput: an unknown lab, preset or field, a value that is not allowed, or a backend that is not here.
        TooLarge: it does not fit into the memory of the device.
        StoreError: the run store cannot be written.
    """
    from .engine.backends import choose
    from .engine.store import Store

    found, chosen = _choose(lab, preset, params)
    kept = Store() if store else None
    return execute(found, chosen, store=kept, fresh=fresh, backend=choose(backend, device, dtype))


def predict(lab: str, preset: str | None = None, **params: Any) -> Prediction:
    """The theory's prediction for a run; nothing is simulated. Raises BadInput."""
    return _predict(*_choose(lab, preset, params))


def runs(lab: str | None = None) -> pd.DataFrame:
    """The stored runs, newest first: key, lab, version, date, and a column for each param and metric mean."""
    import pandas as pd

    from .engine.store import Store

    rows = Store().rows(lab)
    plain = ("key", "family", "lab", "version", "created", "replicates", "trace_sha256", "wall_s")
    return pd.DataFrame(
        [
            {
                **{name: row[name] for name in plain},
                **{name: value for name, value in row["params"].items() if name != "replicates"},
                **{name: metric["mean"] for name, metric in row["metrics"].items()},
            }
            for row in rows
        ],
        columns=None if rows else list(plain),
    )


def sweep(
    lab: str,
    grid: Mapping[str, Sequence[Any]] | None = None,
    points: Any = None,
    *,
    preset: str | None = None,
    name: str | None = None,
    claims: bool = False,
    theory_only: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    **params: Any,
) -> Sweep:
    """Run a lab at many points, or go on with a sweep that was interrupted; what is stored is not computed again.

    Args:
        lab: id of the lab.
        grid: field -> values; the points are the product of these axes.
        points: instead of a grid, any points: a list of mappings, a pandas frame, or the path of a CSV file.
        preset, params: what all points share, `replicates` among it.
        name: what the sweep is called; by default its key. Alone, it goes on with the stored sweep of that name.
        claims: judge the claims of every point.
        theory_only: predictions alone; nothing is simulated.
        workers: processes, by default one for each core; 1 computes in this process.
        scheduler: address of a Dask scheduler, instead of processes; by default `CHALKLINE_SCHEDULER`.
        on_progress: called in this thread after each chunk and a few times a second.
        cancel: an event by which another thread pauses the sweep.

    Returns:
        its `table` has a row for each point and replicate, its `summary` one for each point, both pandas frames;
        `failures` lists the points that could not be computed.

    Raises:
        BadInput: an unknown lab, field or value, a design without points, a name taken by another design.
        TooLarge: more points than are allowed.
        Paused: it was interrupted or cancelled; what was complete is kept.
        StoreError: the store cannot be written.
    """
    from .engine.design import choose_design
    from .engine.sweep import plan_sweep, run_sweep

    plan = None
    found, base = _choose(lab, preset, params)
    if grid is not None or points is not None:
        design = choose_design(found, base, grid, points, given=params)
        plan = plan_sweep(design, claims=claims, theory_only=theory_only)
    elif params or preset or claims or theory_only:
        raise BadInput("A sweep needs an axis: give a grid or points. A name alone goes on with a stored sweep.")
    return run_sweep(
        plan, name=name, lab=found, workers=workers, scheduler=scheduler, on_progress=on_progress, cancel=cancel
    )


def open_sweep(name: str) -> Sweep:
    """A stored sweep, complete or not, by its name or the first characters of its key. Raises UnknownName."""
    from .engine.sweep import open_sweep as opened

    return opened(name)


def sweeps() -> pd.DataFrame:
    """The stored sweeps, the latest first: name, lab, version, date, axes, points, and how many of them are there."""
    import pandas as pd

    from .engine.sweep import sweep_rows

    return pd.DataFrame(sweep_rows())


def sweep_point(key: str) -> Checked:
    """Run one point of a stored sweep again, by its key, and compare it with the sweep's table.

    Raises:
        UnknownName: no stored sweep has a point of that key.
    """
    from .engine.sweep_points import check_point, find_point

    return check_point(find_point(key))


def _choose(lab_id: str, preset: str | None, changes: dict[str, Any]) -> tuple[Lab, Params]:
    lab = get_lab(lab_id)
    focus = lab.focus(lab.preset(preset)) if preset else lab.params.make()
    return lab, focus.replace(**changes)
