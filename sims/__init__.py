"""Chalkline's simulators, from Python.

    >>> from sims import run, predict
    >>> run("label_noise", n_train=60).metrics["test_error"].mean
    >>> predict("label_noise", n_train=60).prediction["lp_test_error"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .engine import BadInput, ChalklineError, Prediction, Run, all_labs, execute, get_lab, lab_ids
from .engine import predict as _predict
from .engine.lab import Lab
from .engine.params import Params

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"
__all__ = [
    "BadInput",
    "ChalklineError",
    "Prediction",
    "Run",
    "all_labs",
    "get_lab",
    "lab_ids",
    "predict",
    "run",
    "runs",
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


def _choose(lab_id: str, preset: str | None, changes: dict[str, Any]) -> tuple[Lab, Params]:
    lab = get_lab(lab_id)
    focus = lab.focus(lab.preset(preset)) if preset else lab.params.make()
    return lab, focus.replace(**changes)
