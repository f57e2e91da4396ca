#!/usr/bin/env python3
"""Mixtures of experts in GGUF, both ways: experts.py LATHE WORK. (In ONNX: onnx_runtime.py.)

Files of ours are read with ggml's package gguf, files of that package by us, against the same numbers in f32; llama.cpp
itself (of the package xllamacpp) must give the texts and probabilities that we give on the same file. gpt-oss' experts
are also in MXFP4, in the order that OpenAI stores it in.
"""
import json
import pathlib
import re
import subprocess
import sys
import urllib.request

import gguf
import numpy as np
from checkpoints import SOURCE, Lathe, copy_tokenizer, halves, interleaved, write
from gguf.quants import dequantize, quantize
from mixtures import EXPERTS, FAMILIES, HEADS, HIDDEN, LAYERS, TOP_K, config_of, parameters

BOUND = 1e-6  # of KL between the same numbers in f32: of the last bit
# Of log-probabilities beside llama.cpp's, over 12 tokens and the 8 best of each: f32 sums in another order. It rounds x to
# int8 for quantized weights, and where that flips a choice of experts they move by tenths; in another layout by several.
LOGPROB = {"f32": 1e-4, "bf16": 1.5, "q8_0": 1.5, "q4_k_m": 1.5}
PROMPT = "It was a truth universally acknowledged, that a single man"

NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm", "block_sparse_moe.gate": "ffn_gate_inp", "mlp.gate": "ffn_gate_inp",
         "mlp.router": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp", "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
         "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp"}
ROLES = {"w1": "gate", "w3": "up", "w2": "down", "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


def gguf_place(name, family):
    """A parameter's tensor there, and which expert's part it is."""
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    if name in whole:
        return whole[name], None
    if sinks := re.fullmatch(r"model\.layers\.(\d+)\.self_attn\.sinks", name):
        return f"blk.{sinks[1]}.attn_sinks.weight", None
    layer, module, kind = re.fullmatch(r"model\.layers\.(\d+)\.(.*)\.(weight|bias)", name).groups()
    if expert := re.fullmatch(r".*\.experts\.(\d+)\.(\w+)", module):
        return f"blk.{layer}.ffn_{ROLES[expert[2]]}_exps.{kind}", int(expert[1])
    if family == "gpt_oss" and module == "post_attention_layernorm":
        return f"blk.{layer}.post_attention_norm.weight", None
    return f"blk.{layer}.{NAMES[module]}.{kind}", None


def heads_of(family, name):
    return {"q_proj": HEADS, "k_proj": 2}.get(name.split(".")[-2]) if family == "mixtral" else None


def read_gguf(path, family, params):
    tensors = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32).reshape(t.shape[::-1]) for t in gguf.GGUFReader(path).tensors}
    out, used = {}, set()
    for name, w in params.items():
        place, expert = gguf_place(name, family)
        used.add(place)
        value = tensors[place] if expert is None else tensors[place][expert]
        out[name] = halves(value.reshape(w.shape), heads_of(family, name))
    assert used == set(tensors), f"{path}: tensors of no parameter: {set(tensors) - used}"
    return out


def write_gguf(path, family, params, kind, experts_kind=None):
    arch, kv_heads, config = FAMILIES[family]
    out = gguf.GGUFWriter(path, arch)
    out.add_context_length(1024)
    out.add_embedding_length(HIDDEN)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(config.get("intermediate_size", 768))
    out.add_head_count(HEADS)
    out.add_head_count_kv(kv_heads)
    out.add_rope_freq_base(config.get("rope_theta", 10000.0))
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(4096)
    out.add_expert_count(EXPERTS)
    out.add_expert_used_count(TOP_K)
    if "moe_intermediate_size" in config:
        out.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if family == "gpt_oss":  # as the converter writes it
        scaling = config["rope_scaling"]
        out.add_expert_feed_forward_length(config["intermediate_size"])
        out.add_sliding_window(config["sliding_window"])
        out.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        out.add_rope_scaling_factor(scaling["factor"])
        out.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
        out.add_rope_scaling_yarn_beta_fast(scaling["beta_fast"])
        out.add_rope_scaling_yarn_beta_slow(scaling["beta_slow"])
    if "shared_expert_intermediate_size" in config:
        out.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    copy_tokenizer(gguf.GGUFReader(WORK / "plain.gguf"), out)
    stacked = {}
    for name, w in params.items():
        place, expert = gguf_place(name, family)
        stacked.setdefault(place, []).append(interleaved(w, heads_of(family, name)))
    means = {}
    for place, parts in stacked.items():
        w = np.stack(parts) if "_exps." in place else parts[0]
        if w.ndim == 1 or place.endswith(".bias") or "ffn_gate_inp" in place:
            out.add_tensor(place, w.reshape(-1) if "_shexp" in place else w)  # as the converter has it
            means[place] = w
            continue
        numbers = experts_kind if experts_kind and "_exps." in place else kind
        data = quantize(w, numbers)
        out.add_tensor(place, data, raw_dtype=numbers)
        means[place] = dequantize(data, numbers).astype(np.float32).reshape(w.shape)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    result = {}
    for name in params:
        place, expert = gguf_place(name, family)
        result[name] = halves(means[place] if expert is None else means[place][expert], heads_of(family, name))
    return result


