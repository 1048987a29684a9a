"""Linear programs through HiGHS, one thread, silent: the same bits for the same input.

HiGHS' own package is used rather than scipy.optimize, which takes ten times as long to import.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

PRIMAL = 4  # HiGHS' number of the primal simplex


class LinearProgram(NamedTuple):
    """What HiGHS found: ``x`` (k,) is a vertex of the optimal face when optimal, else empty."""

    status: Literal["optimal", "infeasible", "unbounded"]
    x: Float[np.ndarray, " k"]


def linear_program(
    cost: Float[np.ndarray, " k"],
    rows: Float[np.ndarray, "m k"],
    row_lower: Float[np.ndarray, " m"],
    row_upper: Float[np.ndarray, " m"],
    lower: float | Float[np.ndarray, " k"] = 0.0,
    upper: float | Float[np.ndarray, " k"] = np.inf,
) -> LinearProgram:
    """Minimise ``cost.x`` subject to ``row_lower <= rows x <= row_upper`` and ``lower <= x <= upper``.

    Feasible within HiGHS' tolerance of 1e-7 on every constraint; a vertex it returns is as exact as the solution
    of the linear system of its basis. Raises ArithmeticError if the solver ends without an answer.
    """
    import highspy

    m, k = rows.shape

    def numbers(values: float | np.ndarray, size: int) -> np.ndarray:
        return np.full(size, values, dtype=np.float64)

    where, columns = np.nonzero(rows)
    solver = highspy.Highs()
    for option, value in (("output_flag", False), ("threads", 1), ("presolve", "off")):  # dense: nothing to presolve
        solver.setOptionValue(option, value)
    solver.passModel(  # the arrays themselves: a model built field by field takes as long as to solve it
        k,
        m,
        len(where),
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize),
        0.0,
        numbers(cost, k),
        numbers(lower, k),
        numbers(upper, k),
        numbers(row_lower, m),
        numbers(row_upper, m),
        np.searchsorted(where, np.arange(m)).astype(np.int32),
        columns.astype(np.int32),
        np.asarray(rows, dtype=np.float64)[where, columns],
        np.zeros(k, dtype=np.int32),  # no column need be whole
    )
    solver.run()
    status = solver.getModelStatus()
    if status == highspy.HighsModelStatus.kUnknown:  # many dependent rows: the primal simplex is not lost in them
        solver.clearSolver()
        solver.setOptionValue("simplex_strategy", PRIMAL)
        solver.run()
        status = solver.getModelStatus()
    if status == highspy.HighsModelStatus.kOptimal:
        return LinearProgram("optimal", np.array(solver.getSolution().col_value))
    if status == highspy.HighsModelStatus.kInfeasible:
        return LinearProgram("infeasible", np.empty(0))
    if status == highspy.HighsModelStatus.kUnbounded:
        return LinearProgram("unbounded", np.empty(0))
    raise ArithmeticError(f"the linear program ended without an answer: {solver.modelStatusToString(status)}")
