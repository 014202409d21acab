#!/usr/bin/env python3
"""GGUF files that llama.cpp's converter makes of tests/golden/model, without their vocabulary, for tests/unit/test_families.c.

usage: make_families.py LLAMA_CPP [OUTDIR]     a checkout of llama.cpp; needs torch, transformers, safetensors
"""
import json
import os
import runpy
import sys
import tempfile

from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = ("gemma3-old", "gpt-neox", "gpt2")


def make(name, source, out):
    folder = os.path.join(HERE, "model", name)
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    # what the converter asks for and newer files lack
    if name == "gpt-neox":
        config["rotary_pct"] = config["rope_parameters"]["partial_rotary_factor"]
    if name == "gpt2":
        config["n_ctx"] = config["n_positions"]
    with tempfile.TemporaryDirectory() as d:
        # as f32, since the converter would round norms plus one to f16
        save_file({k: v.float() for k, v in load_file(os.path.join(folder, "model.safetensors")).items()},
                  os.path.join(d, "model.safetensors"), metadata={"format": "pt"})
        with open(os.path.join(d, "config.json"), "w") as f:
            json.dump(config, f)
        with open(os.path.join(d, "tokenizer.json"), "w") as f:
            json.dump(dict(model=dict(vocab={str(i): i for i in range(config["vocab_size"])}), added_tokens=[]), f)
        sys.argv = ["convert_hf_to_gguf.py", d, "--outfile", os.path.join(out, name + ".gguf"), "--outtype", "f16"]
        runpy.run_path(os.path.join(source, "convert_hf_to_gguf.py"), run_name="__main__")


if __name__ == "__main__":
    sys.path[:0] = [sys.argv[1], os.path.join(sys.argv[1], "gguf-py")]
    import conversion.base as base
    import conversion.gemma as gemma

    base.ModelBase.load_hparams = staticmethod(lambda d, *a, **k: json.load(open(os.path.join(d, "config.json"))))
    base.TextModel.set_vocab = gemma.Gemma3Model.set_vocab = lambda self: None
    source, root = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else os.path.join(HERE, "gguf")
    for case in CASES:
        make(case, source, root)
