"""What has happened since the agent started, counted for whoever asks for /metrics."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Changed on the event loop only."""

    started_pods: int = 0  # sandboxes
    started_containers: Counter[str] = field(default_factory=Counter)  # by type
    evictions: Counter[str] = field(default_factory=Counter)  # by signal
    rejections: Counter[str] = field(default_factory=Counter)  # by reason
