#!/usr/bin/env python3
"""Times one prompt and its decoding with OpenVINO GenAI: one JSON object. compare runs it, once per repeat."""
import argparse
import json
import random
import sys


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--check", action="store_true", help="only say whether openvino_genai can be imported")
    p.add_argument("--model", help="a directory in OpenVINO's format, or a GGUF file")
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--gen", type=int, default=32)
    p.add_argument("--threads", type=int, default=2)
    o = p.parse_args()
    try:
        import openvino_genai as genai  # first: its absence is what people want named
        import numpy as np
        import openvino as ov
    except ImportError as error:
        sys.exit(f"not measured: {error}")
    if o.check:
        print(json.dumps({"version": genai.get_version() if hasattr(genai, "get_version") else "unknown"}))
        return
    pipe = genai.LLMPipeline(o.model, "CPU", INFERENCE_NUM_THREADS=o.threads)
    rng = random.Random(0)
    config = genai.GenerationConfig(max_new_tokens=o.gen + 1, ignore_eos=True, do_sample=False)

    def run():
        # Another prompt each time: a repeated one comes out of the pipeline's prefix cache, "17,000 tokens/s".
        ids = np.array([[rng.randrange(10000) for _ in range(o.prompt)]], dtype=np.int64)
        return pipe.generate(genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids))), config).perf_metrics

    run()  # warms up
    metrics = run()
    print(json.dumps({"prefill_tokens_per_s": 1000 * o.prompt / metrics.get_ttft().mean,
                      "decode_tokens_per_s": 1000 / metrics.get_tpot().mean}))


if __name__ == "__main__":
    main()
