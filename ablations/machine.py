"""Machines that a study may run on: devices, hosts, price. Read like a study, from YAML.

    what: Cloud TPU v5e, a slice of 16 chips
    accelerator:
      kind: tpu                       # cpu, gpu or tpu
      version: v5e                    # as Ray calls it
      memory: 16 GiB                  # of one device
      peak_tflops: {bfloat16: 197}    # of one device
      source: https://cloud.google.com/tpu/docs/v5e
    topology: 4x4                     # of a slice; TPUs only
    hosts: 4
    devices_per_host: 4
    host: {cores: 112, memory: 192 GB, source: …}
    price: {hourly: 19.2, currency: USD, what: on demand, read: 2026-12-01, source: …}

`like: v5e-16` takes over what another machine says, a known one by name or a file beside this one;
what is written beside it wins, field by field. Those that come with the platform are in
`ablations/machines`; a user's own is named by the path of its file. What is not known is left out:
no number of the platform's own is a guess, except where its source says `assumed`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, PositiveFloat, PositiveInt, model_validator

from ablations.byte_sizes import ByteSize
from ablations.errors import UserError, nearest, shown
from ablations.schema import Config
from ablations.yaml_files import YamlDocument, as_model, load_yaml

FOLDER = Path(__file__).with_name("machines")
SUFFIX = ".yaml"
MOST_LIKE = 10  # machines that follow from one another
_TOPOLOGY = re.compile(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){1,2}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")

Kind = Literal["cpu", "gpu", "tpu"]


class Utilisation(Config):
    """Share of the peak that a stage is taken to reach until one has been measured: assumed."""

    training: float = Field(0.4, gt=0, le=1)
    evaluation: float = Field(0.05, gt=0, le=1)


class Accelerator(Config):
    """One device: what it is, how fast, how large."""

    kind: Kind
    version: str = ""  # of a TPU as Ray calls it: v5e; of a GPU: A100-40G
    device_kinds: tuple[str, ...] = ()  # as JAX calls it: whose finished stages count as measured
    memory: ByteSize | None = Field(None, gt=0)  # bytes
    # dtype of a recipe → 10¹² FLOP a second, dense; float32 as JAX multiplies it by default, that
    # is in TF32 on NVIDIA's and in one bfloat16 pass on TPUs.
    peak_tflops: dict[Literal["bfloat16", "float32"], PositiveFloat] = Field({})
    utilisation: Utilisation = Utilisation()
    # Seconds that no arithmetic explains, assumed: of a step, and of a stage's files beside them.
    step_overhead: float = Field(0.002, ge=0)
    stage_overhead: float = Field(3.0, ge=0)
    source: str = ""


class Host(Config):
    """One host of a machine."""

    cores: PositiveInt | None = None
    memory: ByteSize | None = Field(None, gt=0)  # bytes
    source: str = ""


def _date(value: Any) -> Any:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise ValueError(f"{shown(value)} is not a date such as 2026-12-01")
    return value


class Price(Config):
    """What the whole machine costs."""

    hourly: float = Field(ge=0)
    currency: str = Field("USD", min_length=1, max_length=10)
    what: str = ""  # on demand, spot, our own cluster's rate
    read: Annotated[str, PlainValidator(_date)] = ""  # when the source was looked at
    source: str = ""


class Machine(Config):
    """A machine that stages run on; whoever needs the devices, here they are.

    simulated   devices are parts of one CPU process (`--xla_force_host_platform_device_count`)
    topology    of a TPU slice, its chips along each axis: 4x4
    slices      how many such machines there are at once; a stage runs on one of them
    per_gpu     how many trials share a GPU, of those that need one and do not say more
    """

    name: str
    what: str = ""
    accelerator: Accelerator
    hosts: PositiveInt = 1
    devices_per_host: PositiveInt = 1
    simulated: bool = False
    topology: str = ""
    slices: PositiveInt = 1
    per_gpu: PositiveInt = 1
    host: Host | None = None
    price: Price | None = None

    @property
    def kind(self) -> Kind:
        """Of its devices."""
        return self.accelerator.kind

    @property
    def devices(self) -> int:
        """Of one slice, or of one machine that has none."""
        return self.hosts * self.devices_per_host

    def peak_flops(self, dtype: str) -> float | None:
        """FLOP a second of one device; None where it is not known."""
        peaks: Mapping[str, float] = self.accelerator.peak_tflops  # ty: ignore[invalid-assignment]
        return None if dtype not in peaks else peaks[dtype] * 1e12

    @model_validator(mode="after")
    def _consistent(self) -> Machine:
        if self.simulated and self.kind != "cpu":
            raise ValueError(f"simulated: devices are simulated on a cpu, not on a {self.kind}")
        if self.kind == "cpu" and not self.simulated and self.devices_per_host > 1:
            raise ValueError("devices_per_host: a cpu is one device; several need simulated: true")
        if self.per_gpu > 1 and self.kind != "gpu":
            raise ValueError(f"per_gpu: trials share GPUs, not a {self.kind}")
        if self.topology and self.kind != "tpu":
            raise ValueError(f"topology: only TPU slices have one, not a {self.kind}")
        if self.kind == "tpu":
            _check_slice(self.topology, self.devices)
        return self


def _check_slice(topology: str, devices: int) -> None:
    if not _TOPOLOGY.fullmatch(topology):
        raise ValueError(f"topology: {shown(topology)} is not the shape of a slice such as 4x4")
    chips = math.prod(map(int, topology.split("x")))
    if chips != devices:
        raise ValueError(
            f"topology: {topology} has {chips} chips, and hosts · devices_per_host is {devices}"
        )


def known() -> list[str]:
    """Names of the machines that come with the platform, smallest number first within a kind."""

    def by_number(name: str) -> tuple[str, int]:
        kind, _, number = name.rpartition("-")
        return (kind, int(number)) if number.isdecimal() else (name, 0)

    return sorted((file.stem for file in FOLDER.glob(f"*{SUFFIX}")), key=by_number)


def load_machine(name: str, beside: Path | None = None) -> Machine:
    """A machine by its name, or by the path of its file, taken from where another file lies.

    Raises:
        UserError: there is none, or its file is wrong; with file, line and the nearest choice.
    """
    path = _file_of(name, Path() if beside is None else beside.parent)
    if path is None:
        raise UserError(
            f"no machine {shown(name)}{nearest(name, known())}; or give the path of your own file"
        )
    document = load_yaml(path)
    said = _whole(document, (path.resolve(),))
    return as_model(_document_of(document, {**said, "name": path.stem}), Machine)


def with_price(machine: Machine, hourly: float) -> Machine:
    """The same at another price an hour, in its currency.

    Raises `UserError` for a price that is none.
    """
    if not math.isfinite(hourly) or hourly < 0:
        raise UserError(f"--price {hourly:g}: a price an hour is a number of at least 0")
    currency = machine.price.currency if machine.price else "USD"
    price = Price(hourly=hourly, currency=currency, source="--price")
    return machine.model_copy(update={"price": price})


def _file_of(name: str, folder: Path) -> Path | None:
    """The file of a machine by its name, or by its path from a folder; None: there is no such."""
    if name.endswith((SUFFIX, ".yml")) or "/" in name:
        return folder / name
    return FOLDER / f"{name}{SUFFIX}" if name in known() else None


def _whole(document: YamlDocument, way: tuple[Path, ...]) -> dict[str, Any]:
    """What a file says, with what the machines that it is like say."""
    said = dict(document.value)
    if "name" in said:
        document.fail("unknown key 'name': a machine is called by the name of its file", ("name",))
    if "like" not in said:
        return said
    other = said.pop("like")
    if not isinstance(other, str):
        document.fail(f"like: {shown(other)} is not the name or the path of a machine", ("like",))
    path = _file_of(other, Path(document.path).parent)
    if path is None:
        document.fail(f"like: no machine {shown(other)}{nearest(other, known())}", ("like",))
    if path.resolve() in way or len(way) > MOST_LIKE:
        document.fail(f"like: {shown(other)} is like this one itself", ("like",))
    below = load_yaml(path)
    return _merged(_whole(below, (*way, path.resolve())), said)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`; a whole price, so that none keeps another's source."""
    merged = {**below, **above}
    for key in below.keys() & above.keys() - {"price"}:
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merged(below[key], above[key])
    return merged


def _document_of(document: YamlDocument, said: dict[str, Any]) -> YamlDocument:
    """The file with all that it says; what another says has no line in it."""
    return YamlDocument(document.path, document.text, said, document.lines)
