#!/usr/bin/env python3
"""What llama.cpp's converter makes of tests/golden/model: a line for each tensor, for tests/unit/test_families.c.

usage: make_families.py LLAMA_CPP [CASE...]     a checkout of llama.cpp; needs torch, transformers, safetensors

converter.txt: name, type, dimensions as GGUF has them, the first 16 digits of the SHA-256 of its bytes.
"""
import hashlib
import json
import os
import runpy
import sys
import tempfile

from make_dense import FAMILY
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = ("gemma3-old", "gpt-neox", "gpt2", "smollm3", "starcoder2", "ministral3", "granite", "gpt-bigcode")


def make(name, source):
    folder = os.path.join(HERE, "model", name)
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    # what the converter asks for and newer files lack
    if name == "gpt-neox":
        config["rotary_pct"] = config["rope_parameters"]["partial_rotary_factor"]
    if name == "gpt2":
        config["n_ctx"] = config["n_positions"]
    if "converter" in FAMILY.get(name, {}):
        FAMILY[name]["converter"](name, config)
    with tempfile.TemporaryDirectory() as d:
        # as f32, since the converter would round norms plus one to f16
        save_file({k: v.float() for k, v in load_file(os.path.join(folder, "model.safetensors")).items()},
                  os.path.join(d, "model.safetensors"), metadata={"format": "pt"})
        with open(os.path.join(d, "config.json"), "w") as f:
            json.dump(config, f)
        with open(os.path.join(d, "tokenizer.json"), "w") as f:
            json.dump(dict(model=dict(vocab={str(i): i for i in range(config["vocab_size"])}), added_tokens=[]), f)
        out = os.path.join(d, "x.gguf")
        sys.argv = ["convert_hf_to_gguf.py", d, "--outfile", out, "--outtype", "f16"]
        runpy.run_path(os.path.join(source, "convert_hf_to_gguf.py"), run_name="__main__")
        with open(os.path.join(folder, "converter.txt"), "w") as f:
            for t in gguf.GGUFReader(out).tensors:
                digest = hashlib.sha256(t.data.tobytes()).hexdigest()[:16]
                print(t.name, t.tensor_type.name.lower(), *[int(n) for n in t.shape], digest, file=f)


if __name__ == "__main__":
    sys.path[:0] = [sys.argv[1], os.path.join(sys.argv[1], "gguf-py")]
    import conversion
    import conversion.base as base
    import gguf

    base.ModelBase.load_hparams = staticmethod(lambda d, *a, **k: json.load(open(os.path.join(d, "config.json"))))
    conversion.load_all_models()
    for kind in base.ModelBase._model_classes.values():
        for cls in kind.values():
            cls.set_vocab = lambda self: None
    source, cases = sys.argv[1], sys.argv[2:] or CASES
    for case in cases:
        make(case, source)
