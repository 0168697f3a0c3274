"""Room for a gang on TPU slices, by Ray's own reservations (`ray.util.tpu`, an alpha interface).

A slice is taken whole: its head first, so that no two gangs hold half of it each, and then a bundle
on each of its hosts. Where no slice of that shape is in the cluster but a larger one is, a part of
that is taken. Nothing else in here talks to `ray.util.tpu`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ablations.resources import Slice
from sweeps.gang import in_bundle
from sweeps.pool import LostError

if TYPE_CHECKING:
    from sweeps.gang_member import Place

BROKEN_SECONDS = 30.0  # for the hosts of a slice whose head was free; then another one is tried
VERSIONS = {"v5e": "v5litepod"}  # as Ray calls them, where it does otherwise
WORKER_ID, SLICE_NAME, TOPOLOGY = (
    "ray.io/tpu-worker-id",
    "ray.io/tpu-slice-name",
    "ray.io/tpu-topology",
)


class SlicePlacement:
    """See `sweeps.gang.Placement`: `count` hosts of a slice, or of several that work together."""

    def __init__(
        self, wanted: Slice, host: Mapping[str, float], *, hosts: int = 1, slices: int = 1
    ):
        """`host`: what a process takes of its host beside chips; `hosts`: of each slice, where
        its version and topology leave it open."""
        from ray.util import tpu

        self._wanted, self._slices = wanted, slices
        self._version = VERSIONS.get(wanted.version, wanted.version)
        self._chips_per_host = wanted.chips // hosts if hosts > 1 else None
        try:
            self.count, self._bundle = tpu.get_tpu_worker_resources(
                wanted.topology,
                self._version,
                {name: amount for name, amount in host.items() if amount and name != "TPU"},
                num_slices=slices,
                chips_per_vm=self._chips_per_host,
            )
        except ValueError as error:
            raise LostError(f"Ray knows no TPU slice {wanted}: {error}") from None
        self._reserved: Any = None  # a slice, or a part of one, whose hosts are waited for
        self._since = 0.0
        self._broken: list[Any] = []  # held meanwhile, so that another one is found

    def ready(self, seconds: float) -> bool:
        """See `Placement`."""
        began = time.monotonic()
        if self._reserved is None:
            self._reserved = self._reserve(seconds)
            self._since = time.monotonic()
        if self._reserved is None:
            self._let_go()  # what was broken may be whole by now
            time.sleep(max(0.0, seconds - (time.monotonic() - began)))
            return False
        if self._reserved.placement_group.wait(max(0.1, seconds - (time.monotonic() - began))):
            self._reserved.release_head_pgs()
            self._let_go()
            return True
        if time.monotonic() - self._since > BROKEN_SECONDS:
            self._broken.append(self._reserved)
            self._reserved = None
        return False

    def _reserve(self, seconds: float) -> Any:
        """A whole slice whose head is free, or a part of a larger one; None where there is none."""
        from ray.util import tpu

        kind = f"TPU-{self._version.upper()}"
        topology = self._wanted.topology
        shared: dict[str, Any] = {
            "resources_per_bundle": dict(self._bundle),
            "chips_per_vm": self._chips_per_host,
            "strategy": "STRICT_SPREAD",
            "head_reservation_timeout_s": seconds,
        }
        try:
            if tpu.get_num_ready_tpu_slices(topology, kind) >= self._slices:
                return tpu.slice_placement_group(
                    topology, self._version, num_slices=self._slices, **shared
                )
            if self._slices == 1 and not tpu.get_num_tpu_slices(topology, kind):
                return tpu.subslice_placement_group(topology, self._version, **shared)
        except (TimeoutError, RuntimeError):  # taken by somebody, or died, in between
            return None
        except ValueError:  # of a part: there is nothing that is larger
            return None
        return None

    def _let_go(self) -> None:
        for one in self._broken:
            with contextlib.suppress(Exception):
                one.shutdown()
        self._broken.clear()

    def options(self, index: int) -> dict[str, Any]:
        """See `Placement`."""
        return in_bundle(self._reserved.placement_group, index, self._bundle)

    def order(self, places: Sequence[Place]) -> list[int]:
        """See `Placement`: slice by slice, as the TPU's own runtime counts its hosts."""
        import ray

        labels = {node["NodeID"]: node.get("Labels", {}) for node in ray.nodes()}
        a_slice = self.count // self._slices

        def place(index: int) -> tuple[int, int, int]:
            number = labels.get(places[index].node, {}).get(WORKER_ID, "")
            return index // a_slice, int(number) if number.isdecimal() else index, index

        return sorted(range(len(places)), key=place)

    def variables(self, number: int, first: Place) -> dict[str, str]:
        """See `Placement`: of several slices, how they find one another."""
        if self._slices == 1:
            return {}
        from ray.util import tpu

        own = number // (self.count // self._slices)
        return tpu.get_tpu_coordinator_env_vars(first.address, self._slices, own)

    def lacking(self) -> str:
        """See `Placement`."""
        import ray
        from ray.util import tpu

        kind = f"TPU-{self._version.upper()}"
        topology = self._wanted.topology
        whole = tpu.get_num_tpu_slices(topology, kind)
        idle = tpu.get_num_ready_tpu_slices(topology, kind)
        found: dict[tuple[str, str], int] = {}
        for node in ray.nodes():
            labels = node.get("Labels", {})
            if node["Alive"] and labels.get(SLICE_NAME):
                key = labels.get(TOPOLOGY, "?"), labels[SLICE_NAME]
                found[key] = found.get(key, 0) + 1
        named = [f"{name} ({shape}, {n} hosts)" for (shape, name), n in sorted(found.items())]
        several = f"{self._slices} TPU slices" if self._slices > 1 else "a TPU slice"
        return (
            f"{several} {self._wanted} on {self.count} hosts; whole ones: {whole}, free: {idle}; "
            f"there is {', '.join(named) or 'no slice at all'}"
        )

    def free(self) -> None:
        """See `Placement`."""
        self._let_go()
        if self._reserved is not None:
            with contextlib.suppress(Exception):  # where Ray itself is gone
                self._reserved.shutdown()
            self._reserved = None
