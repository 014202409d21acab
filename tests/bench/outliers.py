#!/usr/bin/env python3
"""The same function with large activations in a few channels: what norms, V and up put out in them is multiplied by 8 to 64, and
what reads it divided. Powers of two, so that every weight stays exact. For a llama folder of one bf16 safetensors file.

usage: tests/bench/outliers.py MODEL OUT [SEED]; then e.g. tests/bench/quality.sh OUT CALIB EVAL q4_k beside the same of MODEL
"""
import array
import json
import pathlib
import random
import shutil
import struct
import sys


class Model:
    def __init__(self, path):
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        self.head, self.body = data[:8 + size], bytearray(data[8 + size:])
        self.tensors = json.loads(data[8:8 + size])

    def scale(self, name, powers, rows):
        """Element i of each row, or row i, times 2^powers[i]."""
        t = self.tensors[name]
        if t["dtype"] != "BF16":
            sys.exit(f"{name}: {t['dtype']}; this reads bf16 only")
        a, b = t["data_offsets"]
        x = array.array("H", bytes(self.body[a:b]))
        cols = t["shape"][-1] if len(t["shape"]) == 2 else 1
        for i, k in powers.items():
            for j in range(i * cols, (i + 1) * cols) if rows else range(i, len(x), cols):
                exponent = x[j] >> 7 & 255
                if exponent and not 0 < exponent + k < 255:
                    sys.exit(f"{name}: a weight leaves the range of bf16")
                x[j] += (k << 7) if exponent else 0
        self.body[a:b] = x.tobytes()


def main(model, out, seed=0):
    model, out = pathlib.Path(model), pathlib.Path(out)
    shutil.copytree(model, out)
    (out / "model.safetensors").chmod(0o644)
    m = Model(model / "model.safetensors")
    draw = random.Random(int(seed))
    config = json.loads((model / "config.json").read_text())
    same_heads = config["num_attention_heads"] == config.get("num_key_value_heads", config["num_attention_heads"])
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        sites = [("input_layernorm", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
                 ("post_attention_layernorm", ["mlp.gate_proj", "mlp.up_proj"]), ("mlp.up_proj", ["mlp.down_proj"])]
        if same_heads:
            sites.append(("self_attn.v_proj", ["self_attn.o_proj"]))
        for writer, readers in sites:
            n = m.tensors[at + writer + ".weight"]["shape"][0]
            powers = {i: draw.randint(3, 6) for i in draw.sample(range(n), max(2, n // 40))}
            m.scale(at + writer + ".weight", powers, True)
            for r in readers:
                m.scale(at + r + ".weight", {i: -k for i, k in powers.items()}, False)
    (out / "model.safetensors").write_bytes(m.head + m.body)


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__.strip())
    main(*sys.argv[1:])
