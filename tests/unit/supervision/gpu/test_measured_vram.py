"""What processes were seen to hold, remembered for the next plan."""

from __future__ import annotations

from pathlib import Path

from llmlaunch.supervision.gpu import measured_vram


def test_learned_memory_adds_up_and_forgives_nonsense(home: Path) -> None:
    assert measured_vram.load_measurements() == {}
    measured_vram.record_measurement("a", 5)
    measured_vram.record_measurement("b", 6)
    measured_vram.record_measurement("a", 7)
    assert measured_vram.load_measurements() == {"a": 7, "b": 6}
    measured_vram.measurements_file().write_text('{"a": "x", "b": -1, "c": true, "d": 4}')
    assert measured_vram.load_measurements() == {"d": 4}