def openai_mxfp4(family, params):
    """gpt-oss as OpenAI stores it: the experts of a layer in one tensor, rows of gate and up by turns, in MXFP4 whose bytes
    have neighbours and not elements that lie 16 apart. And the blocks that ggml has for them."""
    tensors, blocks = {name: ("F32", w) for name, w in params.items() if ".experts." not in name}, {}
    for scope in {re.sub(r"\.experts\..*", ".experts", name) for name in params if ".experts." in name}:
        def stacked(*roles, kind):
            parts = np.stack([[params[f"{scope}.{e}.{role}.{kind}"] for e in range(EXPERTS)] for role in roles], 2)
            return parts.reshape(EXPERTS, -1, *parts.shape[3:])

        for name, roles in (("gate_up_proj", ("gate_proj", "up_proj")), ("down_proj", ("down_proj",))):
            tensors[f"{scope}.{name}_bias"] = ("F32", stacked(*roles, kind="bias"))
            of_ggml = quantize(stacked(*roles, kind="weight"), gguf.GGMLQuantizationType.MXFP4)
            of_ggml = of_ggml.reshape(*of_ggml.shape[:2], -1, 17)
            codes = np.concatenate([of_ggml[..., 1:] & 15, of_ggml[..., 1:] >> 4], -1)
            tensors[f"{scope}.{name}_scales"] = ("U8", of_ggml[..., 0])
            tensors[f"{scope}.{name}_blocks"] = ("U8", codes[..., ::2] | codes[..., 1::2] << 4)
            for i, role in enumerate(roles):
                place, _ = gguf_place(f"{scope}.0.{role}.weight", family)
                blocks[place] = of_ggml[:, i::len(roles)].reshape(EXPERTS, -1, of_ggml.shape[2] * 17)
    config = config_of(family) | {"quantization_config": {"quant_method": "mxfp4"}}
    return write(WORK / "openai", tensors, config), blocks


failures = []


def report(what, found, bound, unit):
    print(f"  {what:<42} {unit} {found:.2e}{'' if found < bound else '  FAILED'}", flush=True)
    if not found < bound:
        failures.append(what)


def compare(what, path, family, values):
    """In f32: kernels of quantized weights may round x, and that may flip a choice of experts."""
    model = WORK / "exact.gguf"
    lathe("export", path, "--to", "gguf", "--type", "f32", "-o", model)
    twin = write(WORK / "twin", {name: ("F32", w) for name, w in values.items()}, config_of(family))
    run = lathe("eval", model, "--against", twin, "--text", SOURCE / "heldout.txt", "--max-tokens", 600, "--json")
    report(what, json.loads(run.stdout)["kl_mean"], BOUND, "KL")


# In a process of its own: what its library prints is not ours, and its threads end with it.
LLAMA_CPP = """
import json, sys, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.n_ctx, p.n_parallel, p.fit_params, p.warmup = sys.argv[1], 512, 1, False, False
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 2
p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED  # its products are of f16
answer = xllamacpp.Server(p).handle_completions(json.loads(sys.argv[2]))
print("ANSWER" + json.dumps(answer), flush=True)
"""


