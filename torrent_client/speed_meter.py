"""Bytes per second, of the last second and smoothed.

Spec: none.
Thread: `add` on one thread, `tick` on another; a lost update costs one reading.
Lock: none.
"""


class SpeedMeter:
    """Counts bytes, and tells how fast they come."""

    SMOOTHING = 0.3
    """Weight of the newest second in the smoothed rate: it follows a change within some five seconds."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.total = 0
        self.last_second = 0.0
        self.smoothed = 0.0
        self._total_before = 0
        self._readings = 0

    def add(self, count: int) -> None:
        """Count bytes."""
        self.total += count

    def tick(self, seconds: float) -> None:
        """Take a reading.

        Args:
            seconds: time since the last one.
        """
        total = self.total
        self.last_second = (total - self._total_before) / seconds if seconds > 0 else 0.0
        self._total_before = total
        self._readings += 1
        weight = max(self.SMOOTHING, 1 / self._readings)  # the first readings are a plain mean
        self.smoothed += weight * (self.last_second - self.smoothed)
        if self.smoothed < 1:
            self.smoothed = 0.0
