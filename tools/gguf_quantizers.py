#!/usr/bin/env python3
"""How well ggml's own quantizers do on some numbers: what Lathe's are tested against.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install gguf==0.19.0 numpy safetensors xllamacpp
    /tmp/v/bin/python tools/gguf_quantizers.py tests/golden/gguf/quantizers.safetensors

`values` [16, 512] are normal numbers whose size differs by column and row, with a few large ones; `importance`
[512]; `<TYPE>` is ggml's sum of squared errors over all of them, `<TYPE>.weighted` that of importance times
squared error where it was given the importance.
"""
import ctypes
import sys

import numpy as np
import xllamacpp.xllamacpp as llama_cpp
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize
from safetensors.numpy import save_file

ggml = ctypes.CDLL(llama_cpp.__file__)
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                                     ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]

rng = np.random.default_rng(1)
rows, cols = 16, 512
values = rng.standard_normal((rows, cols)) * np.exp(rng.standard_normal(cols) * 0.3)
values *= 0.05 * np.exp(rng.standard_normal((rows, 1)) * 0.5)
values[rng.random((rows, cols)) < 0.004] *= 6
values = np.ascontiguousarray(values, np.float32)
importance = np.exp(rng.standard_normal(cols)).astype(np.float32)


def quantized(name, weights):
    elements, size = GGML_QUANT_SIZES[Type[name]]
    blocks = np.zeros((rows, cols // elements * size), np.uint8)
    written = ggml.ggml_quantize_chunk(Type[name].value, values.ctypes.data, blocks.ctypes.data, 0, rows, cols,
                                       weights.ctypes.data if weights is not None else None)
    assert written == blocks.size
    return dequantize(blocks, Type[name]).astype(np.float64)


out = {"values": values, "importance": importance}
for name in ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]:
    plain = ((quantized(name, None) - values) ** 2).sum()
    weighted = (importance * (quantized(name, importance) - values) ** 2).sum()
    out[name] = np.array([plain], np.float32)
    out[name + ".weighted"] = np.array([weighted], np.float32)
    print(name, plain, weighted)
save_file(out, sys.argv[1], metadata={"format": "pt"})
