"""No two files import each other, directly or through others, also not inside functions."""

from __future__ import annotations

import grimp

PACKAGES = ("eflm", "eflm_schemas", "eflm_plugins", "eflm_analysis", "eflm_vision")


def test_no_cycle_between_files():
    graph = grimp.build_graph(*PACKAGES)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    # Without the modules that import nothing, then without those that import only such, and so on, nothing is left.
    while leaves := {module for module, imported in imports.items() if not imported}:
        imports = {module: imported - leaves for module, imported in imports.items() if module not in leaves}
    assert sorted(imports) == []
