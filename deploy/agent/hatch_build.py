"""What the agent needs stands in one place only, requirements/host.txt: the wheel takes it from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

NEEDED = Path("..", "..", "requirements", "host.txt")


class Requirements(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        lines = Path(self.root, NEEDED).read_text(encoding="utf-8").splitlines()
        words = (line.partition("#")[0].strip() for line in lines)
        metadata["dependencies"] = [word for word in words if word]
