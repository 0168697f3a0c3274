"""Processes of tests in which one CPU is several devices."""

from __future__ import annotations

import os

from mm1_jax.scale.execution import DEVICE_COUNT


def simulated_devices(count: int) -> dict[str, str]:
    """The environment of such a process; XLA's other flags stay."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {DEVICE_COUNT}={count}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip()}
