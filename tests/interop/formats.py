#!/usr/bin/env python3
"""Checkpoints in the formats of others, both ways, on the built-in model: formats.py LATHE WORK.

Read: for each format, a packer of a few lines from its definition writes the built-in model and, beside it, the
same numbers as plain f32. `lathe eval` must find the two to be one model: what is left is the rounding of
activations in kernels, KL below BOUND.
GGUF files are written with ggml's package gguf, and what they mean is what that package says.

Write: GGUF files of `lathe export` are read with gguf, ModelOpt's by its definition here: its package, and that of
compressed-tensors, need torch with CUDA's libraries.
"""
import json
import pathlib
import re
import shutil
import sys

import gguf
import numpy as np
from checkpoints import SOURCE, Lathe, builtin, copy_tokenizer, floats, halves, interleaved, read, write
from gguf.quants import dequantize
from safetensors import safe_open

BOUND = 5e-4  # twice what rounding x to int8 costs the 2-bit model
ROUNDED_BOUNDS = {"fp8": 5e-3, "nvfp4": 0.05}  # thrice what rounding x so costs: the twin's is not rounded
rng = np.random.default_rng(0)


def as_bf16(x):
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)


model = builtin()
linear = [name for name in model if re.search(r"layers\..*_proj\.weight$", name)]
plain = {name: ("F32", w) for name, w in model.items() if name not in linear}

E4M3 = np.array([(-1 if c & 0x80 else 1) * ((c & 7) * 2.0**-9 if c & 0x78 == 0 else (1 + (c & 7) / 8) * 2.0**((c >> 3 & 15) - 7))
                 if c & 0x7F != 0x7F else np.nan for c in range(256)], np.float32)
E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float32)
IQ4_NL = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)


def nearest(table, x):
    order = np.argsort(np.nan_to_num(table, nan=np.inf), kind="stable")
    order = order[np.isfinite(table[order])]
    sorted_values = table[order]
    right = np.clip(np.searchsorted(sorted_values, x), 1, len(order) - 1)
    left = right - 1
    return order[np.where(x - sorted_values[left] <= sorted_values[right] - x, left, right)].astype(np.uint8)


# Integers: u without sign, zero points and f16 scales of groups.
def integers(w, bits, group, symmetric, group_of=None):
    n, k = w.shape
    group_of = np.arange(k) // group if group_of is None else group_of
    groups = int(group_of.max()) + 1
    scale, zero = np.zeros((n, groups), np.float32), np.zeros((n, groups), np.int64)
    for g in range(groups):
        x = w[:, group_of == g]
        lo, hi = np.minimum(x.min(1), 0), np.maximum(x.max(1), 0)
        if symmetric:
            hi = np.maximum(-lo, hi)
            lo = -hi
        scale[:, g] = np.maximum((hi - lo) / (2**bits - 1), 1e-6).astype(np.float16)
        zero[:, g] = 2**(bits - 1) if symmetric else np.clip(np.rint(-lo / scale[:, g]), 0, 2**bits - 1)
    s, z = scale[:, group_of], zero[:, group_of]
    u = np.clip(np.rint(w / s) + z, 0, 2**bits - 1).astype(np.int64)
    return u, zero, scale, ((u - z) * s).astype(np.float32)


def stream(codes, bits):
    """Codes along the last axis, one behind the other in words."""
    flat = (codes[..., None] >> np.arange(bits) & 1).reshape(*codes.shape[:-1], -1)
    flat = np.concatenate([flat, np.zeros((*flat.shape[:-1], -flat.shape[-1] % 32), flat.dtype)], -1)
    words = flat.reshape(*flat.shape[:-1], -1, 32).astype(np.uint64) << np.arange(32, dtype=np.uint64)
    return words.sum(-1).astype(np.uint32).view(np.int32)


