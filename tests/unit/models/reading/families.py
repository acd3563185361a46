"""Families of models by what their layers keep: the keys of a published config.json, and the bytes a token that follow.

``full`` and ``windowed`` are bytes per token in 16 bits, over all layers that keep every token and all that keep a window.
The figures are those that authors and engines state where they do (the comments say who), else the product of the shape that the
model's configuration class, or vLLM's and llama.cpp's code for the family, gives its cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Family(NamedTuple):
    """A model, by its hub id."""

    model: str
    full: int
    windowed: int
    config: dict[str, Any]


def gqa(layers: int, kv: int, dim: int = 128, **more: Any) -> dict[str, Any]:
    """Grouped-query attention in all layers, in the keys that most families share."""
    heads = more.pop("num_attention_heads", 4 * kv)
    return {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": dim,
        **more,
    }


def mla(layers: int, **more: Any) -> dict[str, Any]:
    """DeepSeek's latent, 512 + 64 elements a token."""
    return {
        "num_hidden_layers": layers, "num_attention_heads": 64, "num_key_value_heads": 64, "kv_lora_rank": 512,
        "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, **more,
    }  # fmt: skip


def every(period: int, layers: int, name: str, other: str) -> list[str]:
    """``name`` for every ``period``-th layer."""
    return [name if (i + 1) % period == 0 else other for i in range(layers)]


SLIDING, FULL, LINEAR = "sliding_attention", "full_attention", "linear_attention"
_NEMOTRON_H = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
_NEMOTRON_3 = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"