def completion_of_llama_cpp(path, request):
    run = subprocess.run([sys.executable, "-c", LLAMA_CPP, str(path), json.dumps(request)], capture_output=True, text=True)
    answers = [line for line in run.stdout.splitlines() if line.startswith("ANSWER")]
    if not answers:
        sys.exit(f"llama.cpp does not run {path}\n{run.stderr[-4000:]}")
    tokens = json.loads(answers[0].removeprefix("ANSWER"))["choices"][0]["logprobs"]["content"]
    return [{top["id"]: top["logprob"] for top in t["top_logprobs"]} for t in tokens], [t["id"] for t in tokens]


def completion_of_lathe(path, request):
    server = subprocess.Popen([lathe.path, "serve", str(path), "--port", "0"], stderr=subprocess.PIPE, text=True)
    try:
        url = next(found[0] for line in server.stderr if (found := re.search(r"http://[0-9.:]*", line)))
        body = json.dumps(request).encode()
        with urllib.request.urlopen(urllib.request.Request(url + "/completion", body, {"Content-Type": "application/json"})) as answer:
            tokens = json.load(answer)["completion_probabilities"]
    finally:
        server.terminate()
        server.wait()
    return [{top["id"]: top["logprob"] for top in t["top_logprobs"]} for t in tokens], [t["id"] for t in tokens]


def compare_to_llama_cpp(what, path, bound):
    request = {"prompt": PROMPT, "n_predict": 12, "temperature": 0, "n_probs": 8}
    theirs, their_tokens = completion_of_llama_cpp(path, request | {"cache_prompt": False})
    ours, our_tokens = completion_of_lathe(path, request)
    worst, steps = 0.0, 0
    for a, b, i, j in zip(ours, theirs, our_tokens, their_tokens):
        worst = max([worst] + [abs(a[token] - b[token]) for token in a.keys() & b.keys()])
        steps += 1
        if i != j:
            break
    report(f"{what} ({steps} of 12 tokens alike)" if steps < 12 else what, worst, bound, "log-probability")


lathe, WORK = Lathe(sys.argv[1]), pathlib.Path(sys.argv[2])
WORK.mkdir(parents=True, exist_ok=True)
lathe("export", "builtin", "--to", "gguf", "--type", "bf16", "-o", WORK / "plain.gguf")  # for its tokenizer
for family in FAMILIES:
    print(f"{family}: read, written, and in llama.cpp")
    params = parameters(family)
    source = write(WORK / family, {name: ("F32", w) for name, w in params.items()}, config_of(family))
    for kind in ("Q8_0", "Q4_0"):
        path = WORK / "theirs.gguf"
        means = write_gguf(path, family, params, gguf.GGMLQuantizationType[kind])
        compare(f"their gguf {kind}", path, family, means)
    for kind in ("f32", "q8_0", "q4_k_m"):
        path = WORK / "ours.gguf"
        lathe("export", source, "--to", "gguf", "--type", kind, "-o", path)
        compare(f"our gguf {kind}", path, family, read_gguf(path, family, params))
        compare_to_llama_cpp(f"llama.cpp on our gguf {kind}", path, LOGPROB[kind])
    if family == "gpt_oss":
        path = WORK / "theirs.gguf"
        means = write_gguf(path, family, params, gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.MXFP4)
        compare("their gguf Q8_0, experts MXFP4", path, family, means)
        source, blocks = openai_mxfp4(family, params)
        for kind in ("bf16", "q8_0", "q4_k_m"):
            path = WORK / "ours.gguf"
            lathe("export", source, "--to", "gguf", "--type", kind, "-o", path)
            stored = {t.name: t.data for t in gguf.GGUFReader(path).tensors if t.tensor_type == gguf.GGMLQuantizationType.MXFP4}
            assert set(stored) == set(blocks) and all(np.array_equal(stored[name], blocks[name]) for name in blocks), "experts"
            compare(f"our gguf {kind}, experts MXFP4", path, family, read_gguf(path, family, params))
            compare_to_llama_cpp(f"llama.cpp on our gguf {kind}, experts MXFP4", path, LOGPROB[kind])

if failures:
    sys.exit(f"interop: experts: {', '.join(failures)}")
print("interop: experts ok")
