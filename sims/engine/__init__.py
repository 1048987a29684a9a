"""The one shared machine behind every lab. Importing it imports neither numba nor any kernel."""

from . import compiled
from .claims import Claim, Measured, Verdict
from .errors import BadInput, Cancelled, ChalklineError, Problem, TooLarge, UnknownName
from .execute import Metric, Run, RunMonitor, execute, predict, summarize
from .lab import (
    About,
    Change,
    Lab,
    Paper,
    Prediction,
    Preset,
    Quantity,
    Tolerance,
    Work,
    stream_table,
)
from .params import Params, param
from .recording import spread_steps, thin
from .registry import all_labs, get_lab, lab_ids
from .streams import generator
from .trace import Monitor, Replicate, Stop, Trace

compiled.install()

__all__ = [
    "About",
    "BadInput",
    "Cancelled",
    "ChalklineError",
    "Change",
    "Claim",
    "Lab",
    "Measured",
    "Metric",
    "Monitor",
    "Paper",
    "Params",
    "Prediction",
    "Preset",
    "Problem",
    "Quantity",
    "Replicate",
    "Run",
    "RunMonitor",
    "Stop",
    "Tolerance",
    "TooLarge",
    "Trace",
    "UnknownName",
    "Verdict",
    "Work",
    "all_labs",
    "execute",
    "generator",
    "get_lab",
    "lab_ids",
    "param",
    "predict",
    "spread_steps",
    "stream_table",
    "summarize",
    "thin",
]
