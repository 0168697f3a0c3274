"""What a worker is to hold for a stage: what the stage needs, on the devices that are there.

    a mesh of 8 devices    on a laptop      one process that simulates eight
                           on an 8-GPU host one process with eight GPUs
                           on two of 4      two processes with four each
                           on TPUs          a slice of eight chips
    nothing said           on a laptop      one core
                           on GPUs          one GPU, or a share where several trials share one
    gpu: 0                 anywhere         cores alone

A recipe is never changed by where it runs: without a mesh it is trained on one device, so that an
8-GPU host trains eight trials at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from ablations.errors import UserError
from ablations.machine import Kind, Machine
from ablations.resources import SLICES, Resources, Shape, Slice, chips_of


@dataclass(frozen=True)
class Site:
    """The devices that stages run on, of a machine or of what a cluster has."""

    name: str
    kind: Kind = "cpu"
    version: str = ""  # of TPUs
    topology: str = ""  # of a slice, where it is known
    hosts: int | None = None  # None: as many as it takes
    devices_per_host: int = 1
    simulates: int | None = None  # most devices of one process; None: as many as it takes
    per_gpu: int = 1  # trials that share a GPU, of those that need one and do not say more
    cores_per_device: float = 1.0  # that go with an accelerator

    @classmethod
    def of(cls, machine: Machine, cores_per_device: float = 1.0) -> Site:
        """Of a machine; the cores are those of the nodes that it really has."""
        return cls(
            name=machine.name,
            kind=machine.kind,
            version=machine.accelerator.version if machine.kind == "tpu" else "",
            topology=machine.topology,
            hosts=machine.hosts,
            devices_per_host=machine.devices_per_host,
            simulates=machine.devices_per_host if machine.simulated else 1,
            per_gpu=machine.per_gpu,
            cores_per_device=cores_per_device,
        )


def shape_of(need: Resources, site: Site, label: str) -> Shape:
    """What a worker holds for a stage, which `label` names.

    Raises:
        UserError: the site has no such devices, or not that many.
    """
    if need.tpu is not None:
        return _slice(need, need.tpu, site)
    if need.gpu:
        return _with_gpus(need, site, need.gpu, need.hosts)
    if need.gpu is None and site.kind == "gpu":
        hosts, each = _shared_out(need, site, label)
        share = 1 / site.per_gpu if need.devices == 1 and hosts == 1 else each
        return _with_gpus(need, site, share, hosts)
    if need.gpu is None and site.kind == "tpu":
        return _slice(need, _chips(need, site, label), site)
    each = need.devices // need.hosts if need.devices > 1 else 1
    if site.simulates is not None and site.kind == "cpu" and each > site.simulates:
        raise UserError(
            f"{label} spans {each} devices in a process, {site.name} has {site.simulates}; take "
            "another mesh, or a machine with as many (`simulated: true`, `devices_per_host`)"
        )
    return Shape(
        cpu=need.cpu or 1.0,
        memory_bytes=need.memory_bytes,
        hosts=need.hosts,
        simulated_devices=each,
    )


def _with_gpus(need: Resources, site: Site, gpu: float, hosts: int) -> Shape:
    share = site.cores_per_device * gpu
    return Shape(
        cpu=need.cpu or (float(int(share)) if share >= 1 else min(1.0, share)),
        gpu=gpu,
        memory_bytes=need.memory_bytes,
        hosts=hosts,
    )


def _shared_out(need: Resources, site: Site, label: str) -> tuple[int, int]:
    """Over how many hosts a stage's devices are shared out, and how many each has."""
    hosts = max(need.hosts, -(-need.devices // site.devices_per_host))
    each = max(1, need.devices // hosts)
    uneven = need.devices > 1 and each * hosts != need.devices
    if uneven or each > site.devices_per_host or (site.hosts is not None and hosts > site.hosts):
        there = f"{site.hosts} hosts with " if (site.hosts or 1) > 1 else ""
        raise UserError(
            f"{label} spans {need.devices} devices, {site.name} has {there}"
            f"{site.devices_per_host}{' each' if there else ''}"
        )
    return hosts, each


def _chips(need: Resources, site: Site, label: str) -> Slice:
    """The slice of a TPU site that has as many chips as a stage spans devices."""
    wanted = max(need.devices, need.hosts)
    if site.topology and chips_of(site.topology) == wanted:
        return Slice(version=site.version, topology=site.topology)
    if wanted == 1:
        axes = SLICES[site.version][0].count("x") + 1
        return Slice(version=site.version, topology="x".join(["1"] * axes))
    for topology in SLICES[site.version]:
        if chips_of(topology) == wanted:
            return Slice(version=site.version, topology=topology)
    sizes = ", ".join(str(chips_of(topology)) for topology in SLICES[site.version])
    raise UserError(f"{label} spans {wanted} devices, {site.version} slices have {sizes}")


def _slice(need: Resources, chips: Slice, site: Site) -> Shape:
    per_host = site.devices_per_host if site.kind == "tpu" else chips.chips_per_host
    hosts = need.hosts if need.hosts > 1 else -(-chips.chips // per_host)
    cpu = need.cpu or max(1.0, float(int(site.cores_per_device * chips.chips / hosts)))
    return Shape(cpu=cpu, memory_bytes=need.memory_bytes, hosts=hosts, tpu=chips)
