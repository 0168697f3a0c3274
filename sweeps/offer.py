"""What a cluster offers: its nodes with their cores, accelerators and memory, and what fits there.

All but `offered` and `free_now` is plain arithmetic.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablations.errors import UserError
from ablations.machine import Machine
from ablations.placement import Site
from ablations.resources import SLICES, Shape, in_bytes

Amounts = Mapping[str, float]  # as Ray calls them: CPU, GPU, TPU, memory (bytes)
_PODS = "ray.io/tpu-pod-type"  # label of a TPU's node: v5litepod-16
_TOPOLOGY = "ray.io/tpu-topology"
ROUNDING = 1e-6


@dataclass(frozen=True)
class Node:
    """One machine of a cluster."""

    id: str
    address: str
    has: Amounts
    labels: Mapping[str, str]


def offered() -> list[Node]:
    """The nodes of the connected Ray that are alive, by address."""
    import ray

    nodes = [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"], node.get("Labels", {}))
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(nodes, key=lambda node: (node.address, node.id))


def free_now() -> dict[str, Amounts]:
    """Node → what nobody holds of it, as Ray says; a moment late."""
    from ray._private.state import available_resources_per_node

    return available_resources_per_node()


def wanted(shape: Shape) -> dict[str, float]:
    """What each process of a worker takes of its node."""
    amounts = {"CPU": shape.cpu, "GPU": shape.gpu, "memory": float(shape.memory_bytes)}
    if shape.tpu is not None:
        amounts["TPU"] = shape.tpu.chips / shape.hosts
    return {name: amount for name, amount in amounts.items() if amount}


def holds(has: Amounts, amounts: Amounts) -> bool:
    """Whether there is that much."""
    return all(has.get(name, 0.0) + ROUNDING >= amount for name, amount in amounts.items())


def place(shape: Shape, free: Mapping[str, Amounts]) -> list[str] | None:
    """The nodes that a worker's processes go to, one each; None where there is no room.

    The fullest that will do, so that room for large ones is left.
    """
    amounts = wanted(shape)
    fit = [node for node, has in free.items() if holds(has, amounts)]
    if len(fit) < shape.hosts:
        return None
    scarce = next((name for name in ("TPU", "GPU") if name in amounts), "CPU")
    spare = [name for name in ("TPU", "GPU") if name not in amounts]

    def room(node: str) -> tuple[float, float]:
        # What needs no accelerator leaves the nodes that have some alone.
        return sum(free[node].get(name, 0.0) for name in spare), free[node].get(scarce, 0.0)

    return sorted(fit, key=room)[: shape.hosts]


def taken(free: Mapping[str, Amounts], nodes: Collection[str], amounts: Amounts) -> dict[str, Any]:
    """What is left once each of these nodes has given that much."""
    left = dict(free)
    for node in nodes:
        left[node] = {
            name: has - amounts.get(name, 0.0) for name, has in left.get(node, {}).items()
        }
    return left


def most_workers(shape: Shape, nodes: Sequence[Node], most: int = 100_000) -> int:
    """How many workers of a shape the whole cluster could hold at once."""
    amounts = wanted(shape)
    each = [
        min((int(node.has.get(name, 0.0) / part + ROUNDING) for name, part in amounts.items()))
        for node in nodes
    ]
    if shape.hosts == 1:
        return min(most, sum(each))
    count = 0  # each takes `hosts` different nodes
    while count < most and sum(room > 0 for room in each) >= shape.hosts:
        for index in sorted(range(len(each)), key=each.__getitem__)[-shape.hosts :]:
            each[index] -= 1
        count += 1
    return count


def in_words(nodes: Iterable[Node]) -> str:
    """`2 nodes with 8 GPUs, 96 cores, 644 GB; 1 node with 4 cores, 16.1 GB`."""
    kinds: dict[str, int] = {}
    for node in nodes:
        said = node_in_words(node)
        kinds[said] = kinds.get(said, 0) + 1
    parts = [
        f"{count} {'node' if count == 1 else 'nodes'} with {said}" for said, count in kinds.items()
    ]
    return "; ".join(parts) or "no nodes"


def node_in_words(node: Node) -> str:
    """What a node has: `8 GPUs (A100), 96 cores, 644 GB`."""
    has = node.has
    kinds = [name.partition(":")[2] for name in has if name.startswith("accelerator_type:")]
    kind = f" ({', '.join(sorted(kinds))})" if kinds else ""
    parts = []
    for name, one, many in (("GPU", "GPU", "GPUs"), ("TPU", "TPU chip", "TPU chips")):
        if amount := has.get(name, 0.0):
            parts.append(f"{amount:g} {one if amount == 1 else many}{kind}")
    cores = has.get("CPU", 0.0)
    parts.append(f"{cores:g} {'core' if cores == 1 else 'cores'}")
    if memory := has.get("memory", 0.0):
        parts.append(in_bytes(memory))
    return ", ".join(parts)


def site_of(nodes: Sequence[Node], machine: Machine | None) -> Site:
    """What stages run on, of a machine or, where none is named, of what the cluster has.

    Where there are accelerators a stage that says nothing gets one. With an accelerator go the
    cores of its node's share, but for one that is left to stages without one.
    """
    name = machine.kind if machine is not None else _kind(nodes)
    key = {"gpu": "GPU", "tpu": "TPU"}.get(name)
    having = [node for node in nodes if key and node.has.get(key)]
    shares = [node.has.get("CPU", 0.0) / node.has[key] for node in having if key]
    cores = min(shares, default=1.0)
    cores = max(1.0, cores - 1.0) if cores >= 2 else cores
    if machine is not None:
        return Site.of(machine, cores)
    if not having or key is None:
        return Site(name="the cluster" if len(nodes) > 1 else "this machine")
    pods = {node.labels.get(_PODS, "").partition("-")[0] for node in having}
    version = {"v5litepod": "v5e"}.get(min(pods), min(pods))
    topologies = {node.labels.get(_TOPOLOGY, "") for node in having}
    return Site(
        name="the cluster",
        kind="tpu" if key == "TPU" else "gpu",
        version=version if version in SLICES else "v5e",
        topology=topologies.pop() if len(topologies) == 1 else "",
        devices_per_host=max(1, int(max(node.has[key] for node in having))),
        cores_per_device=cores,
    )


def _kind(nodes: Sequence[Node]) -> str:
    for name in ("TPU", "GPU"):
        if any(node.has.get(name) for node in nodes):
            return name.lower()
    return "cpu"


def refuse_impossible(shapes: Mapping[str, Shape], nodes: Sequence[Node]) -> None:
    """Tell which stages no part of the cluster could ever hold; `shapes` by what names a stage.

    Raises:
        UserError: there is one.
    """
    for label, shape in shapes.items():
        if not most_workers(shape, nodes, most=1):
            raise UserError(f"{label} needs {shape}; the cluster has {in_words(nodes)}")
