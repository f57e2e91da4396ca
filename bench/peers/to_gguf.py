#!/usr/bin/env python3
"""Writes a Llama or Qwen2 checkpoint as f16 GGUF, for timing llama.cpp on the same shapes.

Needs numpy and gguf from PyPI. The file has no tokenizer (llama-bench needs none), and Llama 3's frequency
factors are left out: they change numbers, not speed.
"""
import argparse
import json
from pathlib import Path

import gguf
import numpy as np

LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    module, kind = name.rsplit(".", 1)
    if module in TOP:
        return f"{TOP[module]}.{kind}"
    _, _, layer, rest = module.split(".", 3)  # model.layers.3.mlp.up_proj
    return f"blk.{layer}.{LAYER[rest]}.{kind}"


def tensors(folder):
    """Names and f32 arrays of every safetensors file, one at a time."""
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        data = np.memmap(path, np.uint8, "r", offset=8 + length)
        for name, entry in header.items():
            raw = data[slice(*entry["data_offsets"])]
            if entry["dtype"] == "BF16":
                values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                values = raw.view({"F16": np.float16, "F32": np.float32}[entry["dtype"]]).astype(np.float32)
            yield name, values.reshape(entry["shape"])


def interleave(rows, heads):
    """Llama's q and k rows as GGUF wants them: the two halves of each head rotate as neighbours there."""
    head = rows.shape[0] // heads
    return rows.reshape(heads, 2, head // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path, help="a Hugging Face directory in bf16, f16 or f32")
    p.add_argument("output", type=Path, help="the .gguf file to write")
    o = p.parse_args()
    config = json.loads((o.model / "config.json").read_text())
    family = config["model_type"]
    if family not in ("llama", "qwen2") or "quantization_config" in config:
        raise SystemExit(f"{o.model}: expected an unquantized llama or qwen2 model, found {family}")
    heads, kv_heads = config["num_attention_heads"], config.get("num_key_value_heads", config["num_attention_heads"])

    w = gguf.GGUFWriter(o.output, family)
    w.add_block_count(config["num_hidden_layers"])
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    w.add_rope_freq_base(config.get("rope_theta", 10000.0))
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_vocab_size(config["vocab_size"])
    w.add_tokenizer_model("none")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for name, values in tensors(o.model):
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        if family == "llama" and ".q_proj." in name:
            values = interleave(values, heads)
        if family == "llama" and ".k_proj." in name:
            values = interleave(values, kv_heads)
        w.add_tensor(gguf_name(name), values if values.ndim == 1 else values.astype(np.float16))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
