"""There is no import cycle between files, including imports inside functions."""

from __future__ import annotations

import grimp

PACKAGES = ("eflm", "eflm_schemas", "eflm_plugins", "eflm_analysis", "eflm_vision")


def test_there_is_no_import_cycle():
    graph = grimp.build_graph(*PACKAGES)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    # Remove modules that import no remaining module until there are none. What is left is in a cycle or imports one.
    while leaves := {module for module, imported in imports.items() if not imported}:
        imports = {module: imported - leaves for module, imported in imports.items() if module not in leaves}
    assert sorted(imports) == []
