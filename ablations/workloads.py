"""Which workload a study names: a command of the user's, or a function of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from ablations.errors import shown
from ablations.workload import Workload
from ablations.yaml_files import KeyPath, YamlDocument, validate

KEY = "workload"


def named_workload(document: YamlDocument) -> Workload:
    """The workload of a study's `workload:`; its files are relative to the study's.

    Raises:
        UserError: whatever is wrong with it, with its line.
    """
    said = document.value[KEY]
    if not isinstance(said, dict):
        document.fail(
            f"{KEY}: {shown(said)} is not a mapping such as {{command: …, metrics: …}}", (KEY,)
        )

    def fail(at: KeyPath, message: str) -> NoReturn:
        place = ".".join(map(str, (KEY, *at)))
        document.fail(f"{place}: {message}", (KEY, *at))

    home = Path(document.path).parent
    if "function" in said:
        from ablations.function_workload import FunctionSpec, FunctionWorkload

        return FunctionWorkload(validate(document, FunctionSpec, said, (KEY,)), home, fail)
    from ablations.command.spec import CommandSpec
    from ablations.command.workload import CommandWorkload

    return CommandWorkload(validate(document, CommandSpec, said, (KEY,)), home, fail)
