"""Result files: what was measured, on which machine, with which versions, by which command."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("machgraph", "torch", "numpy", "numba", "optuna", "scikit-learn")


def write(name: str, command: str, result: Any, folder: Path = FOLDER) -> Path:
    """Write ``NAME.json`` into the folder, with the result and all that it depends on."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    record = {"command": command, "date": datetime.now(UTC).date().isoformat(), "machine": machine(), "result": result}
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def machine() -> dict[str, Any]:
    """The processor, its cores, and the versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str | None:
    """None in a checkout that runs without being installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
