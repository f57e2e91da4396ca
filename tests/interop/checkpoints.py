"""Small Hugging Face directories, read and written with numpy, and the built-in model in floats."""
import json
import pathlib
import shutil
import struct
import subprocess
import sys

import numpy as np

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "models/builtin"
# numpy has neither bf16 nor fp8: those are bits here.
TYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64, "I32": np.int32, "I8": np.int8,
         "U8": np.uint8, "F8_E4M3": np.uint8}


def read(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, item in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = item["data_offsets"]
            bits = np.frombuffer(data[8 + size + begin:8 + size + end], TYPES[item["dtype"]]).reshape(item["shape"])
            out[name] = (item["dtype"], bits)
    return out


def write(directory, tensors, config=None, beside=None):
    """The built-in model's config, changed by `config`; `beside`: another JSON file, by name and value."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    header, data = {"__metadata__": {"format": "pt"}}, []
    at = 0
    for name, (dtype, bits) in tensors.items():
        raw = np.ascontiguousarray(bits).tobytes()
        header[name] = {"dtype": dtype, "shape": list(bits.shape), "data_offsets": [at, at + len(raw)]}
        data.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
    (directory / "config.json").write_text(json.dumps(json.loads((SOURCE / "config.json").read_text()) | (config or {})))
    if beside:
        (directory / beside[0]).write_text(json.dumps(beside[1]))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(SOURCE / name, directory / name)
    return directory


def floats(dtype, bits):
    if dtype == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.astype(np.float32)


def builtin():
    return {name: floats(*tensor) for name, tensor in read(SOURCE / "model.safetensors").items()}


def interleaved(w, heads):
    """The order of rows in GGUF's llama."""
    return w.reshape(heads, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape) if heads else w


def halves(w, heads):
    return w.reshape(heads, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape) if heads else w


def copy_tokenizer(reader, out):
    """From a gguf.GGUFReader to a gguf.GGUFWriter."""
    for field in reader.fields.values():
        if field.name.startswith("tokenizer."):
            kind, value = field.types[0], field.contents()
            out.add_array(field.name, value) if kind.name == "ARRAY" else out.add_key_value(field.name, value, kind)


class Lathe:
    def __init__(self, path):
        self.path = path

    def __call__(self, *arguments):
        run = subprocess.run([self.path, *map(str, arguments)], capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"lathe {' '.join(map(str, arguments))}\n{run.stderr}")
        return run
