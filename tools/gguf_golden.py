#!/usr/bin/env python3
"""Blocks of every GGUF type that Lathe reads, and what ggml's own Python package says they mean.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install gguf==0.19.0 numpy safetensors
    /tmp/v/bin/python tools/gguf_golden.py tests/golden/gguf/blocks.safetensors
"""
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize
from safetensors.numpy import save_file

# Bytes of a block where its f16 numbers begin; the others are any bytes.
F16 = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
       "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [], "NVFP4": []}
BLOCKS = 6

rng = np.random.default_rng(0)
out = {}
for name, places in F16.items():
    elements, size = GGML_QUANT_SIZES[Type[name]]
    blocks = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for at in places:  # ordinary, large, negative, subnormal, zero
        scales = np.array([0.013, 1500.0, -0.7, 3e-7, 0.0, 0.25], np.float16)
        blocks[:, at:at + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
    if name == "MXFP4":
        blocks[:, 0] = [127, 120, 1, 0, 200, 130]  # exponents; 255 would be NaN
    if name == "NVFP4":
        blocks[:, :4] &= 0x7F
        blocks[:, :4][blocks[:, :4] == 0x7F] = 0x7E
    out[f"{name}.blocks"] = blocks
    out[f"{name}.values"] = dequantize(blocks, Type[name]).astype(np.float32).reshape(BLOCKS, elements)
save_file(out, sys.argv[1], metadata={"format": "pt"})
