"""Importing the schemas is fast: it loads neither torch nor the libraries that only some functions need."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_schemas_loads_no_heavy_library():
    names = ("torch", "cattrs", "msgspec")
    modules = "eflm_schemas, eflm_schemas.options, eflm_schemas.comparison, eflm_schemas.jsonschema"
    code = f"import sys, {modules}; print([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
