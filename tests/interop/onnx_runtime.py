"""ONNX Runtime must say what Lathe says: the same greedy text, step by step over its KV cache, in every form that
weights have there; padding and a prompt cut in two change nothing. Usage: onnx_runtime.py LATHE WORK"""

import json
import pathlib
import shutil
import subprocess
import sys

import checkpoints
import mixtures
import numpy as np
import onnx
import onnxruntime
import tokenizers

lathe, work = sys.argv[1], pathlib.Path(sys.argv[2]) / "onnx"
calibration = pathlib.Path(__file__).parents[2] / "models" / "builtin" / "calibration.txt"
prompt, steps = "It was a truth universally acknowledged", 48

# Name, how the model is quantized, how it is exported; the form that most matrices must have; the family of mixtures.py,
# if it is not the built-in model.
cases = [
    ("f32", None, ["--type", "f32"], "dense"),
    ("f16", None, ["--type", "f16"], "dense"),
    ("stored", None, [], "dense"),
    ("int4", ["--scheme", "w4a16", "--group-size", "32"], [], "MatMulNBits"),
    ("int4-zero-points", ["--scheme", "w4a16", "--group-size", "64", "--asymmetric", "--head"], [], "MatMulNBits"),
    ("int3", ["--scheme", "w3a16", "--group-size", "16"], [], "MatMulNBits"),
    ("int8", ["--scheme", "w8a16", "--head"], [], "QDQ"),
    ("int8-groups", ["--scheme", "w8a16", "--group-size", "64", "--asymmetric", "--head"], [], "MatMulNBits"),
    ("w8a8", ["--scheme", "w8a8"], [], "QDQ"),
    ("w4a8", ["--scheme", "w4a8", "--group-size", "32"], [], "QDQ"),
    ("w8a8-static", ["--scheme", "w8a8-static", "--calibration", calibration], [], "QDQ"),
    ("nvfp4", ["--scheme", "nvfp4"], [], "dequantized"),
    ("low-rank", ["--scheme", "w4a16", "--group-size", "32", "--method", "gptq+rank8", "--calibration",
                  pathlib.Path(__file__).parents[2] / "models/builtin/calibration.txt", "--calibration-tokens", "4096"],
     [], "dense"),  # the factors
    ("hadamard", ["--scheme", "w8a16", "--rotate", "both", "--r3", "--r4"], [], "QDQ"),
    ("experts", None, ["--type", "f32"], "dense", "mixtral"),
    ("experts-int4", ["--scheme", "w4a16", "--group-size", "32"], [], "MatMulNBits", "qwen3_moe"),
    ("experts-int8", ["--scheme", "w8a16"], [], "QDQ", "qwen2_moe"),
]


def run(*args):
    result = subprocess.run([lathe, *map(str, args)], capture_output=True, text=True)
    assert result.returncode == 0, (args, result.stderr)
    return json.loads(result.stdout)


class Decoder:
    def __init__(self, directory):
        path = str(directory / "model.onnx")
        onnx.checker.check_model(path, full_check=True)
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.cache = [i for i in self.session.get_inputs() if i.name.startswith("past_key_values.")]

    def start(self, batch):
        return {i.name: np.zeros((batch, i.shape[1], 0, i.shape[3]), np.float32) for i in self.cache}

    def step(self, past, ids, mask, positions):
        """Logits of all positions, and the cache."""
        feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **past}
        names = ["logits"] + [i.name.replace("past_key_values", "present") for i in self.cache]
        logits, *present = self.session.run(names, feeds)
        return logits, {i.name: p for i, p in zip(self.cache, present)}

    def prefill(self, ids):
        ids = np.array([ids], np.int64)
        n = np.arange(ids.shape[1])[None]
        return self.step(self.start(1), ids, np.ones_like(ids), n)

    def greedy(self, ids):
        logits, past = self.prefill(ids)
        out, margins = [], []
        for position in range(len(ids), len(ids) + steps):
            best = np.sort(logits[0, -1])
            margins.append(float(best[-1] - best[-2]))
            out.append(int(logits[0, -1].argmax()))
            one = np.array([[out[-1]]], np.int64)
            logits, past = self.step(past, one, np.ones((1, position + 1), np.int64), np.array([[position]]))
        return out, margins


