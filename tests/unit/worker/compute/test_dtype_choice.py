"""Float32 is chosen where it is faster and fits, and never anything that would lose a bit of the weights."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.worker.compute.dtype_choice import NARROW, ProductTimes, choose, fits

times = st.floats(1e-6, 10.0)
products = st.builds(ProductTimes, few=times, many=times)

# Milliseconds of a 576 x 1536 layer and back, one thread: native bfloat16, emulated with AVX-512, and without it.
CPUS = [
    ("bfloat16", (0.26, 0.66), (0.49, 1.09), "bfloat16"),
    ("bfloat16", (0.34, 3.29), (0.54, 1.11), "float32"),
    ("bfloat16", (0.23, 5.44), (0.60, 1.52), "float32"),
    ("float16", (0.70, 5.00), (0.54, 1.11), "float32"),
]


@pytest.mark.parametrize(("stored", "narrow", "wide", "expected"), CPUS)
def test_measured_cpus(
    stored: str, narrow: tuple[float, float], wide: tuple[float, float], expected: str
) -> None:
    found = choose(stored, {stored: ProductTimes(*narrow), "float32": ProductTimes(*wide)}, decodes=True)

    assert found.name == expected
    assert bool(found.why) == (expected == "float32")


def test_a_model_that_does_not_decode_is_chosen_for_by_many_tokens_alone() -> None:
    both = {"bfloat16": ProductTimes(0.1, 1.1), "float32": ProductTimes(1.0, 1.0)}

    assert choose("bfloat16", both, decodes=False).name == "float32"
    assert choose("bfloat16", both, decodes=True).name == "bfloat16"


@given(st.sampled_from(NARROW), products, products, st.booleans())
def test_the_choice_is_what_is_stored_or_float32_and_float32_only_if_it_wins_somewhere(
    stored: str, narrow: ProductTimes, wide: ProductTimes, decodes: bool
) -> None:
    found = choose(stored, {stored: narrow, "float32": wide}, decodes)

    assert found.name in (stored, "float32")
    if found.name == "float32":
        assert wide.few < narrow.few or wide.many < narrow.many


def test_float32_must_leave_half_of_the_free_memory() -> None:
    assert fits(1_000, 8_000)
    assert not fits(1_001, 8_000)
    assert not fits(None, 1 << 40)
