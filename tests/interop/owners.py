#!/usr/bin/env python3
"""The code of the formats' owners on our files, and ours on theirs, with the built-in model: owners.py LATHE WORK.

Read: what ModelOpt's own calibration and export_hf_checkpoint write must open, and mean what its tensors do by their
definition; NVFP4 is read by its NVFP4QTensor. `lathe eval` compares with those numbers in plain f32.
Write: compressed-tensors files of `lathe quantize`, loaded by transformers, whose CompressedTensors quantizer unpacks
them with compressed-tensors' own code.
"""
import copy
import json
import pathlib
import shutil
import subprocess
import sys

import torch
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = ROOT / "models/builtin"
LATHE, WORK = sys.argv[1], pathlib.Path(sys.argv[2])
BOUND = 5e-4          # as in formats.py: x may be rounded to 8 bits by a kernel
STATIC_BOUND = 1e-2  # where the format itself rounds x to int8 with one scale, and the twin does not: 4e-3 by any calibration
failures = []


def lathe(*arguments):
    run = subprocess.run([LATHE, *map(str, arguments)], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"lathe {' '.join(map(str, arguments))}\n{run.stderr}")
    return run


def companions(directory):
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(SOURCE / name, directory / name)


def twin_of(values):
    twin = WORK / "twin"
    shutil.rmtree(twin, ignore_errors=True)
    twin.mkdir(parents=True)
    save_file({name: w.float().contiguous() for name, w in values.items()}, twin / "model.safetensors", {"format": "pt"})
    shutil.copy(SOURCE / "config.json", twin / "config.json")
    companions(twin)
    return twin


def compare(what, directory, values, bound=BOUND):
    run = lathe("eval", directory, "--against", twin_of(values), "--text", SOURCE / "heldout.txt", "--max-tokens", 1500, "--json")
    kl = json.loads(run.stdout)["kl_mean"]
    plan = json.loads(lathe("inspect", "--plan", "--json", directory).stdout)["kernels"]
    emulated = sum(k["emulated"] for k in plan)
    if "is rounded to" in run.stderr:  # x in small floats, which the other side's is not, multiplied in f32
        bound, emulated = 0.05, 0
    columns = sum(bool(k["columns"]) for k in plan)
    print(f"  {what:<34} KL {kl:.2e}, {columns} layers with columns taken, {emulated} emulated{'' if kl < bound and not emulated else '  FAILED'}", flush=True)
    if not kl < bound or emulated:
        failures.append(what)


# What a module of ModelOpt's file means: y = W x.
def meaning(tensors, module, algorithm):
    from modelopt.torch.quantization.qtensor import NVFP4QTensor
    weight, scale = tensors[module + ".weight"], tensors[module + ".weight_scale"].float()
    if algorithm.startswith(("NVFP4", "W4A8_NVFP4")):
        shape = torch.Size((weight.shape[0], 2 * weight.shape[1]))
        w = NVFP4QTensor(shape, torch.float32, weight).dequantize(
            scale=tensors[module + ".weight_scale"], double_scale=tensors[module + ".weight_scale_2"], block_sizes={-1: 16})
        w = w.reshape(shape).float()
    elif algorithm.startswith("W4"):  # byte [r, k]: rows 2 r and 2 r + 1, signed
        codes = torch.stack([weight & 15, weight >> 4], 1).reshape(-1, weight.shape[1]).to(torch.int32)
        w = torch.where(codes > 7, codes - 16, codes) * scale.repeat_interleave(weight.shape[1] // scale.shape[1], 1)
    elif algorithm == "FP8":
        w = weight.float() * scale
    else:
        w = weight.float() * scale[:, None]
    for prefix in ("weight_quantizer._", ""):
        if f"{module}.{prefix}svdquant_lora_a" in tensors:
            w = w + tensors[f"{module}.{prefix}svdquant_lora_b"].float() @ tensors[f"{module}.{prefix}svdquant_lora_a"].float()
    return w * tensors[module + ".pre_quant_scale"].float() if module + ".pre_quant_scale" in tensors else w


def modelopt_export(config, directory):
    import modelopt.torch.quantization as mtq
    from modelopt.torch.export import export_hf_checkpoint
    from transformers import AutoTokenizer, LlamaForCausalLM
    torch.manual_seed(0)
    model = LlamaForCausalLM.from_pretrained(SOURCE, dtype=torch.bfloat16).eval()
    # Text, not random tokens: one scale for all of x cuts off what calibration has not seen.
    ids = AutoTokenizer.from_pretrained(SOURCE)((SOURCE / "calibration.txt").read_text(), return_tensors="pt").input_ids
    text = ids[0, :64 * 256].reshape(64, 256)
    model = mtq.quantize(model, copy.deepcopy(getattr(mtq, config)), forward_loop=lambda m: m(text))
    with torch.inference_mode():
        export_hf_checkpoint(model, export_dir=directory)
    companions(directory)


print("read: exports of ModelOpt")
for config in ("INT8_SMOOTHQUANT_CFG", "INT8_WEIGHT_ONLY_CFG", "INT4_AWQ_CFG", "W4A8_AWQ_BETA_CFG", "NVFP4_DEFAULT_CFG",
               "NVFP4_AWQ_LITE_CFG", "NVFP4_SVDQUANT_DEFAULT_CFG", "FP8_DEFAULT_CFG"):
    if config.startswith("NVFP4") and not torch.cuda.is_available():
        print(f"  {config:<34} not made: ModelOpt calibrates it on CUDA only")
        continue
    theirs = WORK / "modelopt" / config
    if not (theirs / "tokenizer.json").exists():
        shutil.rmtree(theirs, ignore_errors=True)
        modelopt_export(config, theirs)
    tensors = load_file(theirs / "model.safetensors")
    algorithm = json.loads((theirs / "hf_quant_config.json").read_text())["quantization"]["quant_algo"]
    modules = [name.removesuffix(".weight_scale") for name in tensors if name.endswith(".weight_scale")]
    values = {name: w for name, w in tensors.items()
              if name.endswith(".weight") and name.removesuffix(".weight") not in modules}
    values |= {module + ".weight": meaning(tensors, module, algorithm) for module in modules}
    compare(f"{config}: {algorithm}", theirs, values, STATIC_BOUND if algorithm.startswith("W8A8") else BOUND)

print("write: what transformers and compressed-tensors read")
for scheme in ("w8a16", "w4a16", "w4a16 --asymmetric", "w3a16", "w2a16", "fp8", "fp8-tensor", "fp8-block", "nvfp4", "mxfp4", "mxfp8",
               "w8a8-fp8", "w8a8-fp8-block", "w8a8-mxfp8", "w4a4-mxfp4", "w4a8-fp8"):
    from transformers import CompressedTensorsConfig, LlamaForCausalLM
    ours = WORK / "ours"
    shutil.rmtree(ours, ignore_errors=True)
    lathe("quantize", "builtin", "--scheme", *scheme.split(), "-o", ours)
    try:
        model = LlamaForCausalLM.from_pretrained(ours, dtype=torch.float32,
                                                 quantization_config=CompressedTensorsConfig(run_compressed=False))
    except Exception as error:
        print(f"  {scheme:<34} not loaded: {type(error).__name__}: {str(error)[:200]}  FAILED", flush=True)
        failures.append(scheme)
        continue
    values = {name: w for name, w in model.state_dict().items() if name != "lm_head.weight"}
    compare(scheme, ours, values)

if failures:
    sys.exit(f"interop: {len(failures)} of the owners' readings differ: {', '.join(failures)}")
print("interop: owners ok")
