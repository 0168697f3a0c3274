"""When are two pieces of work the same? The identity of a stage.

A study is cheap to repeat, to extend and to share because work is named by what decides its
result. Take a recipe A and three changes of it:

    A   train (seed 0) ──► evaluate easy_vqa
    B   = A with `log_every: 5`            same training, same evaluation: nothing runs
    C   = A, also scored on captions       same training; one new evaluation
    D   = A with a 16-pixel encoder        new training, new evaluation

The identity of a stage is the hash of

    kind      "multimodal", "evaluation", …
    config    its own resolved config, without the fields marked as not affecting results
    seed      of the trial
    inputs    identities of the stages it reads; so a retrained model is evaluated anew
    data      fingerprint of the data: package versions, preparation settings, preparer's code
    code      fingerprint of the source that the stage executes

and of nothing else: no time, host, path, display name, device count or library version. Those are
kept beside the result, in its execution record. In particular B's training is A's because
`log_every` is marked in `mm1_jax.config`, and C's because tasks are no part of a training's config
or code.

**Code.** The fingerprint covers the module a stage starts in and every module of ours that it
imports, directly or not, wherever the import stands: found by parsing, without importing anything.
A package's `__init__` counts only where a name is taken from it. Ours are the modules of its own
package, whatever lies in the same folder as that (a trainer of several files), and packages that
lie beside `ablations` and are written for it, as our model is: so a user's trainer that builds on
the model is another one when the model is. `ablations`, `sweeps`, `analysis` and `mm1` are not
followed: what a stage takes from them is the contract that it is run by (what a row is, what an
error is), and a change of that which matters changes the stage's own code, or the store's schema
version.

What can change no result is no part of it: comments, docstrings, layout, sentences of errors, and
what says of itself that it decides nothing (costs, transport, log output): `ablations.source_code`.
A change that alters no result for another reason is written down in `code_equivalences.yaml` (old
fingerprint, new fingerprint, reason): the new code then keeps the identities of the old. `make
code` prints the present fingerprints.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import re
import site
import sysconfig
from collections.abc import Mapping
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from ablations.errors import UserError, shown
from ablations.fingerprints import canonical, fingerprint, fingerprint_of_text
from ablations.source_facts import Import, keep, source_facts, source_text
from ablations.workload import Code
from ablations.yaml_files import load_yaml

PROJECT = Path(__file__).resolve().parent.parent
PLATFORM = ("ablations", "sweeps", "analysis", "mm1")  # plans, runs and reads; trains nothing
_CONTRACT = re.compile(r"^\s*(from|import) ablations\b", re.MULTILINE)
EQUIVALENCES = Path(__file__).with_name("code_equivalences.yaml")


def decides(*, kind: str, config: str, data: str, code: str) -> str:
    """Fingerprint of all that decides a stage's result but its seed and its inputs.

    `config` is canonical JSON of what of it affects results.
    """
    before, after = canonical({"code": code}), canonical({"data": data, "kind": kind})
    return fingerprint_of_text(f'{before[:-1]},"config":{config},{after[1:]}')


def stage_id(decided: str, seed: int, inputs: Mapping[str, str]) -> str:
    """Identity of a stage; `inputs` are identities by name."""
    read = ",".join([f"{name}={source}" for name, source in sorted(inputs.items())])
    return hashlib.sha256(f"{decided} {seed} {read}".encode()).hexdigest()[:32]


@cache
def code_parts(module: str, function: str = "", also: tuple[str, ...] = ()) -> dict[str, str]:
    """Part of the code → what it does, as a hash: each module, and the function that is called.

    `function` tells apart several runners in one module. `also` are modules that are found by
    name while it runs, which no import statement says.

    Raises:
        UserError: a module cannot be found.
    """
    found = {path: name for root in (module, *also) for name, path in closure(root).items()}
    parts = {name: source_facts(path).does for path, name in found.items()}
    keep()
    return {"": function, **dict(sorted(parts.items()))}


@cache
def code_fingerprint(module: str, function: str = "", also: tuple[str, ...] = ()) -> str:
    """Fingerprint of `code_parts`, equivalences applied. Raises as that."""
    return original(fingerprint(code_parts(module, function, also)))


def fingerprint_of(code: Code) -> str:
    """Fingerprint of what some code is here and now. Raises `UserError`."""
    return original(fingerprint(parts_of(code)))


def parts_of(code: Code) -> dict[str, str]:
    """Each module or file of some code → what it does, as a hash. Raises `UserError`."""
    if code.folder:
        from ablations.command import standing

        return dict(standing.code_parts(Path(code.folder), code.commit, code.files))
    return code_parts(code.module, code.function, code.also)


def original(code: str) -> str:
    """Follow the committed equivalences from new to old, as far as they go."""
    known = _equivalences()
    seen = {code}
    while code in known:
        code = known[code]
        if code in seen:
            raise UserError(f"equivalences go in a circle at {code}", file=str(EQUIVALENCES))
        seen.add(code)
    return code


@cache
def _equivalences() -> dict[str, str]:
    document = load_yaml(EQUIVALENCES)
    found: dict[str, str] = {}
    for index, entry in enumerate(document.value.get("equivalent", [])):
        if not isinstance(entry, dict) or set(entry) != {"old", "new", "reason"}:
            document.fail("expected {old: …, new: …, reason: …}", ("equivalent", index))
        found[entry["new"]] = entry["old"]
    return found


def closure(module: str) -> dict[str, Path]:
    """Module name → file of a module and of what of ours it imports, what decides nothing left out.

    Raises:
        UserError: it cannot be found, or is compiled.
    """
    root = source_file(module)
    if root is None:
        raise UserError(f"module {shown(module)} cannot be found; is its folder on PYTHONPATH?")
    if root.suffix != ".py":
        raise UserError(
            f"module {shown(module)} is compiled ({root}): without its source nobody can say when "
            "results are old; name a Python module that calls it"
        )
    own = module.partition(".")[0]
    found = {module: root}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        for imported in _imports(name, found[name]):
            top = imported.partition(".")[0]
            if imported in found or not (is_with(top, own) or is_beside(top)):
                continue
            path = source_file(imported)
            if path is not None and path.suffix == ".py" and _decides(imported):
                found[imported] = path
                waiting.append(imported)
    return dict(sorted(found.items()))


@cache
def is_with(package: str, own: str) -> bool:
    """Whether a package or module is `own` or lies in one folder with it, as a trainer's files do.

    Where packages are installed, other people's lie side by side.
    """
    if package == own:
        return True
    folder = _folder(own)
    return (
        package not in PLATFORM
        and folder is not None
        and folder not in _installed()
        and folder == _folder(package)
    )


def _folder(package: str) -> Path | None:
    """Where a package's folder or a module's file lies; None where it has no source."""
    if (place := package_place(package)) is None:
        return None
    return place.resolve().parent


def package_place(name: str) -> Path | None:
    """Folder of a package, also of one without `__init__.py`, or file of a module at the top."""
    try:
        spec = _package(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.has_location and spec.origin else None


@cache
def _installed() -> frozenset[Path]:
    """Folders of Python itself and of what is installed into it."""
    paths = (*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages())
    return frozenset(Path(path).resolve() for path in paths)


@cache
def is_beside(package: str) -> bool:
    """Whether a package lies beside `ablations` and is written for it: a model of this project.

    It is where a module at its top takes the contract of a stage from `ablations`. Where all is
    installed, other people's packages lie there too.
    """
    folder = PROJECT / package
    if package in PLATFORM or not (folder / "__init__.py").is_file():
        return False
    return any(_CONTRACT.search(source_text(path)) for path in sorted(folder.glob("*.py")))


@cache
def _decides(module: str) -> bool:
    """Whether neither a module nor a package around it says that it decides no result."""
    parts = module.split(".")
    files = (source_file(".".join(parts[:count])) for count in range(1, len(parts) + 1))
    return all(source_facts(file).decides for file in files if file and file.suffix == ".py")


@cache
def source_file(module: str) -> Path | None:
    """File of a module, found without importing it or its parents; None if there is none."""
    top, *rest = module.split(".")
    try:
        spec = _package(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    if spec.submodule_search_locations is None:
        return None
    for folder in spec.submodule_search_locations:
        place = Path(folder).joinpath(*rest)
        compiled = (place.with_suffix(end) for end in importlib.machinery.EXTENSION_SUFFIXES)
        for path in (place.with_suffix(".py"), place / "__init__.py", *compiled):
            if path.is_file():
                return path
    return None


def is_there(module: str) -> bool:
    """Whether a module can be imported, as far as that is known without importing anything."""
    top, *rest = module.split(".")
    if source_file(module) is not None:
        return True
    try:
        spec = _package(top)
    except (ImportError, ValueError):
        return False
    if spec is None or spec.submodule_search_locations is None:
        return spec is not None and not rest
    # A folder without __init__.py is a package too.
    return any(Path(f).joinpath(*rest).is_dir() for f in spec.submodule_search_locations)


def _package(name: str) -> ModuleSpec | None:
    """Where a worker finds a package: ours by its own location, others along the search path.

    Not what this process has imported: `analysis` may be ours here and a user's there.
    """
    if name == "__main__":  # this process's, whatever that is
        return None
    if is_beside(name):
        return PathFinder.find_spec(name, [str(PROJECT)])
    return PathFinder.find_spec(name) or importlib.util.find_spec(name)


@cache
def _imports(module: str, path: Path) -> tuple[str, ...]:
    """Modules that a module's source names in import statements, but for type checkers' sake."""
    found: set[str] = set()
    for statement in source_facts(path).imports:
        if statement.names is None:
            found.add(statement.module or "")
            continue
        source = imported_from(statement, module, path)
        for name in statement.names:
            inner = f"{source}.{name}"
            found.add(inner if source_file(inner) is not None else source)
    return tuple(sorted(found))


def imported_from(node: ast.ImportFrom | Import, module: str, path: Path) -> str:
    """The module that a `from … import …` in a module's file names, dots resolved."""
    source = node.module or ""
    if node.level:
        parents = module.split(".")
        kept = len(parents) - node.level + (path.name == "__init__.py")
        source = ".".join([*parents[:kept], *filter(None, [source])])
    return source
