#!/usr/bin/env python3
"""Makes the reference fixtures under tests/golden with Hugging Face transformers.

    pip install torch transformers tokenizers safetensors numpy
    tools/golden.py [--out tests/golden] [--shared ../shared/data] [--only NAME ...]

Every fixture is a function of this file alone (plus, for `builtin`, `tinystories656k` and
`tokenizer`, of the model and tokenizer files under --shared; these three are skipped where
that folder is absent). Neither the build nor the tests run this: they read what it wrote.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM

ROWS, PROMPT, GREEDY = 48, 16, 64  # logit rows, prompt ids, greedy ids
MARGIN = 0.05                      # least top1 - top2 logit along the greedy path
ROUTING = 0.03                     # least margin of a routing, in logits: bf16 must not change it
VARIETY = 24                       # least number of different greedy tokens: no short cycles


# ---------------------------------------------------------------------------------------------
# Families: config.json as published, with only the sizes (and the ids and lengths that must fit
# in them) made small. Keys that a published file leaves out are left out here too.

LLAMA = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", hidden_size=64,
    intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    bos_token_id=1, eos_token_id=2, initializer_range=0.02, max_position_embeddings=256,
    pretraining_tp=1, rms_norm_eps=1e-5, rope_scaling=None, tie_word_embeddings=False,
    torch_dtype="bfloat16", use_cache=True, vocab_size=128)

LLAMA3 = dict(
    LLAMA, attention_bias=False, attention_dropout=0.0, bos_token_id=124, eos_token_id=125,
    rope_theta=500000.0, transformers_version="4.40.0.dev0")

LLAMA31 = dict(
    LLAMA3, eos_token_id=[125, 126, 127], max_position_embeddings=512, mlp_bias=False)

MISTRAL = dict(
    architectures=["MistralForCausalLM"], model_type="mistral", hidden_act="silu", hidden_size=64,
    intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    bos_token_id=1, eos_token_id=2, initializer_range=0.02, max_position_embeddings=256,
    rms_norm_eps=1e-5, tie_word_embeddings=False, torch_dtype="bfloat16", use_cache=True,
    vocab_size=128)

# A window below ROWS that `use_sliding_window` switches off: reading it would show.
QWEN2 = dict(
    architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_act="silu", hidden_size=64,
    intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    attention_dropout=0.0, bos_token_id=123, eos_token_id=125, initializer_range=0.02,
    max_position_embeddings=256, max_window_layers=1, rms_norm_eps=1e-6, rope_theta=1000000.0,
    sliding_window=16, use_sliding_window=False, tie_word_embeddings=True,
    torch_dtype="bfloat16", transformers_version="4.40.1", use_cache=True, vocab_size=128)


# The router is a part of what must show: top 2 of 8 experts, weights that are not all alike.
MIXTRAL = {**{k: v for k, v in MISTRAL.items() if k != "transformers_version"},
           **dict(architectures=["MixtralForCausalLM"], model_type="mixtral", attention_dropout=0.0,
                  intermediate_size=32, hidden_size=32, num_attention_heads=2, num_key_value_heads=1,
                  num_experts_per_tok=2, num_local_experts=8, output_router_logits=False,
                  rope_theta=1000000.0, router_aux_loss_coef=0.02, sliding_window=None,
                  transformers_version="4.36.0.dev0")}

QWEN2_MOE = {**{k: v for k, v in QWEN2.items()
                if k not in ("max_window_layers", "use_sliding_window", "sliding_window")},
             **dict(architectures=["Qwen2MoeForCausalLM"], model_type="qwen2_moe",
                    decoder_sparse_step=1, hidden_size=32, intermediate_size=48, max_window_layers=1,
                    moe_intermediate_size=24, norm_topk_prob=False, num_attention_heads=2,
                    num_experts=8, num_experts_per_tok=2, num_key_value_heads=2,
                    output_router_logits=False, router_aux_loss_coef=0.001,
                    shared_expert_intermediate_size=40, sliding_window=16,
                    tie_word_embeddings=False, use_sliding_window=False,
                    transformers_version="4.39.0.dev0")}


# Limits and frequencies that show: most rows have numbers beyond the first, and positions beyond the
# original context.
GPT_OSS = dict(
    architectures=["GptOssForCausalLM"], model_type="gpt_oss", attention_bias=True,
    attention_dropout=0.0, eos_token_id=125, experts_per_token=2, head_dim=16, hidden_act="silu",
    hidden_size=32, initial_context_length=16, initializer_range=0.02, intermediate_size=32,
    layer_types=["sliding_attention", "full_attention"], max_position_embeddings=256,
    num_attention_heads=4, num_experts_per_tok=2, num_hidden_layers=2, num_key_value_heads=2,
    num_local_experts=4, output_router_logits=False, pad_token_id=124, rms_norm_eps=1e-5,
    rope_scaling=dict(beta_fast=32.0, beta_slow=1.0, factor=16.0,
                      original_max_position_embeddings=16, rope_type="yarn", truncate=False),
    rope_theta=150000, router_aux_loss_coef=0.9, sliding_window=16, swiglu_limit=1.5,
    tie_word_embeddings=False, torch_dtype="bfloat16", transformers_version="4.55.0.dev0",
    use_cache=True, vocab_size=128)


def llama3_scaling(factor, original):
    return dict(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=original, rope_type="llama3")


FAMILIES = {
    # No rope_theta: 10000 is the default that readers must know.
    "llama2": dict(LLAMA, intermediate_size=88, num_key_value_heads=4,
                   transformers_version="4.31.0.dev0"),
    "llama3": LLAMA3,
    # Sizes chosen so that high, middle and low frequencies all occur and ROWS > original.
    "llama3.1": dict(LLAMA31, num_attention_heads=2, num_key_value_heads=1,
                     rope_scaling=llama3_scaling(8.0, 32), transformers_version="4.42.3"),
    "llama3.2": dict(LLAMA31, head_dim=16, rope_scaling=llama3_scaling(32.0, 40),
                     tie_word_embeddings=True, transformers_version="4.45.0.dev0"),
    "mistral_v01": dict(MISTRAL, rope_theta=10000.0, sliding_window=16,
                        transformers_version="4.34.0.dev0"),
    "mistral_nemo": dict(MISTRAL, attention_dropout=0.0, head_dim=16, num_attention_heads=3,
                         num_key_value_heads=1, rope_theta=1000000.0, sliding_window=None,
                         transformers_version="4.43.0.dev0"),
    "qwen2": QWEN2,
    "qwen2.5": dict(QWEN2, tie_word_embeddings=False, transformers_version="4.43.1"),
    "qwen3": dict(QWEN2, architectures=["Qwen3ForCausalLM"], model_type="qwen3", head_dim=32,
                  attention_bias=False, intermediate_size=64, max_window_layers=2,
                  rope_scaling=None, rope_theta=1000000, sliding_window=None,
                  transformers_version="4.51.0"),
    "smollm2": {**dict(LLAMA, attention_bias=False, attention_dropout=0.0, hidden_size=72,
                       num_attention_heads=9, num_key_value_heads=3, is_llama_config=True,
                       initializer_range=0.041666666666666664, mlp_bias=False, pad_token_id=2,
                       rope_interleaved=False, rope_theta=100000, tie_word_embeddings=True,
                       transformers_version="4.42.3"),
                "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16",
                                                              "q4f16": "float16"}}},
    "tinyllama": dict(LLAMA, attention_bias=False, num_attention_heads=8, num_key_value_heads=2,
                      rope_theta=10000.0, transformers_version="4.35.0"),
    "mixtral": MIXTRAL,
    "qwen2_moe": QWEN2_MOE,
    # Of three layers the middle one has an MLP.
    "qwen3_moe": {**QWEN2_MOE,
                  **dict(architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe",
                         attention_bias=False, head_dim=32, mlp_only_layers=[1], norm_topk_prob=True,
                         num_hidden_layers=3, num_key_value_heads=1, rope_scaling=None,
                         sliding_window=None, transformers_version="4.51.0")},
    "olmoe": dict(architectures=["OlmoeForCausalLM"], model_type="olmoe", attention_bias=False,
                  attention_dropout=0.0, clip_qkv=None, eos_token_id=125, hidden_act="silu",
                  hidden_size=32, initializer_range=0.02, intermediate_size=24,
                  max_position_embeddings=256, norm_topk_prob=False, num_attention_heads=2,
                  num_experts=8, num_experts_per_tok=2, num_hidden_layers=2,
                  num_key_value_heads=2, output_router_logits=False, pad_token_id=1,
                  rms_norm_eps=1e-5, rope_scaling=None, rope_theta=10000.0,
                  router_aux_loss_coef=0.01, tie_word_embeddings=False, torch_dtype="bfloat16",
                  transformers_version="4.43.0.dev0", use_cache=True, vocab_size=128),
    "gpt_oss": GPT_OSS,
    "gpt_oss_mxfp4": dict(
        {k: v for k, v in GPT_OSS.items() if k != "torch_dtype"}, dtype="bfloat16",
        quantization_config=dict(
            modules_to_not_convert=["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                    "model.embed_tokens", "lm_head"],
            quant_method="mxfp4")),
    "sharded": dict(LLAMA3, torch_dtype="float16"),
    # As transformers 5 writes it: rope_parameters for rope_theta and rope_scaling, dtype for
    # torch_dtype.
    "rope_parameters": {**{k: v for k, v in LLAMA.items()
                           if k not in ("rope_scaling", "torch_dtype")},
                        **dict(attention_bias=False, attention_dropout=0.0, dtype="float32",
                               head_dim=16, intermediate_size=32, mlp_bias=False,
                               num_key_value_heads=1, tie_word_embeddings=True,
                               rope_parameters=dict(rope_theta=100000, rope_type="default"),
                               transformers_version="5.7.0")},
}


# ---------------------------------------------------------------------------------------------
# Random checkpoints

def write_config(folder, config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def random_tensor(name, shape, rng):
    """Values that make every part of the model show in the logits."""
    if name.endswith("norm.weight"):
        return rng.uniform(0.5, 1.5, shape)
    if name.endswith((".bias", "_bias")):
        return rng.normal(0.0, 0.3, shape)
    if name.endswith("_blocks"):
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if name.endswith("_scales"):  # exponents above 127
        return rng.integers(121, 125, shape, dtype=np.uint8)
    if "embed_tokens" in name or "lm_head" in name:
        return rng.normal(0.0, 0.5, shape)
    return rng.normal(0.0, 1.5 / np.sqrt(shape[-1]), shape)


def stored_shapes(config, shapes):
    """transformers holds the experts of a layer in one tensor; checkpoints have one for each, but
    for gpt-oss', which have them so too, or in blocks of mxfp4."""
    model_type = config["model_type"]
    if model_type == "gpt_oss":
        if "quantization_config" not in config:
            return shapes
        stored = {}
        for name, shape in shapes.items():
            if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                stored[name] = shape
                continue
            experts, cols, rows = shape
            stored[name + "_blocks"] = (experts, rows, cols // 32, 16)
            stored[name + "_scales"] = (experts, rows, cols // 32)
        return stored
    names = ("w1", "w3", "w2") if model_type == "mixtral" else ("gate_proj", "up_proj", "down_proj")
    stored = {}
    for name, shape in shapes.items():
        if model_type == "mixtral":
            name = name.replace(".mlp.", ".block_sparse_moe.")
        scope, _, last = name.rpartition(".experts.")
        if not scope:
            stored[name] = shape
            continue
        experts, rows, cols = shape
        parts = [(n, rows // 2) for n in names[:2]] if last == "gate_up_proj" else [(names[2], rows)]
        for e in range(experts):
            stored.update({f"{scope}.experts.{e}.{n}.weight": (r, cols) for n, r in parts})
    return stored


def routing_margin(model, ids):
    """The least distance of a router's logits between the last expert chosen and the next."""
    margins, hooks = [float("inf")], []
    for name, module in model.named_modules():
        if name.endswith((".mlp.gate", ".block_sparse_moe.gate", ".mlp.router")):
            def look(_, inputs, output):
                logits = output[0] if isinstance(output, tuple) else output
                top = logits.topk(model.config.num_experts_per_tok + 1, -1).values
                margins.append((top[:, -2] - top[:, -1]).min().item())
            hooks.append(module.register_forward_hook(look))
    logits_of(model, ids)
    for hook in hooks:
        hook.remove()
    return min(margins)


def write_weights(folder, shapes, dtype, seed, shards):
    rng = np.random.Generator(np.random.PCG64(seed))
    tensors = {name: torch.from_numpy(random_tensor(name, shape, rng)).contiguous()
               for name, shape in sorted(shapes.items())}
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    meta = {"format": "pt"}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata=meta)
        return
    files = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    names = sorted(tensors)
    weight_map = {name: files[i * shards // len(names)] for i, name in enumerate(names)}
    for file in files:
        save_file({n: tensors[n] for n in names if weight_map[n] == file}, folder / file,
                  metadata=meta)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = dict(metadata=dict(total_size=total), weight_map=weight_map)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def load(folder, **overrides):
    """The model in float32 with eager attention. Nothing may be missing or left over."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True,
        **overrides)
    problems = {k: v for k, v in info.items() if v}
    assert not problems, problems
    if hasattr(model.config, "quantization_config"):  # read as bf16, which holds all its numbers
        model = model.float()
    assert all(p.dtype == torch.float32 for p in model.parameters())
    return model.eval()


def logits_of(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0]


def greedy(model, prompt, count):
    """Greedy ids (never stopping) and the least margin, by whole passes without a cache; a
    second run with the cache must choose the same."""
    ids, margin = list(prompt), float("inf")
    for _ in range(count):
        top = logits_of(model, ids)[-1].topk(2)
        margin = min(margin, (top.values[0] - top.values[1]).item())
        ids.append(top.indices[0].item())

    cache, step, cached = None, list(prompt), list(prompt)
    for _ in range(count):
        out = model(torch.tensor([step]), past_key_values=cache, use_cache=True)
        cache, step = out.past_key_values, [out.logits[0, -1].argmax().item()]
        cached += step
    assert ids == cached, "use_cache changes the greedy path"
    return ids[len(prompt):], margin


def save_golden(folder, model, ids, prompt, generated, **more):
    int32 = lambda values: torch.tensor(values, dtype=torch.int32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(input_ids=int32(ids), logits=logits_of(model, ids).contiguous(),
                   prompt_ids=int32(prompt), greedy_ids=int32(generated), **more),
              folder / "golden.safetensors")


def make_family(out, name):
    config, folder = FAMILIES[name], out / name
    write_config(folder, config)
    parsed = AutoConfig.from_pretrained(folder)
    assert parsed.model_type == config["model_type"]
    skeleton = AutoModelForCausalLM.from_config(parsed)
    shapes = {n: tuple(p.shape) for n, p in skeleton.named_parameters()}  # tied head: once
    shapes = stored_shapes(config, shapes)
    dtype = getattr(torch, config.get("torch_dtype") or config["dtype"])

    for seed in range(10_000):
        write_weights(folder, shapes, dtype, seed, shards=2 if name == "sharded" else 1)
        model = load(folder)
        rng = np.random.Generator(np.random.PCG64(10_000 + seed))
        ids = rng.integers(0, config["vocab_size"], ROWS).tolist()
        if routing_margin(model, ids) < ROUTING:
            continue
        generated, margin = greedy(model, ids[:PROMPT], GREEDY)
        if margin >= MARGIN and len(set(generated)) >= VARIETY:
            break
    else:
        raise SystemExit(f"{name}: no seed gives a clear greedy path")
    save_golden(folder, model, ids, ids[:PROMPT], generated)

    note = ""
    if config.get("sliding_window") and config["model_type"] == "mistral":
        window, base = config["sliding_window"], logits_of(model, ids)
        change = (logits_of(load(folder, sliding_window=None), ids) - base).abs().amax(-1)
        assert change[:window].max() < 1e-4 < change[window:].min(), "window is not applied"
        note = f"  window shows from row {window} on: {change[window:].max():.2f}"
    print(f"{name:16} seed {seed:3}  margin {margin:.3f}  "
          f"{len(set(generated))} different tokens{note}")


# ---------------------------------------------------------------------------------------------
# Trained models: only their outputs are kept here

BOOK_PROMPTS = [
    "The captain looked out over the sea, and said to his mate:",
    "The old man closed the door behind him and", "Chapter 1\n\nIt was in the year 1801 that",
    "In the middle of the night she heard a voice, and", "The law of the land requires that",
    "\"My dear sir,\" said the doctor,", "The history of Rome begins with", "He opened the letter,",
    "There are two kinds of men in the world:", "On the following morning the travellers",
]
STORY_PROMPTS = [
    "Once upon a time, there was a little dog named Max.",
    "One day, a boy named Tim went to the", "The big bear was very sad because",
    "Lily and her mom went to the store.", "Once there was a small fish who lived in the sea.",
]


def mean_nll(model, ids, window):
    """Mean over non-overlapping windows; the first token of each is context only."""
    total, count = 0.0, 0
    for start in range(0, len(ids), window):
        part = ids[start:start + window]
        if len(part) < 2:
            continue
        logp = logits_of(model, part)[:-1].double().log_softmax(-1)
        total -= logp.gather(1, torch.tensor(part[1:])[:, None]).sum().item()
        count += len(part) - 1
    return total / count


def encode(tokenizer, text, bos=()):
    return [*bos, *tokenizer.encode(text, add_special_tokens=False).ids]


def clear_greedy(model, tokenizer, prompts, bos=()):
    """The first prompt whose greedy path is clear and varied enough (a model cannot be
    reseeded)."""
    for text in prompts:
        prompt = encode(tokenizer, text, bos)
        generated, margin = greedy(model, prompt, GREEDY)
        if margin >= 0.02 and len(set(generated)) >= VARIETY:
            print(f"  {text!r} ->\n  {tokenizer.decode(generated)!r}")
            return prompt, generated, margin
    raise SystemExit("no prompt gives a clear greedy path")


def make_builtin(out, shared):
    source = shared / "lm/books-6m"
    tokenizer, model = Tokenizer.from_file(str(source / "tokenizer.json")), load(source)
    raw = (shared / "text/persuasion_eval.txt").read_bytes()[:2000]
    text_ids = encode(tokenizer, raw.decode("utf-8", errors="ignore"))
    nll = mean_nll(model, text_ids, 256)
    assert nll < 4.0, nll
    prompt, generated, margin = clear_greedy(model, tokenizer, BOOK_PROMPTS)
    save_golden(out / "builtin", model, text_ids[:24], prompt, generated,
                text_ids=torch.tensor(text_ids, dtype=torch.int32),
                text_nll=torch.tensor([nll], dtype=torch.float32))
    print(f"builtin          margin {margin:.4f}  {len(text_ids)} text ids, nll {nll:.4f}")


def make_tinystories(out, shared):
    source = shared / "lm/tinystories656K_hf"
    model, weights = load(source), load_file(source / "model.safetensors")
    # The file holds the tied matrix under the head's name only: see that both uses got it.
    assert "model.embed_tokens.weight" not in weights
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        assert torch.equal(module.weight, weights["lm_head.weight"])

    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    bos = [model.config.bos_token_id]
    text = ("Once upon a time, there was a little girl named Lily. She loved to play outside in "
            "the park with her friends. One day, she saw a big red ball under the tree. "
            "She was very happy.")
    ids = encode(tokenizer, text, bos)
    bits = mean_nll(model, ids, 256) * (len(ids) - 1) / len(text) / np.log(2)
    assert len(ids) >= 24 and bits < 1.0, (len(ids), bits)
    prompt, generated, margin = clear_greedy(model, tokenizer, STORY_PROMPTS, bos)
    save_golden(out / "tinystories656k", model, ids[:24], prompt, generated)
    print(f"tinystories656k  margin {margin:.4f}  {bits:.2f} bits per character")


# ---------------------------------------------------------------------------------------------
# Tokenizers

TEXTS = [
    "", " ", "  ", "a", " a", "  a", "a ", "a  ", "\n", "\n\n", "\r\n", "\t", "\t\t x", " \n \n x",
    "Hello, world!", "Hello   world", "   leading and trailing   ", "line one\nline two\n\n\nend\n",
    "I'm you're he'll we've they'd it's DON'T CAN'T I'M",
    "don\u2019t \u2018quote\u2019 \u201cx\u201d",
    "0 1 12 123 1234 12345 1234567890 3.14159 1,000,000 0x1F 1e-5",
    "a1b2c3 v2.0.1 2024-01-31T12:00",
    "\u0661\u0662\u0663 \u0967\u0968\u0969 \u00bd \u00b2 \u2163 \u2460",
    "for (int i = 0; i < n; ++i) {\n\tx[i] += y->z * 2; // ok\n}\n",
    "def f(x):\n    return x**2 if x != 0 else None\n\n\nprint(f\"{f(3)!r}\")",
    "https://example.com/a?b=c&d=%20e#f user@host.org C:\\path\\file.txt",
    "caf\u00e9 na\u00efve \u00fcber \u00c5ngstr\u00f6m", "cafe\u0301 n\u0303 A\u030a \u1e9b\u0323",
    "Z\u0351\u036b\u0343a\u0329l\u035fg\u0334o", "\ufb01 \ufb02 \u210c \u212b \uff21\uff22\uff23",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "\u6771\u4eac\u3068\u30ab\u30bf\u30ab\u30ca\u3001\u3072\u3089\u304c\u306a",
    "\ud55c\uad6d\uc5b4 \ubb38\uc7a5 \u1112\u1161\u11ab",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c "
    "\u0643\u064e\u062a\u064e\u0628\u064e",
    "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd \u200fabc\u200e",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0393\u03b5\u03b9\u03ac "
    "\u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5",
    "\U0001f600\U0001f680 \U0001f44d\U0001f3fd \u2764\ufe0f",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 "
    "\U0001f1eb\U0001f1f7\U0001f1ef\U0001f1f5",
    "\U00010348\U0002f81a\U000e0041 \U0010ffff",
    "\u00a0\u2003\u3000\u2009x\u200by\ufeffz\u2028w\u2029v\u0085u", "\x00", "a\x00b\x00\x00c",
    "\x01\x02\x07\x08\x0b\x0c\x1b[31m\x7f\x80\x9f", "\ufffd\ufffe\uffff\ue000",
    "!!!??...---___***///\\\\\\", "$100 \u20ac50 \u00a320 50% #1 @x ^_^ ~ `code`", "<|endoftext|>",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "a<|endoftext|>b  <|endoftext|>  c",
    "<|endoftext|><|endoftext|>\n", "<|im_start| ><|IM_START|><im_start>",
    "<s>[INST] x [/INST]</s> <unk> <pad>", "<|start_story|> Once <|end_story|>",
    "<|user|> hi <|end|>\n<|assistant|> ok",
    "<think>\n\n</think>\n\n<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
    "\u2581a \u2581\u2581 b\u0120c\u010a", "<0x0A><0xFF>", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "supercalifragilisticexpialidocious antidisestablishmentarianism", " " * 17 + "x" + " " * 33,
    "\n" * 9 + "\t" * 5 + "y", "The quick brown fox jumps over the lazy dog. " * 3,
    "MixedCASE camelCase snake_case kebab-case SCREAMING_CASE",
    "\u01c5\u02b0\u00aa\u00df\u1e9e \u0130\u0131 \u017f's 'S 'LL '\u017f",
]


def qwen_tokenizer(folder):
    """Qwen2/2.5/3 from vocab.json and merges.txt, put together as their tokenizer.json is."""
    t = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    split = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
             r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for id_, token in sorted(config["added_tokens_decoder"].items(), key=lambda x: int(x[0])):
        t.add_tokens([AddedToken(**token)])
        assert t.token_to_id(token["content"]) == int(id_)
    return t


def make_tokenizers(out, shared):
    folder = out / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    sources = {"builtin": "lm/books-6m", "tinystories": "lm/tinystories656K_hf",
               "gpt2": "tokenizers/gpt2", "smollm2": "tokenizers/smollm2",
               "phi3": "tokenizers/ortgenai_phi3-v", "qwen3": "tokenizers/qwen3-8b"}
    for name, where in sources.items():
        file = shared / where / "tokenizer.json"
        t = Tokenizer.from_file(str(file)) if file.exists() else qwen_tokenizer(file.parent)
        rows = []
        for text in TEXTS:
            ids = t.encode(text, add_special_tokens=False).ids
            rows.append(dict(text=text, ids=ids, decoded=t.decode(ids, skip_special_tokens=False)))
        lines = ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
        (folder / f"{name}.json").write_text(f"[\n{lines}\n]\n")
        same = sum(r["text"] == r["decoded"] for r in rows)
        print(f"tokenizer/{name:14} {len(rows)} texts, {same} decode to themselves")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("tests/golden"))
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", metavar="NAME", nargs="+", help="fixtures to make (default: all)")
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, "
          f"tokenizers {tokenizers.__version__}")

    trained = {"builtin": make_builtin, "tinystories656k": make_tinystories,
               "tokenizer": make_tokenizers}
    names = args.only or [*FAMILIES, *trained]
    with torch.inference_mode():
        for name in names:
            if name in FAMILIES:
                make_family(args.out, name)
            elif name not in trained:
                sys.exit(f"no fixture {name}; there are {', '.join([*FAMILIES, *trained])}")
            elif args.shared.is_dir():
                trained[name](args.out, args.shared)
            else:
                print(f"{name}: skipped, {args.shared} is absent")


if __name__ == "__main__":
    main()
