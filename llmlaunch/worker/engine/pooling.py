"""How token vectors are pooled into one vector, as the model's sentence-transformers files specify.

``modules.json`` lists the steps (transformer, pooling, dense, normalize), each with its own folder; see
https://sbert.net/docs/package_reference/sentence_transformer/models.html.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmlaunch.worker.errors import StartupError

MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": torch.tanh,
    "torch.nn.modules.linear.Identity": None,
    "torch.nn.modules.activation.GELU": torch.nn.functional.gelu,
    "torch.nn.modules.activation.ReLU": torch.relu,
}


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """A linear layer after pooling: ``weight`` ``[out, in]``, ``bias`` ``[out]``, and a function of tensors, or None."""

    weight: Tensor
    bias: Tensor | None
    activation: Any


@dataclass(frozen=True, slots=True)
class PoolingConfig:
    """How a model pools. The results of all ``modes`` are concatenated, in this order."""

    modes: tuple[str, ...] = ("mean",)
    dense: tuple[DenseLayer, ...] = ()
    normalize: bool = False
    transformer: str = ""
    """Folder of the transformer itself, relative to the model's."""
    longest: int | None = None
    """Maximum number of tokens."""
    lower_case: bool = False
    prompt: str = ""
    """Prefix of every text."""


def read_config(folder: Path) -> PoolingConfig:
    """The pooling of the model in ``folder``; the mean of all tokens if there is no modules.json.

    Raises StartupError for an unknown step: its vectors would be wrong.
    """
    listed = _json(folder / "modules.json")
    if not isinstance(listed, list):
        return PoolingConfig()
    transformer, normalize = "", False
    modes: tuple[str, ...] = ("mean",)
    dense: list[DenseLayer] = []
    for module in listed:
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        place = folder / str(module.get("path", ""))
        if kind == "Transformer":
            transformer = str(module.get("path", ""))
        elif kind == "Pooling":
            modes = _modes(_json(place / "config.json") or {})
        elif kind == "Dense":
            dense.append(_dense(place))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Dropout":
            raise StartupError(f"{folder / 'modules.json'}: the step {kind!r} is not supported")
    settings = _json(folder / transformer / "sentence_bert_config.json") or {}
    own = _json(folder / "config_sentence_transformers.json") or {}
    name = own.get("default_prompt_name")
    return PoolingConfig(
        modes=modes,
        dense=tuple(dense),
        normalize=normalize,
        transformer=transformer,
        longest=settings.get("max_seq_length"),
        lower_case=bool(settings.get("do_lower_case")),
        prompt=str((own.get("prompts") or {}).get(name, "")) if name else "",
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StartupError(f"{path} cannot be read: {error}") from error


def _modes(config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")  # newer files
    chosen = [mode for key, mode in MODES.items() if config.get(key)]
    chosen = [named] if isinstance(named, str) else chosen
    unknown = set(chosen) - set(MODES.values())
    if unknown:
        raise StartupError(f"pooling {', '.join(sorted(unknown))!r} is not supported")
    return tuple(chosen) or ("mean",)


def _dense(place: Path) -> DenseLayer:
    config = _json(place / "config.json") or {}
    name = str(config.get("activation_function", "torch.nn.modules.linear.Identity"))
    if name not in ACTIVATIONS:
        raise StartupError(f"{place}: activation {name!r} is not supported")
    if (place / "model.safetensors").exists():
        from safetensors.torch import load_file

        tensors = load_file(place / "model.safetensors")
    else:
        tensors = torch.load(place / "pytorch_model.bin", map_location="cpu", weights_only=True)
    return DenseLayer(tensors["linear.weight"], tensors.get("linear.bias"), ACTIVATIONS[name])


def pool(states: Tensor, mask: Tensor, config: PoolingConfig) -> Tensor:
    """``states`` ``[texts, tokens, size]`` with their 0/1 ``mask`` → vectors ``[texts, size']`` in float32."""
    states = states.float()
    weights = mask[..., None].to(states.dtype)
    out = torch.cat([_pool(states, weights, mode) for mode in config.modes], -1)
    for layer in config.dense:
        bias = None if layer.bias is None else layer.bias.to(out.device, torch.float32)
        out = torch.nn.functional.linear(out, layer.weight.to(out.device, torch.float32), bias)
        if layer.activation is not None:
            out = layer.activation(out)
    return torch.nn.functional.normalize(out, dim=-1) if config.normalize else out


def _pool(states: Tensor, weights: Tensor, mode: str) -> Tensor:
    if mode == "cls":
        first = weights[..., 0].argmax(1)  # texts may be padded on the left
        return states[torch.arange(len(states), device=states.device), first]
    if mode == "lasttoken":
        size = weights.shape[1]
        last = size - 1 - weights[..., 0].flip(1).argmax(1)
        return states[torch.arange(len(states), device=states.device), last]
    if mode == "max":
        return states.masked_fill(weights == 0, -1e9).max(1).values
    if mode == "weightedmean":
        weights = weights * torch.arange(1, weights.shape[1] + 1, device=states.device)[None, :, None]
    total = (states * weights).sum(1)
    count = weights.sum(1).clamp(min=1e-9)
    return total / (count.sqrt() if mode == "mean_sqrt_len" else count)
