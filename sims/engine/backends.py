"""Backends: what a run is computed with. Numba on the processor is the first; torch is imported when asked for.

A lab that can be run with torch has a `full_scale.py` with

    simulate_batch(params, replicates, monitor, device, dtype) -> list[Replicate]
    batch_bytes(params, replicates, dtype) -> float
    CONFIRMATIONS: tuple[Confirmation, ...]

`simulate_batch` is the algorithm of the kernels for all `replicates` (a range of their numbers) at once. Its noise is
drawn by NumPy from the lab's own streams, in blocks, and copied over, so that float64 differs from the kernels by
rounding alone. It polls `monitor.cancel`, counts in `monitor.progress`, and writes `monitor.records`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from .budget import available_memory, command_line, describe_bytes
from .compiled import ROOT
from .errors import BadInput, Problem, TooLarge, UnknownName
from .keys import Backend
from .lab import Lab
from .params import Params

if TYPE_CHECKING:
    from .confirmations import Confirmation
    from .execute import RunMonitor
    from .trace import Replicate

BACKENDS = ("numba", "torch")
DTYPES = ("float64", "float32")
_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")


class FullScale(Protocol):
    """What a lab's `full_scale.py` offers."""

    CONFIRMATIONS: tuple[Confirmation, ...]
    simulate_batch: Callable[[Any, range, RunMonitor, str, str], list[Replicate]]
    batch_bytes: Callable[[Any, int, str], float]


def choose(backend: str | None = None, device: str | None = None, dtype: str | None = None) -> Backend:
    """The backend of these words; what is None is numba, cpu, float64.

    Raises:
        BadInput: an unknown word, or a device or a precision that the backend does not have.
    """
    name, device, dtype = backend or "numba", device or "cpu", dtype or "float64"
    if name not in BACKENDS:
        raise UnknownName("backend", name, BACKENDS)
    if dtype not in DTYPES:
        raise UnknownName("dtype", dtype, DTYPES)
    if not (isinstance(device, str) and _DEVICE.fullmatch(device)):
        raise BadInput(
            Problem("device", device, "it must be cpu, cuda, or cuda:0, cuda:1, ...", "Leave it out for cpu.")
        )
    if name == "numba" and device != "cpu":
        raise BadInput(Problem("device", device, "the backend numba computes on the cpu", "Set backend to torch."))
    if name == "numba" and dtype != "float64":
        raise BadInput(Problem("dtype", dtype, "the backend numba computes in float64", "Set backend to torch."))
    return Backend(name, device, dtype)


def require_device(device: str) -> None:
    """Raises BadInput unless torch is there and has that device."""
    torch = _torch()
    if device == "cpu":
        return
    if not torch.cuda.is_available():
        allowed = f"PyTorch {torch.__version__} finds no CUDA device here"
        advice = "Set device to cpu, or run it on a machine with a GPU and a CUDA build of PyTorch."
        raise BadInput(Problem("device", device, allowed, advice))
    count = torch.cuda.device_count()
    if ":" in device and int(device.split(":")[1]) >= count:
        devices = "only cuda:0 is" if count == 1 else f"cuda:0 to cuda:{count - 1} are"
        raise BadInput(Problem("device", device, f"{devices} here", "Choose one of those."))


def has_full_scale(lab: Lab) -> bool:
    """Whether the lab has a `full_scale.py`; nothing is imported."""
    return (ROOT / "sims" / lab.id / "full_scale.py").is_file()


def full_scale(lab: Lab) -> FullScale:
    """The lab's `full_scale.py`, and torch with it. Raises BadInput where there is none."""
    if not has_full_scale(lab):
        allowed = f"{lab.id} has no full scale"
        raise BadInput(
            Problem("backend", "torch", allowed, "Leave backend, device and dtype out to run it with numba.")
        )
    _torch()
    return cast(FullScale, importlib.import_module(f"sims.{lab.id}.full_scale"))


def require_memory(lab: Lab, params: Params, backend: Backend) -> float:
    """Bytes that the run takes on the backend's device, if they are free there.

    Raises:
        BadInput: no full scale, or no such device.
        TooLarge: with what is needed, what is free, and how many replicates fit.
    """
    require_device(backend.device)
    module = full_scale(lab)
    needed = module.batch_bytes(params, params.replicates, backend.dtype)
    free = free_memory(backend.device)
    if needed <= free:
        return needed
    counts = range(params.replicates - 1, 0, -1)
    fits = next((count for count in counts if module.batch_bytes(params, count, backend.dtype) <= free), 0)
    way_out = "Not one replicate fits: choose smaller sizes."
    if fits:
        part = f"{command_line(lab, params.replace(replicates=fits))} {flags(backend)}"
        way_out = f"At most {fits} replicates fit at once: {part}, then further ones with --first-replicate."
    raise TooLarge(
        f"This run would take {describe_bytes(needed)} on {backend.device}, where {describe_bytes(free)} may be used. "
        f"{way_out}"
    )


def flags(backend: Backend) -> str:
    """The flags that ask for a backend on the command line."""
    return f"--backend {backend.name} --device {backend.device} --dtype {backend.dtype}"


def free_memory(device: str) -> float:
    """Bytes that a run may take on a device: four fifths of what is free now."""
    if device == "cpu":
        return available_memory()
    torch = _torch()
    torch.cuda.empty_cache()  # what torch keeps for later counts as free
    free, _ = torch.cuda.mem_get_info(device)
    return 0.8 * float(free)


def device_name(device: str) -> str:
    """What the device calls itself."""
    from .provenance import fingerprint

    return fingerprint()["cpu"] if device == "cpu" else str(_torch().cuda.get_device_name(device))


def versions(device: str) -> dict[str, str]:
    """The libraries and the device that bits of a run with torch rest on, besides those of the processor."""
    torch = _torch()
    found = {"torch": str(torch.__version__), "torch_device": device_name(device)}
    if device != "cpu":
        found["cuda"] = str(torch.version.cuda)
    return found


def _torch() -> Any:
    """PyTorch, held at one thread as every library here is, and without the short cuts of tensor cores."""
    try:
        import torch
    except ImportError as error:
        raise BadInput(
            Problem("backend", "torch", f"PyTorch cannot be imported ({error})", "Install what requirements.txt lists.")
        ) from None
    from .provenance import single_threaded_blas

    single_threaded_blas()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch
