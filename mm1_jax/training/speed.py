"""How fast a training is, told beside its rows while it runs."""

from __future__ import annotations

import time

from mm1_jax.config.training import TrainingConfig

DECIDES_NO_RESULT = "told while it trains, and no row"


class Clock:
    """Tokens per second and MFU between two reports."""

    def __init__(self, training: TrainingConfig, tokens_per_step: int, flops_per_step: float):
        self._peak = None
        if training.peak_tflops is not None:
            self._peak = training.peak_tflops * 1e12 * training.mesh.devices
        self._tokens, self._flops = tokens_per_step, flops_per_step
        self._last: tuple[int, float] | None = None

    def since_last(self, step: int) -> dict[str, float]:
        """Nothing at the first call, whose steps had to be compiled."""
        now = time.monotonic()
        last, self._last = self._last, (step, now)
        if last is None or step == last[0]:
            return {}
        steps_per_second = (step - last[0]) / max(now - last[1], 1e-9)
        numbers = {"tokens_per_second": self._tokens * steps_per_second}
        if self._peak is not None:
            numbers["mfu"] = self._flops * steps_per_second / self._peak
        return numbers