def check_cuts_and_padding(model, ids):
    whole, _ = model.prefill(ids)
    cut = len(ids) // 2
    first = np.array([ids[:cut]], np.int64)
    _, past = model.step(model.start(1), first, np.ones_like(first), np.arange(cut)[None])
    rest = np.array([ids[cut:]], np.int64)
    logits, _ = model.step(past, rest, np.ones((1, len(ids)), np.int64), np.arange(cut, len(ids))[None])
    np.testing.assert_allclose(logits[0], whole[0, cut:], atol=1e-3)
    # Beside a shorter text, padded on the left.
    short = ids[2:]
    both = np.array([ids, [0, 0] + short], np.int64)
    mask = np.array([[1] * len(ids), [0, 0] + [1] * len(short)], np.int64)
    positions = np.array([range(len(ids)), [0, 0, *range(len(short))]], np.int64)
    logits, _ = model.step(model.start(2), both, mask, positions)
    np.testing.assert_allclose(logits[0], whole[0], atol=1e-3)
    np.testing.assert_allclose(logits[1, 2:], model.prefill(short)[0][0], atol=1e-3)


def read_golden(path):
    """The few tensors of a safetensors file that tools/golden.py wrote."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    types = {"F32": np.float32, "I32": np.int32, "I64": np.int64}
    return {
        key: np.frombuffer(raw[8 + size :][slice(*t["data_offsets"])], types[t["dtype"]]).reshape(t["shape"])
        for key, t in json.loads(raw[8 : 8 + size]).items()
        if key != "__metadata__"
    }


shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
for name, quantize, export, form, *family in cases:
    source = "builtin"
    if family:
        params = mixtures.parameters(family[0])
        source = checkpoints.write(work / f"{name}-source", {n: ("F32", w) for n, w in params.items()},
                                   mixtures.config_of(family[0]))
    if quantize:
        original, source = source, work / f"{name}-lathe"
        run("quantize", original, *quantize, "-o", source, "--json")
    text_of = source
    if family and quantize:  # kernels may round x, and that may flip a choice of experts: here in f32
        text_of = work / "exact.gguf"
        run("export", source, "--to", "gguf", "--type", "f32", "-o", text_of, "--json")
    directory = work / name
    written = run("export", source, "--to", "onnx", *export, "-o", directory, "--json")
    assert max(written["tensors"], key=written["tensors"].get) == form, written
    model = Decoder(directory)
    ids = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json")).encode(prompt).ids
    ours = run("generate", text_of, "--prompt", prompt, "--temperature", 0, "--max-tokens", steps, "--ignore-eos",
               "--json")["tokens"]
    theirs, margins = model.greedy(ids)
    if theirs != ours:
        at = next(i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b)
        raise AssertionError(f"{name}: token {at} is {theirs[at]}, ours {ours[at]}, margin {margins[at]:.4f}")
    if name in ("f32", "int4", "experts"):
        check_cuts_and_padding(model, ids)
    print(f"onnx {name}: {steps} tokens alike, {written['bytes'] / 1e6:.2f} MB, {written['tensors']}")
# Every family against Hugging Face's own logits: biases, norms of heads, windows, scaled frequencies.
golden = pathlib.Path(__file__).parent.parent / "golden"
for family in sorted(path.parent for path in golden.glob("*/config.json")):
    expected = read_golden(family / "golden.safetensors") if (family / "golden.safetensors").exists() else {}
    if "logits" not in expected or not (family / "model.safetensors").exists():
        continue
    directory = work / family.name
    run("export", family, "--to", "onnx", "--type", "f32", "-o", directory, "--json")
    model = Decoder(directory)
    ids = expected["input_ids"].tolist()
    difference = np.abs(model.prefill(ids)[0][0] - expected["logits"]).max()
    assert difference <= 1e-4, (family.name, difference)
    check_cuts_and_padding(model, ids)
    print(f"onnx {family.name}: largest difference to Hugging Face's logits {difference:.1e}")
print("onnxruntime", onnxruntime.__version__, "onnx", onnx.__version__, "ok")