def whole_words(codes, bits):
    per = 32 // bits
    codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], -codes.shape[-1] % per), codes.dtype)], -1)
    codes = codes.reshape(*codes.shape[:-1], -1, per).astype(np.uint64)
    return (codes << (bits * np.arange(per, dtype=np.uint64))).sum(-1).astype(np.uint32).view(np.int32)


# One function per format: the tensors of a module and what they mean.
def gptq(bits, group, symmetric, version, act_order=False):
    def pack(name, w):
        k = w.shape[1]
        group_of = np.arange(k) // group
        if act_order:
            group_of = group_of[rng.permutation(k)]
        u, z, s, means = integers(w, bits, group, symmetric, group_of)
        stored = (z - (version == 1)) % 2**bits
        return {"qweight": ("I32", stream(u, bits).T), "qzeros": ("I32", stream(stored.T, bits)),
                "scales": ("F16", s.T.astype(np.float16)), "g_idx": ("I32", group_of.astype(np.int32))}, means
    return pack, {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": symmetric, "desc_act": act_order,
                  "checkpoint_format": "gptq" if version == 1 else "gptq_v2"}


def awq(group):
    order = np.array([0, 2, 4, 6, 1, 3, 5, 7])

    def words(codes):  # [k, n]
        return (codes.reshape(len(codes), -1, 8)[:, :, order].astype(np.uint64) <<
                (4 * np.arange(8, dtype=np.uint64))).sum(-1).astype(np.uint32).view(np.int32)

    def pack(name, w):
        u, z, s, means = integers(w, 4, group, False)
        return {"qweight": ("I32", words(u.T)), "qzeros": ("I32", words(z.T)), "scales": ("F16", s.T.astype(np.float16))}, means
    return pack, {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}


def compressed(bits, group, symmetric, version):
    words = stream if version == "0.18.0" else whole_words

    def pack(name, w):
        u, z, s, means = integers(w, bits, group, symmetric)
        out = {"weight_packed": ("I32", words(u, bits)), "weight_scale": ("F16", s.astype(np.float16)),
               "weight_shape": ("I64", np.array(w.shape, np.int64))}
        if not symmetric:
            out["weight_zero_point"] = ("I32", words(z.T, bits).T)
        return out, means
    return pack, {"quant_method": "compressed-tensors", "format": "pack-quantized", "version": version,
                  "quantization_status": "compressed", "ignore": ["lm_head"],
                  "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
                      "num_bits": bits, "type": "int", "strategy": "group", "group_size": group, "symmetric": symmetric}}}}


def nibbles(codes):
    return (codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8)


def nvfp4_numbers(w):
    whole = np.float32(np.abs(w).max() / (6 * 448))
    blocks = w.reshape(len(w), -1, 16)
    scale = nearest(E4M3, np.clip(np.abs(blocks).max(-1) / 6 / whole, 2.0**-9, 448))
    unit = (E4M3[scale] * whole)[..., None]
    codes = nearest(E2M1, blocks / unit)
    return whole, scale, codes.reshape(w.shape), (E2M1[codes] * unit).reshape(w.shape).astype(np.float32)


def modelopt_fp8(name, w):
    scale = np.float32(np.abs(w).max() / 448)
    codes = nearest(E4M3, w / scale)
    return {"weight": ("F8_E4M3", codes), "weight_scale": ("F32", np.array(scale)),
            "input_scale": ("F32", np.array(np.float32(1)))}, E4M3[codes] * scale


def modelopt_nvfp4(name, w):
    whole, scale, codes, means = nvfp4_numbers(w)
    return {"weight": ("U8", nibbles(codes)), "weight_scale": ("F8_E4M3", scale),
            "weight_scale_2": ("F32", np.array(whole)), "input_scale": ("F32", np.array(np.float32(1)))}, means


