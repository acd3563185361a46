"""config.json of real models, cut to the keys that matter, and the KV cache that follows from them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.models.facts import LayerKind, ModelKind
from llmlaunch.models.reading.config import ModelShape, quantisation_name, shape

LLAMA3_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "max_position_embeddings": 8192, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN25_7B = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
    "max_position_embeddings": 32768, "max_window_layers": 28, "num_attention_heads": 28, "num_hidden_layers": 28,
    "num_key_value_heads": 4, "sliding_window": 131072, "use_sliding_window": False, "vocab_size": 152064,
}  # fmt: skip
GEMMA2_9B = {
    "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336,
    "head_dim": 256, "max_position_embeddings": 8192, "num_attention_heads": 16, "num_hidden_layers": 42,
    "num_key_value_heads": 8, "sliding_window": 4096, "vocab_size": 256000,
}  # fmt: skip
# As published: heads, head size, vocabulary and context are left to the class.
GEMMA3_4B = {
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "torch_dtype": "bfloat16",
    "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16},
}  # fmt: skip
MIXTRAL = {
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "num_local_experts": 8, "sliding_window": None, "vocab_size": 32000,
}  # fmt: skip
DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 7168,
    "intermediate_size": 18432, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "max_position_embeddings": 163840,
    "n_routed_experts": 256, "num_experts_per_tok": 8, "num_attention_heads": 128, "num_hidden_layers": 61,
    "num_key_value_heads": 128, "vocab_size": 129280, "quantization_config": {"quant_method": "fp8"},
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096},
    "auto_map": {"AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM"},
}  # fmt: skip
MISTRAL_7B = {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "sliding_window": 4096, "vocab_size": 32000,
}  # fmt: skip
GPT2 = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12,
    "n_layer": 12, "n_positions": 1024, "vocab_size": 50257,
}  # fmt: skip
QWEN3_MOE = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "head_dim": 128, "hidden_size": 2048,
    "intermediate_size": 6144, "max_position_embeddings": 40960, "moe_intermediate_size": 768,
    "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
    "num_key_value_heads": 4, "sliding_window": None, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
QWEN3_NEXT = {
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "full_attention_interval": 4,
    "head_dim": 256, "hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 48,
    "num_key_value_heads": 2, "num_experts": 512, "max_position_embeddings": 262144, "vocab_size": 151936,
}  # fmt: skip
JAMBA = {
    "architectures": ["JambaForCausalLM"], "model_type": "jamba", "attn_layer_offset": 4, "attn_layer_period": 8,
    "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "num_experts": 16, "num_experts_per_tok": 2, "max_position_embeddings": 262144, "vocab_size": 65536,
}  # fmt: skip
MAMBA = {
    "architectures": ["MambaForCausalLM"], "model_type": "mamba", "hidden_size": 768, "num_hidden_layers": 24,
    "vocab_size": 50280,
}  # fmt: skip
CHATGLM3 = {
    "architectures": ["ChatGLMModel"], "model_type": "chatglm", "auto_map": {"AutoModelForCausalLM": "x.Y"},
    "hidden_size": 4096, "ffn_hidden_size": 13696, "kv_channels": 128, "multi_query_attention": True,
    "multi_query_group_num": 2, "num_attention_heads": 32, "num_layers": 28, "padded_vocab_size": 65024,
    "seq_length": 8192, "torch_dtype": "float16",
}  # fmt: skip
GPT_OSS = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "head_dim": 64, "hidden_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12, "num_attention_heads": 64, "num_hidden_layers": 24,
    "num_key_value_heads": 8, "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128,
    "max_position_embeddings": 131072, "vocab_size": 201088, "quantization_config": {"quant_method": "mxfp4"},
}  # fmt: skip


def kv_bytes_per_token(facts: ModelShape) -> tuple[int, int]:
    """Bytes in 16 bits that one more token takes: in the layers that keep everything, and in those with a window."""
    sums = dict.fromkeys(LayerKind, 0)
    for layer in facts.layer_caches:
        sums[layer.kind] += (
            layer.count * 2 * (layer.latent or layer.kv_heads * (layer.key_dim + layer.value_dim))
        )
    return sums[LayerKind.FULL], sums[LayerKind.SLIDING]


def count(facts: ModelShape, *kinds: LayerKind) -> int:
    return sum(layer.count for layer in facts.layer_caches if layer.kind in kinds)


@pytest.mark.parametrize(
    ("config", "full", "windowed"),
    [
        pytest.param(LLAMA3_8B, 128 * 1024, 0, id="llama-3-8b"),
        pytest.param(QWEN25_7B, 28 * 2 * 4 * 128 * 2, 0, id="qwen2.5-7b"),
        pytest.param(GEMMA2_9B, 21 * 2 * 8 * 256 * 2, 21 * 2 * 8 * 256 * 2, id="gemma-2-9b"),
        pytest.param(GEMMA3_4B, 5 * 2 * 4 * 256 * 2, 29 * 2 * 4 * 256 * 2, id="gemma-3-4b"),
        pytest.param(MIXTRAL, 128 * 1024, 0, id="mixtral"),
        pytest.param(DEEPSEEK_V3, 70_272, 0, id="deepseek-v3"),
        pytest.param(MISTRAL_7B, 0, 128 * 1024, id="mistral-7b-v0.1"),
        pytest.param(GPT2, 12 * 2 * 12 * 64 * 2, 0, id="gpt-2"),
        pytest.param(QWEN3_MOE, 48 * 2 * 4 * 128 * 2, 0, id="qwen3-30b-a3b"),
        pytest.param(QWEN3_NEXT, 12 * 2 * 2 * 256 * 2, 0, id="qwen3-next"),
        pytest.param(JAMBA, 4 * 2 * 8 * 128 * 2, 0, id="jamba"),
        pytest.param(MAMBA, 0, 0, id="mamba"),
        pytest.param(CHATGLM3, 28 * 2 * 2 * 128 * 2, 0, id="chatglm3"),
        pytest.param(GPT_OSS, 12 * 2 * 8 * 64 * 2, 12 * 2 * 8 * 64 * 2, id="gpt-oss-20b"),
    ],
)
def test_kv_cache(config: dict[str, Any], full: int, windowed: int) -> None:
    facts = shape(config)
    assert kv_bytes_per_token(facts) == (full, windowed)
    assert facts.kind is ModelKind.GENERATE
    assert any(layer.window for layer in facts.layer_caches) == (windowed > 0)


def test_details() -> None:
    gemma = shape(GEMMA3_4B)
    assert (gemma.vocab_size, gemma.context_length, gemma.attention_heads, gemma.dtype) == (
        262208,
        131072,
        8,
        "bfloat16",
    )
    deepseek = shape(DEEPSEEK_V3)
    assert (deepseek.experts, deepseek.experts_per_token, deepseek.quantisation) == (256, 8, "fp8")
    assert (deepseek.remote_code, deepseek.context_length) == (True, 163840)
    chatglm = shape(CHATGLM3)
    assert (chatglm.intermediate_size, chatglm.vocab_size, chatglm.context_length) == (13696, 65024, 8192)
    assert shape(GPT2).intermediate_size == 4 * 768
    assert (shape(MIXTRAL).experts, shape(MIXTRAL).experts_per_token) == (8, 2)


@pytest.mark.parametrize(
    ("extra", "sliding"),
    [
        ({"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 21}, 11),
        ({"sliding_window": 4096, "use_sliding_window": False}, 0),
        ({"sliding_window": None}, 0),
        ({"sliding_window": 4096, "sliding_window_pattern": 4}, 24),
        ({"sliding_window": 4096, "sliding_window_pattern": "LLLG"}, 24),
        ({"attention_chunk_size": 8192, "model_type": "llama4_text"}, 24),
        ({"layer_types": ["full_attention"] * 32, "sliding_window": 4096}, 0),
    ],
)
def test_which_layers_slide(extra: dict[str, Any], sliding: int) -> None:
    assert count(shape({**LLAMA3_8B, **extra}), LayerKind.SLIDING) == sliding


@pytest.mark.parametrize(
    ("extra", "stateless"),
    [
        ({"hybrid_override_pattern": "M-M*" * 8}, 24),
        ({"attn_layer_indices": [3, 7]}, 30),
        ({"full_attn_idxs": [2]}, 31),
        ({"attn_type_list": [0] * 28 + [1] * 4}, 28),
        ({"layer_types": ["conv"] * 30 + ["full_attention"] * 2}, 30),
        ({"block_types": ["recurrent", "recurrent", "attention"], "attention_window_size": 2048}, 22),
    ],
)
def test_which_layers_keep_no_cache(extra: dict[str, Any], stateless: int) -> None:
    facts = shape({**LLAMA3_8B, **extra})
    assert count(facts, LayerKind.STATE, LayerKind.NONE) == stateless
    assert count(facts, *LayerKind) == 32


@pytest.mark.parametrize(
    ("extra", "context"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}}, 32768),
        (
            {
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "original_max_position_embeddings": 8192,
                }
            },
            8192,
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 8192}},
            16384,
        ),
        ({"rope_scaling": "broken"}, 8192),
    ],
)
def test_context(extra: dict[str, Any], context: int) -> None:
    assert shape({**LLAMA3_8B, **extra}).context_length == context


@pytest.mark.parametrize(
    ("architectures", "kind"),
    [
        (["BertModel"], ModelKind.EMBED),
        (["XLMRobertaModel"], ModelKind.EMBED),
        (["BertForMaskedLM"], ModelKind.EMBED),
        (["T5EncoderModel"], ModelKind.EMBED),
        (["BertForSequenceClassification"], ModelKind.RERANK),
        (["Qwen3ForSequenceClassification"], ModelKind.RERANK),
        (["T5ForConditionalGeneration"], ModelKind.GENERATE),
        (["GPT2LMHeadModel"], ModelKind.GENERATE),
        ([], ModelKind.GENERATE),
    ],
)
def test_kind(architectures: list[str], kind: ModelKind) -> None:
    assert shape({"architectures": architectures}).kind is kind


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "AWQ"}, "awq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes-4bit"),
        ({"load_in_8bit": True}, "bitsandbytes-8bit"),
        ({"quant_algo": "FP8"}, "fp8"),
        ({}, ""),
    ],
)
def test_quantisation(config: dict[str, Any], name: str) -> None:
    assert quantisation_name(config) == name


def test_multi_query_models() -> None:
    def kv_heads(config: dict[str, Any]) -> int:
        return shape(config).layer_caches[0].kv_heads

    assert kv_heads({**LLAMA3_8B, "num_key_value_heads": None, "multi_query": True}) == 1
    falcon = {"model_type": "falcon", "num_attention_heads": 71, "hidden_size": 4544, "num_hidden_layers": 32}
    assert kv_heads({**falcon, "multi_query": True}) == 1
    assert kv_heads({**falcon, "new_decoder_architecture": True, "num_kv_heads": 8}) == 8


KEYS = sorted(
    {key for config in (LLAMA3_8B, QWEN25_7B, GEMMA3_4B, DEEPSEEK_V3, JAMBA, CHATGLM3, GPT_OSS, GEMMA2_9B) for key in config}
    | {"block_configs", "linear_attn_config", "per_layer_config", "kv_reuse_group", "compress_ratios", "indexer_types", "kv_lora_rank",
       "hybrid_layer_pattern", "mamba_n_heads", "linear_num_value_heads", "no_rope_layers", "head_dim", "index_head_dim"}
    | {"hybrid_override_pattern", "attn_layer_indices", "attn_type_list", "block_types", "attn_config", "layers_block_type"}
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=12),
    st.sampled_from([LLAMA3_8B, GEMMA3_4B, GPT_OSS]),
)
def test_nonsense_never_raises(nonsense: dict[str, Any], base: dict[str, Any]) -> None:
    for config in (nonsense, {**base, **nonsense}):
        facts = shape(config)
        assert count(facts, *LayerKind) in (0, facts.layers)
