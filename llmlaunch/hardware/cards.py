"""Kinds of NVIDIA GPUs, and what NVML says of each.

Totals are what nvidia-smi prints, to a few MiB; the reserved memory is typical, and differs by some tens of MiB between
drivers. GPUs that share the machine's main memory have what is usual of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Card:
    """One kind of GPU. Memory in MiB; ``nvlinks``: lanes to the other GPUs of its box."""

    name: str
    """As NVML gives it."""
    total: int
    reserved: int
    capability: tuple[int, int]
    nvlinks: int = 0
    main_memory: bool = False
    """It has no memory of its own and uses the machine's: ``total`` is MemTotal of such a machine."""


CARDS = {
    "P100": Card("Tesla P100-PCIE-16GB", 16384, 216, (6, 0)),
    "P40": Card("Tesla P40", 24576, 215, (6, 1)),
    "V100-16GB": Card("Tesla V100-SXM2-16GB", 16384, 228, (7, 0), 6),
    "V100-32GB": Card("Tesla V100-SXM2-32GB", 32768, 271, (7, 0), 6),
    "V100-PCIE-16GB": Card("Tesla V100-PCIE-16GB", 16384, 228, (7, 0)),
    "V100-PCIE-32GB": Card("Tesla V100-PCIE-32GB", 32768, 271, (7, 0)),
    "T4": Card("Tesla T4", 15360, 447, (7, 5)),
    "GTX1080Ti": Card("NVIDIA GeForce GTX 1080 Ti", 11264, 165, (6, 1)),
    "RTX2060": Card("NVIDIA GeForce RTX 2060", 6144, 220, (7, 5)),
    "RTX2070": Card("NVIDIA GeForce RTX 2070", 8192, 227, (7, 5)),
    "RTX2080": Card("NVIDIA GeForce RTX 2080", 8192, 227, (7, 5)),
    "RTX2080Ti": Card("NVIDIA GeForce RTX 2080 Ti", 11264, 245, (7, 5)),
    "TITANRTX": Card("NVIDIA TITAN RTX", 24576, 260, (7, 5)),
    "RTX3060": Card("NVIDIA GeForce RTX 3060", 12288, 238, (8, 6)),
    "RTX3060Ti": Card("NVIDIA GeForce RTX 3060 Ti", 8192, 220, (8, 6)),
    "RTX3070": Card("NVIDIA GeForce RTX 3070", 8192, 220, (8, 6)),
    "RTX3080": Card("NVIDIA GeForce RTX 3080", 10240, 225, (8, 6)),
    "RTX3080Ti": Card("NVIDIA GeForce RTX 3080 Ti", 12288, 240, (8, 6)),
    "RTX3090": Card("NVIDIA GeForce RTX 3090", 24576, 311, (8, 6)),
    "RTX3090Ti": Card("NVIDIA GeForce RTX 3090 Ti", 24564, 311, (8, 6)),
    "RTX4060": Card("NVIDIA GeForce RTX 4060", 8188, 330, (8, 9)),
    "RTX4060Ti": Card("NVIDIA GeForce RTX 4060 Ti", 16380, 367, (8, 9)),
    "RTX4060Ti-8GB": Card("NVIDIA GeForce RTX 4060 Ti", 8188, 340, (8, 9)),
    "RTX4070": Card("NVIDIA GeForce RTX 4070", 12282, 356, (8, 9)),
    "RTX4070SUPER": Card("NVIDIA GeForce RTX 4070 SUPER", 12282, 356, (8, 9)),
    "RTX4070Ti": Card("NVIDIA GeForce RTX 4070 Ti", 12282, 356, (8, 9)),
    "RTX4070TiSUPER": Card("NVIDIA GeForce RTX 4070 Ti SUPER", 16376, 382, (8, 9)),
    "RTX4080": Card("NVIDIA GeForce RTX 4080", 16376, 382, (8, 9)),
    "RTX4080SUPER": Card("NVIDIA GeForce RTX 4080 SUPER", 16376, 382, (8, 9)),
    "RTX4090": Card("NVIDIA GeForce RTX 4090", 24564, 516, (8, 9)),
    "RTX4090D": Card("NVIDIA GeForce RTX 4090 D", 24564, 516, (8, 9)),
    "RTX5060": Card("NVIDIA GeForce RTX 5060", 8151, 340, (12, 0)),
    "RTX5060Ti": Card("NVIDIA GeForce RTX 5060 Ti", 16311, 390, (12, 0)),
    "RTX5060Ti-8GB": Card("NVIDIA GeForce RTX 5060 Ti", 8151, 340, (12, 0)),
    "RTX5070": Card("NVIDIA GeForce RTX 5070", 12227, 370, (12, 0)),
    "RTX5070Ti": Card("NVIDIA GeForce RTX 5070 Ti", 16303, 400, (12, 0)),
    "RTX5080": Card("NVIDIA GeForce RTX 5080", 16303, 400, (12, 0)),
    "RTX5090": Card("NVIDIA GeForce RTX 5090", 32607, 518, (12, 0)),
    "RTX5090D": Card("NVIDIA GeForce RTX 5090 D", 32607, 518, (12, 0)),
    "RTXA2000": Card("NVIDIA RTX A2000 12GB", 12282, 240, (8, 6)),
    "RTXA4000": Card("NVIDIA RTX A4000", 16376, 261, (8, 6)),
    "RTXA4500": Card("NVIDIA RTX A4500", 20470, 290, (8, 6)),
    "RTXA5000": Card("NVIDIA RTX A5000", 24564, 310, (8, 6)),
    "RTXA6000": Card("NVIDIA RTX A6000", 49140, 454, (8, 6)),
    "RTX2000Ada": Card("NVIDIA RTX 2000 Ada Generation", 16380, 367, (8, 9)),
    "RTX4000Ada": Card("NVIDIA RTX 4000 Ada Generation", 20475, 430, (8, 9)),
    "RTX4500Ada": Card("NVIDIA RTX 4500 Ada Generation", 24570, 480, (8, 9)),
    "RTX5000Ada": Card("NVIDIA RTX 5000 Ada Generation", 32760, 550, (8, 9)),
    "RTX6000Ada": Card("NVIDIA RTX 6000 Ada Generation", 49140, 633, (8, 9)),
    "RTXPRO2000": Card("NVIDIA RTX PRO 2000 Blackwell", 16311, 390, (12, 0)),
    "RTXPRO4000": Card("NVIDIA RTX PRO 4000 Blackwell", 24467, 460, (12, 0)),
    "RTXPRO4500": Card("NVIDIA RTX PRO 4500 Blackwell", 32623, 520, (12, 0)),
    "RTXPRO5000": Card("NVIDIA RTX PRO 5000 Blackwell", 48935, 600, (12, 0)),
    "RTXPRO5000-72GB": Card("NVIDIA RTX PRO 5000 72GB Blackwell", 73415, 620, (12, 0)),
    "RTXPRO6000": Card("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 97887, 650, (12, 0)),
    "RTXPRO6000-MaxQ": Card("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 97887, 650, (12, 0)),
    "RTXPRO6000-Server": Card("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, 650, (12, 0)),
    "A2": Card("NVIDIA A2", 15356, 260, (8, 6)),
    "A10": Card("NVIDIA A10", 23028, 307, (8, 6)),
    "A10G": Card("NVIDIA A10G", 23028, 307, (8, 6)),
    "A16": Card("NVIDIA A16", 15356, 260, (8, 6)),
    "A30": Card("NVIDIA A30", 24576, 434, (8, 0)),
    "A40": Card("NVIDIA A40", 46068, 436, (8, 6)),
    "A100-40GB": Card("NVIDIA A100-SXM4-40GB", 40960, 524, (8, 0), 12),
    "A100-80GB": Card("NVIDIA A100-SXM4-80GB", 81920, 669, (8, 0), 12),
    "A100-PCIE-40GB": Card("NVIDIA A100-PCIE-40GB", 40960, 524, (8, 0)),
    "A100-PCIE-80GB": Card("NVIDIA A100 80GB PCIe", 81920, 669, (8, 0)),
    "A800-80GB": Card("NVIDIA A800-SXM4-80GB", 81920, 669, (8, 0), 8),
    "L4": Card("NVIDIA L4", 23034, 566, (8, 9)),
    "L20": Card("NVIDIA L20", 46068, 598, (8, 9)),
    "L40": Card("NVIDIA L40", 46068, 633, (8, 9)),
    "L40S": Card("NVIDIA L40S", 46068, 598, (8, 9)),
    "H20-96GB": Card("NVIDIA H20", 97871, 620, (9, 0), 18),
    "H20-141GB": Card("NVIDIA H20-3e", 143771, 633, (9, 0), 18),
    "H100-80GB": Card("NVIDIA H100 80GB HBM3", 81559, 551, (9, 0), 18),
    "H100-PCIE-80GB": Card("NVIDIA H100 PCIe", 81559, 551, (9, 0)),
    "H100-NVL-94GB": Card("NVIDIA H100 NVL", 95830, 600, (9, 0)),
    "H800-80GB": Card("NVIDIA H800", 81559, 551, (9, 0), 8),
    "H200-141GB": Card("NVIDIA H200", 143771, 633, (9, 0), 18),
    "H200-NVL": Card("NVIDIA H200 NVL", 143771, 633, (9, 0)),
    "GH200-96GB": Card("NVIDIA GH200 480GB", 97871, 620, (9, 0)),
    "GH200-144GB": Card("NVIDIA GH200 144G HBM3e", 146831, 640, (9, 0)),
    "B200-180GB": Card("NVIDIA B200", 183359, 750, (10, 0), 18),
    "GB200-186GB": Card("NVIDIA GB200", 189471, 760, (10, 0), 18),
    "B300-270GB": Card("NVIDIA B300 SXM6 AC", 275040, 900, (10, 3), 18),
    "GB300-278GB": Card("NVIDIA GB300", 284208, 910, (10, 3), 18),
    "GB10": Card("NVIDIA GB10", 122548, 0, (12, 1), main_memory=True),
    "Jetson-AGX-Thor": Card("NVIDIA Thor", 125771, 0, (11, 0), main_memory=True),
    "Jetson-T4000": Card("NVIDIA Thor", 62890, 0, (11, 0), main_memory=True),
    "Jetson-AGX-Orin-64GB": Card("Orin (nvgpu)", 62841, 0, (8, 7), main_memory=True),
    "Jetson-AGX-Orin-32GB": Card("Orin (nvgpu)", 30697, 0, (8, 7), main_memory=True),
    "Jetson-Orin-NX-16GB": Card("Orin (nvgpu)", 15656, 0, (8, 7), main_memory=True),
    "Jetson-Orin-NX-8GB": Card("Orin (nvgpu)", 7620, 0, (8, 7), main_memory=True),
    "Jetson-Orin-Nano-8GB": Card("Orin (nvgpu)", 7620, 0, (8, 7), main_memory=True),
    "Jetson-Orin-Nano-4GB": Card("Orin (nvgpu)", 3620, 0, (8, 7), main_memory=True),
    "Jetson-AGX-Xavier": Card("Xavier (nvgpu)", 31000, 0, (7, 2), main_memory=True),
}  # fmt: skip
"""By the short name that people use."""
ALIASES = {
    "V100": "V100-16GB", "A100": "A100-80GB", "A100-PCIE": "A100-PCIE-80GB", "H100": "H100-80GB",
    "H100-PCIE": "H100-PCIE-80GB", "H100-NVL": "H100-NVL-94GB", "H200": "H200-141GB", "GH200": "GH200-96GB",
    "B200": "B200-180GB", "3090": "RTX3090", "4090": "RTX4090", "5090": "RTX5090", "A6000": "RTXA6000",
    "A5000": "RTXA5000", "A4000": "RTXA4000", "A100-SXM4-40GB": "A100-40GB", "A100-SXM4-80GB": "A100-80GB",
    "A100-SXM-40GB": "A100-40GB", "A100-SXM-80GB": "A100-80GB", "H100-SXM": "H100-80GB", "H100-SXM5": "H100-80GB",
    "H20": "H20-96GB", "A800": "A800-80GB", "H800": "H800-80GB", "GB200": "GB200-186GB", "B300": "B300-270GB",
    "GB300": "GB300-278GB", "B200-192GB": "B200-180GB", "B300-288GB": "B300-270GB", "GB200-192GB": "GB200-186GB",
    "GB300-288GB": "GB300-278GB", "5060": "RTX5060", "5060Ti": "RTX5060Ti", "5070": "RTX5070", "5070Ti": "RTX5070Ti",
    "5080": "RTX5080", "4060": "RTX4060", "4060Ti": "RTX4060Ti", "4070": "RTX4070", "4080": "RTX4080", "3060": "RTX3060",
    "3080": "RTX3080", "RTX4060Ti-16GB": "RTX4060Ti", "RTX5060Ti-16GB": "RTX5060Ti", "A2000": "RTXA2000",
    "A4500": "RTXA4500", "PRO6000": "RTXPRO6000", "RTX6000PRO": "RTXPRO6000", "RTXPRO6000Blackwell": "RTXPRO6000",
    "RTXPRO6000Blackwell-Server": "RTXPRO6000-Server", "RTXPRO6000BlackwellWorkstation": "RTXPRO6000",
    "DGX-Spark": "GB10", "Spark": "GB10", "Thor": "Jetson-AGX-Thor", "Jetson-Thor": "Jetson-AGX-Thor",
    "AGX-Thor": "Jetson-AGX-Thor", "Jetson-T5000": "Jetson-AGX-Thor", "Orin": "Jetson-AGX-Orin-64GB",
    "Jetson-Orin": "Jetson-AGX-Orin-64GB", "AGX-Orin": "Jetson-AGX-Orin-64GB", "Jetson-AGX-Orin": "Jetson-AGX-Orin-64GB",
    "AGX-Orin-64GB": "Jetson-AGX-Orin-64GB", "AGX-Orin-32GB": "Jetson-AGX-Orin-32GB", "Orin-NX": "Jetson-Orin-NX-16GB",
    "Jetson-Orin-NX": "Jetson-Orin-NX-16GB", "Orin-NX-16GB": "Jetson-Orin-NX-16GB", "Orin-NX-8GB": "Jetson-Orin-NX-8GB",
    "Orin-Nano": "Jetson-Orin-Nano-8GB", "Jetson-Orin-Nano": "Jetson-Orin-Nano-8GB",
    "Orin-Nano-8GB": "Jetson-Orin-Nano-8GB", "Orin-Nano-Super": "Jetson-Orin-Nano-8GB",
    "Jetson-Orin-Nano-Super": "Jetson-Orin-Nano-8GB", "Orin-Nano-4GB": "Jetson-Orin-Nano-4GB",
    "Xavier": "Jetson-AGX-Xavier", "AGX-Xavier": "Jetson-AGX-Xavier", "Jetson-Xavier": "Jetson-AGX-Xavier",
}  # fmt: skip
_INTEGRATED = re.compile(r"\b(?:GB10|N1X?|Thor|Orin|Xavier|Tegra|nvgpu)\b", re.IGNORECASE)


def key(name: str) -> str:
    """Spelling does not matter: ``rtx 4090``, ``RTX-4090`` and ``NVIDIA GeForce RTX 4090`` are one."""
    plain = re.sub(r"(?i)nvidia|geforce|tesla", "", name)
    return re.sub(r"[^0-9a-z]", "", plain.lower())


def by_key() -> Mapping[str, Card]:
    """The cards by the :func:`key` of everything that they are called. The first of several with one name counts."""
    known = {key(card.name): card for card in reversed(CARDS.values())}
    known |= {key(short): card for short, card in CARDS.items()}
    return known | {key(alias): CARDS[short] for alias, short in ALIASES.items()}


def reported_as(name: str) -> tuple[Card, ...]:
    """The cards that NVML calls ``name``: there can be several, with different memory."""
    return tuple(card for card in CARDS.values() if key(card.name) == key(name))


def capability(name: str) -> tuple[int, int] | None:
    """The compute capability of what NVML calls ``name``, if all cards of that name have the same."""
    found = {card.capability for card in reported_as(name)}
    return found.pop() if len(found) == 1 else None


def total_bytes(name: str) -> int:
    """The memory of what NVML calls ``name``, if all cards of that name have the same; otherwise 0."""
    found = {card.total << 20 for card in reported_as(name)}
    return found.pop() if len(found) == 1 else 0


def integrated(name: str) -> bool:
    """Whether a GPU of this name has no memory of its own, as in a DGX Spark or a Jetson.

    GB200 and GH200 do have their own beside the CPU's.
    """
    return _INTEGRATED.search(name) is not None
