"""What a worker's process sees of its machine: its own cores and accelerators, and no others.

These are variables of its environment, in force before anything is imported there. Which GPUs or
chips are its own Ray says (CUDA_VISIBLE_DEVICES, TPU_VISIBLE_CHIPS).
"""

from __future__ import annotations

from ablations.resources import Shape

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "NPROC",  # XLA's own pools
)
# Of a shared GPU, so much of a trial's share may be held by its arrays; the rest is the driver's
# and the kernels' own.
HELD_SHARE = 0.9


def isolated(shape: Shape) -> dict[str, str]:
    """Variables of each process of a worker of this shape."""
    variables = dict.fromkeys(THREAD_VARIABLES, str(threads(shape)))
    if shape.gpu == 0:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    elif shape.gpu < 1:  # JAX would take three quarters of the whole
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{HELD_SHARE * shape.gpu:.3f}"
    return variables


def threads(shape: Shape) -> int:
    """Of each pool of a process: one a core."""
    return max(1, int(shape.cpu))
