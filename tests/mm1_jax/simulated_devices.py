"""Processes of tests in which one CPU is several devices."""

from __future__ import annotations

import os


def simulated_devices(count: int) -> dict[str, str]:
    """The environment of such a process; XLA's other flags stay."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip()}