def modelopt_awq(name, w):
    columns = as_bf16(np.exp(rng.normal(0, .3, w.shape[1])))  # what x is multiplied by
    wide = floats("BF16", columns)
    scaled = (w / wide).reshape(len(w), -1, 128)
    scale = (np.abs(scaled).max(-1) / 7).astype(np.float32)
    q = np.clip(np.rint(scaled / scale[..., None]), -8, 7)
    means = (q * scale[..., None]).reshape(w.shape).astype(np.float32) * wide
    q = q.reshape(w.shape).astype(np.int64) & 15
    return {"weight": ("U8", (q[0::2] | q[1::2] << 4).astype(np.uint8)), "weight_scale": ("F32", scale),
            "pre_quant_scale": ("BF16", columns)}, means


def modelopt_w4a8(name, w):
    parts, means = modelopt_awq(name, w)
    return parts | {"weight_scale_2": ("F32", np.array(np.float32(np.abs(means).max() / 448))),
                    "input_scale": ("F32", np.array(np.float32(1)))}, means


def modelopt_int8(name, w):
    scale = (np.abs(w).max(1) / 127).astype(np.float32)
    q = np.clip(np.rint(w / scale[:, None]), -128, 127)
    return {"weight": ("I8", q.astype(np.int8)), "weight_scale": ("F32", scale)}, (q * scale[:, None]).astype(np.float32)


def modelopt_nvfp4_awq(name, w):
    columns = as_bf16(np.exp(rng.normal(0, .3, w.shape[1])))
    wide = floats("BF16", columns)
    parts, means = modelopt_nvfp4(name, w / wide)
    return parts | {"pre_quant_scale": ("BF16", columns)}, means * wide


def modelopt_svd(prefix):
    """y = NVFP4(x s) + (x s) A^T B^T: the factors are the largest of W / s, the codes what is left."""
    def pack(name, w):
        columns = as_bf16(np.exp(rng.normal(0, .3, w.shape[1])))
        wide = floats("BF16", columns)
        u, s, vt = np.linalg.svd(w / wide, full_matrices=False)
        a, b = as_bf16(vt[:8]), as_bf16(u[:, :8] * s[:8])
        product = floats("BF16", b) @ floats("BF16", a)
        parts, means = modelopt_nvfp4(name, w / wide - product)
        return parts | {"pre_quant_scale": ("BF16", columns), f"{prefix}svdquant_lora_a": ("BF16", a),
                        f"{prefix}svdquant_lora_b": ("BF16", b)}, ((means + product) * wide).astype(np.float32)
    return pack


MIXTURE = {"self_attn": (modelopt_fp8, {"quant_algo": "FP8"}), "gate_proj": (modelopt_nvfp4, {"quant_algo": "NVFP4", "group_size": 16}),
           "": (modelopt_awq, {"quant_algo": "W4A16_AWQ", "group_size": 128, "has_zero_point": False, "pre_quant_scale": True})}


def of_mixture(name):
    return next(choice for part, choice in MIXTURE.items() if part in name)


def modelopt(pack, quantization):
    return pack, None, ("hf_quant_config.json", {"producer": {"name": "modelopt", "version": "0.41"}, "quantization": quantization})


