"""Linear attention with torch: all replicates of a run at once, on any device, and the layer at full size.

The backend draws its noise from the lab's streams (`torch_prompts`) and trains as the kernels do (`torch_training`),
on the exact gradient by fewer and larger products (`torch_landscape`). The confirmations draw on the device
(`confirmation`).
"""

from __future__ import annotations

import numpy as np
import torch

from ..engine import Replicate, RunMonitor, thin
from . import torch_training
from .confirmation import CONFIRMATIONS, SIZES
from .lab import DIAGONAL, FRAME_SIZE, LinearAttentionParams, ended, recorded_steps
from .torch_landscape import states_kept
from .torch_prompts import numbers_held

__all__ = ["CONFIRMATIONS", "batch_bytes", "simulate_batch"]


def batch_bytes(params: LinearAttentionParams, replicates: int, dtype: str) -> float:
    """Bytes on the device: the states between two looks or the prompts of a step, and those of a block of the test."""
    d, size = params.dim, SIZES[dtype]
    one = 3.0 * (d + 1.0) ** 2 + 4.0 * d + 5.0 * len(recorded_steps(params))
    if params.training == "exact_gradient":
        array = 2.0 * (d + 2.0) * (2.0 * d + 2.0)
        training = 2.5 * replicates * array * states_kept(int(replicates * array))
    elif params.training == "finite_prompts":
        training = 2.0 * replicates * (2.0 * params.n_prompts * (d * d + 1.0) + 3.0 * d**4)
    else:
        training = numbers_held(params, params.law, replicates, params.has_even_blocks, False, params.batch)
    test = numbers_held(params, params.test_law, replicates, params.has_even_blocks, True, params.n_test)
    return size * (replicates * one + max(training, test))


@torch.inference_mode()
def simulate_batch(
    params: LinearAttentionParams, replicates: range, monitor: RunMonitor, device: str, dtype: str
) -> list[Replicate]:
    """All replicates at once; see `engine.backends`."""
    step = recorded_steps(params)
    frame_step = thin(step)
    size = min(params.dim, FRAME_SIZE)
    frames = np.full((len(frame_step), size, size), np.nan)
    diagonal = np.full((len(replicates), len(step), min(params.dim, DIAGONAL)), np.nan)
    recorder = torch_training.Recorder(params, monitor, step, frame_step, diagonal, frames)
    train = torch_training.train_on_batches
    if params.training == "finite_prompts":
        train = torch_training.least_squares
    elif params.training == "exact_gradient":
        train = torch_training.descend
    found = train(params, replicates, recorder, device, dtype)
    if not found:
        return []
    tested = torch_training.test(params, replicates, found, monitor, device, dtype)
    if monitor.cancel[0]:
        return []
    kept = [(frame_step, frames), *[(step[:0], frames[:0])] * (len(found) - 1)]
    return [
        ended(params, one, numbers, own, *moving)
        for one, numbers, own, moving in zip(found, tested, diagonal, kept, strict=True)
    ]
