#!/usr/bin/env python3
"""Writes tests/golden/kquant/<type>.bin: four blocks of random bytes (half fields kept finite), then what the
public gguf package decodes them to, as f32. Needs numpy and gguf."""
import os

import gguf
import numpy as np

TYPES = {  # name: ggml type, block, bytes, byte offsets of its half fields
    "q2_k": (10, 256, 84, (80, 82)), "q3_k": (11, 256, 110, (108,)), "q4_k": (12, 256, 144, (0, 2)),
    "q5_k": (13, 256, 176, (0, 2)), "q6_k": (14, 256, 210, (208,)), "iq4_nl": (20, 32, 18, (0,)),
    "iq4_xs": (23, 256, 136, (0,)), "mxfp4": (39, 32, 17, ()),
}

out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kquant")
os.makedirs(out, exist_ok=True)
rng = np.random.default_rng(20240817)
for name, (kind, block, size, halves) in TYPES.items():
    raw = rng.integers(0, 256, (4, size), dtype=np.uint8)
    for at in halves:
        raw[:, at:at + 2] = rng.normal(0, 0.01, (4, 1)).astype("<f2").view(np.uint8)
    values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(kind)).astype("<f4")
    assert values.shape == (4, block) and np.isfinite(values).all()
    with open(os.path.join(out, name + ".bin"), "wb") as f:
        f.write(raw.tobytes() + values.tobytes())