def hf_fp8(name, w):
    rows, cols = -(-w.shape[0] // 128), -(-w.shape[1] // 128)
    scale = np.zeros((rows, cols), np.float32)
    codes, means = np.zeros(w.shape, np.uint8), np.zeros(w.shape, np.float32)
    for i in range(rows):
        for j in range(cols):
            at = np.s_[128 * i:128 * i + 128, 128 * j:128 * j + 128]
            scale[i, j] = np.abs(w[at]).max() / 448
            codes[at] = nearest(E4M3, w[at] / scale[i, j])
            means[at] = E4M3[codes[at]] * scale[i, j]
    return {"weight": ("F8_E4M3", codes), "weight_scale_inv": ("F32", scale)}, means


def spinquant():
    """R3 and R4 of llm-compressor's SpinQuant: Sylvester's matrix, unscaled, is a tensor; down_proj has its inverse."""
    def pack(name, w):
        if "down_proj" not in name:
            return {"weight": ("F32", w)}, w
        sylvester = np.ones((1, 1), np.float32)
        while len(sylvester) < 256:
            sylvester = np.block([[sylvester, sylvester], [sylvester, -sylvester]])
        turned = (w.reshape(len(w), -1, 256) @ (sylvester / 16)).reshape(w.shape)
        return {"weight": ("F32", turned), "R4_input.weight": ("F32", sylvester)}, w

    def group(size, *applied):
        return {"type": "hadamard", "randomize": False, "requires_grad": False, "head_dim": size, "precision": "torch.float64",
                "apply": [{"targets": [target], "location": location, "inverse": location == "weight_input", "ignore": []}
                          for target, location in applied]}
    down, attention = "re:.*down_proj$", "re:.*self_attn$"
    return pack, {"quant_method": "compressed-tensors", "format": "dense", "quantization_status": "compressed", "config_groups": {},
                  "transform_config": {"config_groups": {"R3": group(64, (attention, "q_attn"), (attention, "k_cache")),
                                                         "R4": group(256, (down, "input"), (down, "weight_input"))}}}


def formats():
    for bits, group in ((2, 32), (3, 32), (4, 128), (8, 128)):
        for version in (1, 2):
            for symmetric in (True, False):
                yield f"gptq v{version} {bits} bits{'' if symmetric else ' asymmetric'}", gptq(bits, group, symmetric, version)
    yield "gptq v1 4 bits desc_act", gptq(4, 64, True, 1, act_order=True)
    yield "gptq v2 8 bits asymmetric desc_act", gptq(8, 128, False, 2, act_order=True)
    yield "awq gemm g128", awq(128)
    yield "awq gemm g32", awq(32)
    for bits in (3, 5, 6, 7):
        for version in ("0.17.1", "0.18.0"):
            yield f"compressed-tensors {version} {bits} bits", compressed(bits, 64, bits % 2 == 0, version)
    yield "compressed-tensors transform_config", spinquant()
    yield "modelopt fp8", modelopt(modelopt_fp8, {"quant_algo": "FP8", "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]})
    yield "modelopt nvfp4", modelopt(modelopt_nvfp4, {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]})
    yield "modelopt w4a16_awq", modelopt(modelopt_awq, {"quant_algo": "W4A16_AWQ", "group_size": 128, "has_zero_point": False,
                                                       "pre_quant_scale": True, "exclude_modules": ["lm_head"]})
    scaled = {"has_zero_point": False, "pre_quant_scale": True, "exclude_modules": ["lm_head"]}
    yield "modelopt w4a8_awq", modelopt(modelopt_w4a8, {"quant_algo": "W4A8_AWQ", "group_size": 128} | scaled)
    yield "modelopt w8a16", modelopt(modelopt_int8, {"quant_algo": "W8A16", "exclude_modules": ["lm_head"]})
    yield "modelopt nvfp4_awq", modelopt(modelopt_nvfp4_awq, {"quant_algo": "NVFP4_AWQ", "group_size": 16} | scaled)
    for prefix in ("weight_quantizer._", ""):  # as exported of transformers' models, and of diffusers'
        yield f"modelopt nvfp4_svd {prefix}", modelopt(modelopt_svd(prefix), {"quant_algo": "NVFP4_SVD", "group_size": 16} | scaled)
    yield "modelopt mixed", modelopt(lambda name, w: of_mixture(name)[0](name, w),
                                     {"quant_algo": "MIXED_PRECISION",
                                      "quantized_layers": {n.removesuffix(".weight"): of_mixture(n)[1] for n in linear}})
    yield "transformers fp8 blocks", (hf_fp8, {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                               "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]})


# GGUF.
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm"}


def gguf_name(name):
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    layer, module = re.fullmatch(r"model\.layers\.(\d+)\.(.*)\.weight", name).groups()
    return f"blk.{layer}.{NAMES[module]}.weight"


def heads_of(name):
    return {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])


def gguf_blocks(kind, w):
    if kind == "NVFP4":
        whole, scale, codes, _ = nvfp4_numbers(w)
        codes = codes.reshape(len(w), -1, 16)
        packed = (codes[..., :8] | codes[..., 8:] << 4).reshape(len(w), -1, 32)
        return np.concatenate([scale.reshape(len(w), -1, 4), packed], -1).reshape(len(w), -1), whole
    blocks = w.reshape(len(w), -1, 32)
    amax = np.maximum(np.abs(blocks).max(-1), 1e-6)
    if kind == "MXFP4":
        exponent = np.floor(np.log2(amax)).astype(np.int64) - 2
        scale, table = 2.0**exponent, E2M1
        head = (exponent + 127).astype(np.uint8)[..., None]
    else:
        half = (amax / 113).astype(np.float16)
        scale, table = half.astype(np.float32), IQ4_NL
        head = half.view(np.uint8).reshape(*half.shape, 2)
    codes = nearest(table, blocks / scale[..., None])
    return np.concatenate([head, codes[..., :16] | codes[..., 16:] << 4], -1).astype(np.uint8).reshape(len(w), -1), None


def write_gguf(path, kind):
    config = json.loads((SOURCE / "config.json").read_text())
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(config["num_attention_heads"])
    out.add_head_count_kv(config["num_key_value_heads"])
    out.add_rope_freq_base(config["rope_theta"])
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_vocab_size(config["vocab_size"])
    copy_tokenizer(gguf.GGUFReader(WORK / "plain.gguf"), out)
    means = {}
    for name, w in model.items():
        if name not in linear:
            out.add_tensor(gguf_name(name), w)
            means[name] = w
            continue
        data, whole = gguf_blocks(kind, interleaved(w, heads_of(name)))
        kind_id = gguf.GGMLQuantizationType[kind]
        out.add_tensor(gguf_name(name), data, raw_dtype=kind_id)
        value = dequantize(data, kind_id).astype(np.float32)
        if whole is not None:
            out.add_tensor(gguf_name(name).replace(".weight", ".scale"), np.array([whole], np.float32))
            value = value * whole
        means[name] = halves(value, heads_of(name))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return means


def read_gguf(path):
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
    out = {}
    for name, w in model.items():
        t = tensors.pop(gguf_name(name))
        out[name] = halves(dequantize(t.data, t.tensor_type).astype(np.float32).reshape(w.shape), heads_of(name))
    assert not tensors, f"{path}: tensors of no parameter: {list(tensors)}"
    return out


failures = []


def compare(what, model_path, twin, tokenizer_beside=False):
    run = lathe("eval", model_path, "--against", twin, "--text", SOURCE / "heldout.txt", "--max-tokens", 1500, "--json")
    kl = json.loads(run.stdout)["kl_mean"]
    warned = " (warned: computed as f32)" if "no kernel has that" in run.stderr else ""
    rounds = next((text for text in ROUNDED_BOUNDS if f"is rounded to {text}" in run.stderr), None)
    bound = ROUNDED_BOUNDS[rounds] if rounds else BOUND
    warned += f" (x rounded to {rounds})" if rounds else ""
    print(f"  {what:<42} KL {kl:.2e}{warned}{'' if kl < bound else '  FAILED'}", flush=True)
    if not kl < bound:
        failures.append(what)


def twin_of(values):
    return write(WORK / "twin", {name: ("F32", w) for name, w in values.items()})


lathe, WORK = Lathe(sys.argv[1]), pathlib.Path(sys.argv[2])
WORK.mkdir(parents=True, exist_ok=True)
print("read: what others write, against the same numbers in f32")
for what, (pack, method, *beside) in formats():
    tensors, means = dict(plain), {name: w for name, w in model.items() if name not in linear}
    for name in linear:
        parts, means[name] = pack(name, model[name])
        tensors.update({f"{name.removesuffix('.weight')}.{part}": value for part, value in parts.items()})
    directory = write(WORK / "theirs", tensors, {"quantization_config": method} if method else None, beside[0] if beside else None)
    with safe_open(directory / "model.safetensors", "np") as file:
        assert set(file.keys()) == set(tensors)
    compare(what, directory, twin_of(means))
lathe("export", "builtin", "--to", "gguf", "--type", "bf16", "-o", WORK / "plain.gguf")  # for its tokenizer
for kind in ("IQ4_NL", "MXFP4", "NVFP4"):
    path = WORK / f"{kind.lower()}.gguf"
    means = write_gguf(path, kind)
    compare(f"gguf {kind}", path, twin_of(means))

print("write: what lathe writes, as its owners' readers understand it")
for kind in ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q6_k", "q5_k", "q4_k", "q3_k", "q2_k", "bf16"):
    path = WORK / "ours.gguf"
    lathe("export", "builtin", "--to", "gguf", "--type", kind, "-o", path)
    compare(f"gguf {kind}", path, twin_of(read_gguf(path)))


def modelopt_numbers(directory):
    """By ModelOpt's definition, without it: its package needs torch and CUDA's libraries."""
    quantization = json.loads((directory / "hf_quant_config.json").read_text())["quantization"]
    tensors = read(directory / "model.safetensors")
    out = {}
    for name, (dtype, bits) in tensors.items():
        if not name.endswith(".weight"):
            continue
        module = name.removesuffix(".weight")
        if module + ".weight_scale" not in tensors:
            assert dtype == "BF16" and module not in quantization.get("quantized_layers", {})
            out[name] = floats(dtype, bits)
            continue
        scale = tensors[module + ".weight_scale"]
        algorithm = quantization.get("quantized_layers", {}).get(module, quantization)["quant_algo"]
        if algorithm == "FP8":
            assert scale[0] == "F32" and scale[1].shape == ()
            out[name] = E4M3[bits] * scale[1]
        elif algorithm == "FP8_PER_CHANNEL_PER_TOKEN":
            assert scale[0] == "F32" and scale[1].shape == (len(bits),)
            out[name] = E4M3[bits] * scale[1][:, None]
        elif algorithm == "FP8_PB_WO":
            blocks = np.repeat(np.repeat(scale[1], 128, 0), 128, 1)[:bits.shape[0], :bits.shape[1]]
            out[name] = E4M3[bits] * blocks
        elif algorithm == "W8A16":
            assert dtype == "I8" and scale[0] == "F32" and scale[1].shape == (len(bits),)
            out[name] = bits * scale[1][:, None]
        elif algorithm == "W4A16_NVFP4":
            whole = tensors[module + ".weight_scale_2"]
            assert scale[0] == "F8_E4M3" and whole[0] == "F32" and whole[1].shape == ()
            codes = np.stack([bits & 15, bits >> 4], -1).reshape(len(bits), -1)
            out[name] = E2M1[codes] * np.repeat(E4M3[scale[1]] * whole[1], 16, 1)
        else:
            assert algorithm == "W4A16_AWQ" and quantization["group_size"] == 128
            codes = np.stack([bits & 15, bits >> 4], 1).reshape(-1, bits.shape[1]).astype(np.int64)
            out[name] = np.where(codes > 7, codes - 16, codes) * np.repeat(floats(*scale), 128, 1)
    return {name: w.astype(np.float32) for name, w in out.items()}


SCHEMES = ("fp8-tensor", "w8a8-fp8", "fp8-block", "nvfp4", "w4a16", "w8a16")
for scheme in SCHEMES:
    shutil.rmtree(WORK / "ours", ignore_errors=True)
    shutil.rmtree(WORK / "modelopt", ignore_errors=True)
    lathe("quantize", "builtin", "--scheme", scheme, "-o", WORK / "ours")
    lathe("export", WORK / "ours", "--to", "modelopt", "-o", WORK / "modelopt")
    compare(f"modelopt {scheme} (by its definition)", WORK / "modelopt", twin_of(modelopt_numbers(WORK / "modelopt")))

if failures:
    sys.exit(f"interop: {len(failures)} formats are not read as others read them: {', '.join(failures)}")
print("interop: formats ok")
