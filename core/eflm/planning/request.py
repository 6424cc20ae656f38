"""From the values of a command line or a call to a RunSpec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eflm.errors import UsageError
from eflm.planning.options import near
from eflm.registry.kinds import technique_kinds
from eflm_schemas import RunSpec


def request(*, techniques: Mapping[str, str | None], **fields: Any) -> RunSpec:
    """A RunSpec; UsageError for a value that it does not accept. Techniques that are None are left out."""
    flags = [row.flag for row in technique_kinds()]
    for flag in techniques:
        if flag not in flags:
            raise UsageError(f"there is no argument {flag!r}; {near(flag, flags)} for a technique")
    try:
        return RunSpec(techniques={f: name for f, name in techniques.items() if name is not None}, **fields)
    except (TypeError, ValueError) as error:
        raise UsageError(f"invalid option: {error.args[0] if error.args else error}") from None