FAMILIES = (
    # "Insights into DeepSeek-V3", table 1: 70.272, 327.680 and 516.096 KB a token.
    Family("deepseek-ai/DeepSeek-V3", 70_272, 0, mla(61, num_attention_heads=128, num_key_value_heads=128)),
    Family("Qwen/Qwen2.5-72B", 327_680, 0, gqa(
        80, 8, num_attention_heads=64, sliding_window=131072, use_sliding_window=False, max_window_layers=80,
    )),
    Family("meta-llama/Llama-3.1-405B", 516_096, 0, gqa(126, 8, num_attention_heads=128)),
    # Jamba's paper, table 1, for 256K tokens: Mixtral 32 GB, Llama 2 7B 128 GB, Jamba 4 GB.
    Family("mistralai/Mixtral-8x7B-v0.1", 131_072, 0, gqa(32, 8, sliding_window=None)),
    Family("meta-llama/Llama-2-7b-hf", 524_288, 0, {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}),
    Family("ai21labs/Jamba-v0.1", 16_384, 0, {
        "model_type": "jamba", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "attn_layer_period": 8, "attn_layer_offset": 4, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2,
    }),
    # ggml-org/llama.cpp#12843 and vllm-project/vllm#2062.
    Family("nvidia/Llama-3_3-Nemotron-Super-49B-v1", 200_704, 0, {
        "model_type": "nemotron-nas", "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": None,
        "block_configs": [{"attention": {"n_heads_in_group": 8, "no_op": False}}] * 49
        + [{"attention": {"n_heads_in_group": None, "no_op": True}}] * 31,
    }),
    Family("Deci/DeciLM-7B", 61_440, 0, {
        "model_type": "deci", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads_per_layer": [4] * 28 + [2] * 4,
    }),
    # vLLM: 23,040 bytes a token; llama.cpp: 1024 MiB for 8192 cells.
    Family("HuggingFaceTB/SmolLM2-135M", 23_040, 0, {
        "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    }),
    Family("meta-llama/Llama-3.1-8B", 131_072, 0, gqa(32, 8)),
    Family("meta-llama/Llama-4-Scout-17B-16E", 49_152, 147_456, {"text_config": gqa(
        48, 8, model_type="llama4_text", num_attention_heads=40, attention_chunk_size=8192, no_rope_layers=[1, 1, 1, 0] * 12,
    )}),
    Family("meta-llama/Llama-3.2-11B-Vision", 131_072, 0, {"text_config": {
        "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8,
        "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
    }}),
    Family("Qwen/Qwen3-8B", 147_456, 0, gqa(36, 8)),
    Family("Qwen/Qwen3-235B-A22B", 192_512, 0, gqa(94, 4, num_attention_heads=64)),
    Family("Qwen/Qwen3-Next-80B-A3B-Instruct", 24_576, 0, gqa(
        48, 2, 256, num_attention_heads=16, full_attention_interval=4, linear_num_key_heads=16, linear_num_value_heads=32,
        linear_key_head_dim=128, linear_value_head_dim=128, linear_conv_kernel_dim=4,
    )),
    Family("Qwen/Qwen3.5-35B-A3B", 20_480, 0, {"text_config": gqa(
        40, 2, 256, num_attention_heads=16, layer_types=every(4, 40, FULL, LINEAR), linear_num_key_heads=16,
        linear_num_value_heads=32, linear_key_head_dim=128, linear_value_head_dim=128,
    )}),
    Family("google/gemma-2-9b", 172_032, 172_032, gqa(42, 8, 256, model_type="gemma2", num_attention_heads=16, sliding_window=4096)),
    Family("google/gemma-3-27b-it", 81_920, 425_984, {"text_config": gqa(62, 16, model_type="gemma3_text", sliding_window=1024)}),
    Family("google/gemma-3n-E4B-it", 8_192, 32_768, {"text_config": gqa(
        35, 2, 256, model_type="gemma3n_text", num_kv_shared_layers=15, sliding_window=512, layer_types=every(5, 35, FULL, SLIDING),
    )}),
    Family("google/gemma-4-12b-it", 16_384, 327_680, {"text_config": gqa(
        48, 8, 256, num_attention_heads=16, num_global_key_value_heads=1, global_head_dim=512, attention_k_eq_v=True,
        layer_types=every(6, 48, FULL, SLIDING), sliding_window=1024,
    )}),
    Family("google/gemma-4-31B-it", 81_920, 819_200, {"text_config": gqa(
        60, 16, 256, num_attention_heads=32, num_global_key_value_heads=4, global_head_dim=512, attention_k_eq_v=True,
        layer_types=every(6, 60, FULL, SLIDING), sliding_window=1024,
    )}),
    Family("google/gemma-4-E2B-it", 6_144, 12_288, {"text_config": gqa(
        35, 1, 256, num_attention_heads=8, num_global_key_value_heads=None, global_head_dim=512, attention_k_eq_v=False,
        layer_types=every(5, 35, FULL, SLIDING), sliding_window=512, num_kv_shared_layers=20,
    )}),
    Family("google/recurrentgemma-2b", 0, 8_192, {
        "model_type": "recurrent_gemma", "hidden_size": 2560, "num_hidden_layers": 26, "num_attention_heads": 10,
        "num_key_value_heads": 1, "attention_window_size": 2048, "block_types": ["recurrent", "recurrent", "attention"],
        "lru_width": 2560, "conv1d_width": 4,
    }),
    Family("mistralai/Mistral-7B-v0.1", 0, 131_072, gqa(32, 8, sliding_window=4096)),
    Family("mistralai/Mistral-Small-24B-Instruct-2501", 163_840, 0, gqa(40, 8, hidden_size=5120)),
    Family("openai/gpt-oss-20b", 24_576, 24_576, gqa(24, 8, 64, layer_types=[SLIDING, FULL] * 12, sliding_window=128)),
    Family("openai/gpt-oss-120b", 36_864, 36_864, gqa(36, 8, 64, layer_types=[SLIDING, FULL] * 18, sliding_window=128)),
    Family("deepseek-ai/DeepSeek-V2-Lite", 31_104, 0, mla(27, num_attention_heads=16)),
    # The indexer keeps 128 bytes of keys and a scale of 4 for each layer and token (vLLM).
    Family("deepseek-ai/DeepSeek-V3.2", 61 * (1152 + 132), 0, mla(61, index_head_dim=128, index_n_heads=64, index_topk=2048)),
    Family("zai-org/GLM-5", 78 * (1152 + 132), 0, mla(78, index_head_dim=128, index_n_heads=32, index_topk=2048)),
    Family("zai-org/GLM-4.5-Air", 188_416, 0, gqa(46, 8, num_attention_heads=96)),
    Family("zai-org/GLM-4.7-Flash", 54_144, 0, mla(47, num_attention_heads=20)),
    Family("THUDM/chatglm3-6b", 28_672, 0, {
        "model_type": "chatglm", "hidden_size": 4096, "num_layers": 28, "num_attention_heads": 32, "kv_channels": 128,
        "multi_query_attention": True, "multi_query_group_num": 2,
    }),
    Family("moonshotai/Kimi-K2-Instruct", 70_272, 0, mla(61)),
    Family("moonshotai/Kimi-Linear-48B-A3B-Instruct", 8_064, 0, mla(27, num_attention_heads=32, linear_attn_config={
        "full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "kda_layers": [1, 2, 3], "num_heads": 32, "head_dim": 128,
        "short_conv_kernel_size": 4,
    })),
    Family("meituan-longcat/LongCat-Flash-Chat", 64_512, 0, mla(28, model_type="longcat_flash")),
    Family("openbmb/MiniCPM3-4B", 62 * 40 * (96 + 64) * 2, 0, mla(
        62, model_type="minicpm3", num_attention_heads=40, kv_lora_rank=256, qk_rope_head_dim=32, qk_nope_head_dim=64, v_head_dim=64,
    )),
    Family("stepfun-ai/step3", 62_464, 0, {"text_config": {
        "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 64, "num_attention_groups": 1, "head_dim": 256,
    }}),
    Family("stepfun-ai/Step-3.5-Flash", 49_152, 135_168, {
        "hidden_size": 4096, "num_hidden_layers": 45, "num_attention_heads": 64, "num_attention_groups": 8, "head_dim": 128,
        "layer_types": [FULL, SLIDING, SLIDING, SLIDING] * 12, "sliding_window": 512,  # the last three predict further tokens
        "attention_other_setting": {"num_attention_heads": 96, "num_attention_groups": 8, "head_dim": 128},
    }),
    Family("XiaomiMiMo/MiMo-V2-Flash", 23_040, 199_680, gqa(
        48, 4, 192, num_attention_heads=64, v_head_dim=128, swa_num_key_value_heads=8, swa_head_dim=192, swa_v_head_dim=128,
        sliding_window=128, hybrid_layer_pattern=[0, 1, 1, 1, 1] + [0, 1, 1, 1, 1, 1] * 7 + [0],
    )),
    Family("MiniMaxAI/MiniMax-Text-01", 40_960, 0, gqa(80, 8, num_attention_heads=64, attn_type_list=([0] * 7 + [1]) * 10)),
    Family("MiniMaxAI/MiniMax-M2", 253_952, 0, gqa(62, 8, num_attention_heads=48)),
    Family("tencent/Tencent-Hunyuan-Large", 131_072, 0, gqa(64, 8, num_attention_heads=80, use_cla=True, cla_share_factor=2)),
    Family("baidu/ERNIE-4.5-300B-A47B-PT", 221_184, 0, gqa(54, 8, num_attention_heads=64)),
    Family("inclusionAI/Ring-mini-linear-2.0", 8_192, 0, gqa(20, 4, num_attention_heads=16, layer_group_size=5)),
    Family("nvidia/Nemotron-H-8B-Base-8K", 16_384, 0, {
        "model_type": "nemotron_h", "hidden_size": 4096, "num_hidden_layers": len(_NEMOTRON_H), "num_attention_heads": 32,
        "num_key_value_heads": 8, "attention_head_dim": 128, "hybrid_override_pattern": _NEMOTRON_H, "mamba_num_heads": 128,
        "mamba_head_dim": 64, "ssm_state_size": 128, "n_groups": 8, "conv_kernel": 4,
    }),
    Family("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B", 6_144, 0, {
        "model_type": "nemotron_h", "hidden_size": 2688, "num_hidden_layers": len(_NEMOTRON_3), "num_attention_heads": 32,
        "num_key_value_heads": 2, "head_dim": 128, "hybrid_override_pattern": _NEMOTRON_3, "mamba_num_heads": 64,
        "mamba_head_dim": 64, "ssm_state_size": 128, "n_groups": 8, "conv_kernel": 4,
    }),
    Family("ibm-ai-platform/Bamba-9B", 12_288, 0, {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "attn_layer_indices": [9, 18, 27], "mamba_n_heads": 128, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 1,
    }),
    Family("ibm-granite/granite-4.0-h-small", 16_384, 0, {
        "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8, "mamba_n_heads": 128,
        "mamba_d_head": 64, "mamba_d_state": 128,
        "layer_types": (["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 4,
    }),
    Family("tiiuae/Falcon-H1-34B-Instruct", 147_456, 0, gqa(
        72, 4, model_type="falcon_h1", num_attention_heads=20, mamba_n_heads=32, mamba_d_head=128, mamba_d_state=256, mamba_n_groups=2,
    )),
    Family("tiiuae/falcon-7b", 8_192, 0, {
        "model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "multi_query": True,
    }),
    Family("LiquidAI/LFM2-1.2B", 12_288, 0, {
        "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "conv_L_cache": 3,
        "full_attn_idxs": [2, 5, 8, 10, 12, 14],
    }),
    Family("Zyphra/Zamba2-7B", 372_736, 0, {
        "model_type": "zamba2", "hidden_size": 3584, "num_hidden_layers": 81, "num_attention_heads": 32, "num_key_value_heads": 32,
        "attention_head_dim": 224, "n_mamba_heads": 112, "mamba_headdim": 64, "mamba_d_state": 64, "mamba_ngroups": 2,
        "layers_block_type": [
            "hybrid" if i in (6, 11, 17, 23, 29, 35, 41, 47, 53, 59, 65, 71, 77) else "mamba" for i in range(81)
        ],
    }),
    Family("microsoft/phi-4", 204_800, 0, gqa(40, 10, num_attention_heads=40, sliding_window=None)),
    Family("microsoft/Phi-4-mini-flash-reasoning", 5_120, 40_960, {
        "model_type": "phi4flash", "hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 40, "num_key_value_heads": 20,
        "mb_per_layer": 2, "sliding_window": 512, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2,
    }),
    Family("nvidia/Hymba-1.5B-Base", 3 * 1_280, 14 * 1_280, {
        "model_type": "hymba", "hidden_size": 1600, "num_hidden_layers": 32, "num_attention_heads": 25, "num_key_value_heads": 5,
        "global_attn_idx": [0, 15, 31], "sliding_window": 1024, "mamba_expand": 2, "mamba_d_state": 16, "mamba_d_conv": 4,
        "kv_reuse_group": [
            [1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12], [13, 14], [16, 17, 18], [19, 20], [21, 22], [23, 24], [25, 26],
            [27, 28], [29, 30],
        ],
    }),
    Family("CohereForAI/c4ai-command-a-03-2025", 65_536, 196_608, gqa(
        64, 8, model_type="cohere2", num_attention_heads=96, sliding_window=4096,
    )),
    Family("LGAI-EXAONE/EXAONE-4.0-32B", 65_536, 196_608, gqa(64, 8, sliding_window=4096, sliding_window_pattern="LLLG")),
    Family("allenai/Olmo-3-7B-Instruct", 131_072, 393_216, {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "layer_types": every(4, 32, FULL, SLIDING), "sliding_window": 4096,
    }),
)  # fmt: skip
