"""RAPL: the energy counters of the CPU, read as files. The parent process samples them in runs on the CPU."""

from __future__ import annotations

from pathlib import Path

from attrs import define

from eflm.protocol.energy import NoEnergy

POWERCAP = Path("/sys/class/powercap")


@define
class _Domain:
    """One counter in microjoules, which wraps around after `range`."""

    name: str
    path: Path
    range: int
    last: int
    total: int = 0

    def read(self) -> int:
        now = int(self.path.read_text())
        step = now - self.last
        self.total += step if step >= 0 else step + self.range + 1
        self.last = now
        return self.total


class Rapl:
    """The package and DRAM domains together, as energy in J since this object was made."""

    def __init__(self, domains: list[_Domain]) -> None:
        self._domains = domains
        self.source = "RAPL " + " + ".join(sorted({domain.name for domain in domains}))

    def read(self) -> dict[str, float]:
        """`{"energy": J}`; OSError when a counter has become unreadable."""
        return {"energy": sum(domain.read() for domain in self._domains) / 1e6}


def find_rapl(root: Path = POWERCAP) -> Rapl | NoEnergy:
    """The RAPL counters under `root`, or the reason why none can be read."""
    domains = []
    refused: list[str] = []
    # Not intel-rapl-mmio: it is another way to the same counters.
    for folder in sorted(root.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text().strip()
            # Cores and the uncore are parts of their package; psys includes the package.
            if not (name.startswith("package") or name == "dram"):
                continue
            counter = folder / "energy_uj"
            span = int((folder / "max_energy_range_uj").read_text())
            domains.append(_Domain(name.split("-")[0], counter, span, int(counter.read_text())))
        except PermissionError as error:
            refused.append(str(error.filename))
        except (OSError, ValueError):
            continue
    # One package without the other would be an undercount: if one counter is unreadable, report none.
    if refused:
        return NoEnergy(
            "the RAPL counters of this CPU are readable by root only; "
            f"`chmod a+r {' '.join(refused)}` (as root) opens them"
        )
    if not domains:
        return NoEnergy(f"no RAPL counter in {root} (a virtual machine hides it)")
    return Rapl(domains)


def rapl(_devices: object) -> Rapl | NoEnergy:
    """The factory that the card names."""
    return find_rapl()
