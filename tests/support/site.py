"""A folder of packages for tests that need distributions with entry points."""

from __future__ import annotations

import textwrap
from pathlib import Path


class Site:
    """A folder of installed packages, in the form that pip installs them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def install(self, distribution: str, code: str, *, version: str = "1.0", entry: str = "plugin") -> None:
        """Install a distribution with one module, which is the manifest that the entry point `entry` names."""
        module = distribution.replace("-", "_")
        (self.root / f"{module}.py").write_text(textwrap.dedent(code))
        info = self.root / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[eflm]\n{entry} = {module}\n")

    def poison(self, *names: str) -> None:
        """Install packages whose import fails; they hide the real ones."""
        for name in names:
            (self.root / name).mkdir()
            (self.root / name / "__init__.py").write_text(f"raise RuntimeError('{name} was imported')\n")

    def hide(self, *names: str) -> None:
        """Make imports of packages fail as if they were not installed."""
        (self.root / "sitecustomize.py").write_text(
            textwrap.dedent(f"""
            import sys

            class Hidden:
                def find_spec(self, name, path=None, target=None):
                    if name.partition(".")[0] in {names!r}:
                        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

            sys.meta_path.insert(0, Hidden())
            """)
        )
