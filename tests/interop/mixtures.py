"""Mixtures of experts made of the built-in model: an expert is a third of its MLP, moved a little."""
import math
import re

import numpy as np
from checkpoints import builtin

EXPERTS, TOP_K, WIDTH, LAYERS, HIDDEN, HEADS = 8, 2, 256, 6, 256, 4

# model_type: GGUF's architecture, heads of keys, config.json
FAMILIES = {
    "mixtral": ("llama", 2, {"num_local_experts": EXPERTS, "intermediate_size": WIDTH, "sliding_window": None}),
    "qwen2_moe": ("qwen2moe", 2, {"num_experts": EXPERTS, "moe_intermediate_size": WIDTH, "norm_topk_prob": False,
                                  "shared_expert_intermediate_size": 512, "tie_word_embeddings": False}),
    "qwen3_moe": ("qwen3moe", 2, {"num_experts": EXPERTS, "moe_intermediate_size": WIDTH, "norm_topk_prob": True}),
    "olmoe": ("olmoe", 4, {"num_experts": EXPERTS, "intermediate_size": WIDTH, "norm_topk_prob": False,
                           "num_key_value_heads": 4, "tie_word_embeddings": False, "clip_qkv": None}),
    # A window that prompts are longer than; and a theta that makes the last dimension that YaRN blends the 10th, a whole
    # number: llama.cpp rounds it, gpt-oss does not.
    "gpt_oss": ("gpt-oss", 2, {"num_local_experts": EXPERTS, "intermediate_size": WIDTH, "sliding_window": 8,
                               "swiglu_limit": 7.0, "tie_word_embeddings": False,
                               "rope_theta": float(np.float32(math.exp(3.2 * math.log(128 / (2 * math.pi))))),
                               "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0,
                                                "original_max_position_embeddings": 128, "truncate": False}}),
}


def parameters(family):
    """By name, f32."""
    rng = np.random.default_rng(0)
    dense = builtin()

    def noise(shape, size):
        return (size * rng.standard_normal(shape)).astype(np.float32)

    _, kv_heads, config = FAMILIES[family]
    scope, roles = ("block_sparse_moe", ("w1", "w3", "w2")) if family == "mixtral" else ("mlp", ("gate_proj", "up_proj", "down_proj"))
    out = {}
    for name, w in dense.items():
        layer = re.match(r"model\.layers\.\d+\.", name)
        if not layer or ".mlp." not in name:
            if re.search(r"\.[kv]_proj\.", name) and kv_heads == HEADS:
                w = np.repeat(w.reshape(2, -1, HIDDEN), 2, 0).reshape(-1, HIDDEN)
            out[name] = w
            if re.search({"qwen2_moe": r"\.[qkv]_proj\.", "gpt_oss": r"\.[qkvo]_proj\."}.get(family, "^$"), name):
                out[name.replace("weight", "bias")] = noise(len(w), .02)
            if family == "gpt_oss" and ".q_proj." in name:
                out[name.replace("q_proj.weight", "sinks")] = noise(HEADS, 1)
            if family in ("qwen3_moe", "olmoe") and re.search(r"\.[qk]_proj\.", name):
                out[name.replace("_proj", "_norm")] = 1 + noise(64 if family == "qwen3_moe" else len(w), .1)
            continue
        if not name.endswith(".gate_proj.weight"):
            continue
        at = layer.group()
        gate, up, down = (dense[f"{at}mlp.{role}.weight"] for role in ("gate_proj", "up_proj", "down_proj"))
        router = f"{at}{scope}.{'router' if family == 'gpt_oss' else 'gate'}"
        out[f"{router}.weight"] = noise((EXPERTS, HIDDEN), 2 / HIDDEN**.5)
        if family == "gpt_oss":
            out[f"{router}.bias"] = noise(EXPERTS, .2)
        for e in range(EXPERTS):
            part = np.s_[e % 3 * WIDTH:e % 3 * WIDTH + WIDTH]
            for role, w in zip(roles, (gate[part], up[part], down[:, part])):
                out[f"{at}{scope}.experts.{e}.{role}.weight"] = w + noise(w.shape, .2 * w.std())
                if family == "gpt_oss":  # some beyond the limit of gate and up
                    out[f"{at}{scope}.experts.{e}.{role}.bias"] = noise(len(w), .02 if role == "down_proj" else 2)
        if family == "qwen2_moe":
            out[f"{at}mlp.shared_expert_gate.weight"] = noise((1, HIDDEN), 1 / HIDDEN**.5)
            for role, w in zip(roles, (gate[:512], up[:512], down[:, :512])):
                out[f"{at}mlp.shared_expert.{role}.weight"] = w.copy()
    if not FAMILIES[family][2].get("tie_word_embeddings", True):
        out["lm_head.weight"] = dense["model.embed_tokens.weight"]
    return out


def config_of(family):
    return {"model_type": family, "num_experts_per_tok": TOP_K} | FAMILIES[family][2]
