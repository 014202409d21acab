#!/usr/bin/env python3
"""Writes tests/golden/kquant/<type>.bin: four blocks of random bytes (half fields kept finite), then what the
public gguf package decodes them to, as f32; the two types that it lacks are decoded by ggml itself, whose library
GGML_BASE names (libggml-base.so). Needs numpy and gguf."""
import ctypes
import os

import gguf
import numpy as np

TYPES = {  # name: ggml type, block, bytes, byte offsets of its half fields
    "q2_k": (10, 256, 84, (80, 82)), "q3_k": (11, 256, 110, (108,)), "q4_k": (12, 256, 144, (0, 2)),
    "q5_k": (13, 256, 176, (0, 2)), "q6_k": (14, 256, 210, (208,)), "iq4_nl": (20, 32, 18, (0,)),
    "iq4_xs": (23, 256, 136, (0,)), "mxfp4": (39, 32, 17, ()), "nvfp4": (40, 64, 36, ()),
    "q1_0": (41, 128, 18, (0,)), "q2_0": (42, 64, 18, (0,)), "tq1_0": (34, 256, 54, (52,)), "tq2_0": (35, 256, 66, (64,)),
    "iq1_s": (19, 256, 50, (0,)), "iq1_m": (29, 256, 56, ()), "iq2_xxs": (16, 256, 66, (0,)), "iq2_xs": (17, 256, 74, (0,)),
    "iq2_s": (22, 256, 82, (0,)), "iq3_xxs": (18, 256, 98, (0,)), "iq3_s": (21, 256, 110, (0,)),
}


def by_ggml(name, raw, block):
    ggml = ctypes.CDLL(os.environ["GGML_BASE"])
    values = np.empty((len(raw), block), dtype="<f4")
    getattr(ggml, "dequantize_row_" + name)(raw.ctypes.data_as(ctypes.c_void_p), values.ctypes.data_as(ctypes.c_void_p),
                                            ctypes.c_int64(values.size))
    return values



out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kquant")
os.makedirs(out, exist_ok=True)
rng = np.random.default_rng(20240817)
for name, (kind, block, size, halves) in TYPES.items():
    raw = rng.integers(0, 256, (4, size), dtype=np.uint8)
    for at in halves:
        raw[:, at:at + 2] = rng.normal(0, 0.01, (4, 1)).astype("<f2").view(np.uint8)
    if name == "tq1_0":  # two blocks of bytes that its encoder gives, two of any
        for k in range(52):
            raw[:2, k] = (rng.integers(0, 243 if k < 48 else 81, 2) * (1 if k < 48 else 3) * 256 + 242) // 243
    if name == "iq1_m":  # the half is the upper four bits of four words
        d = rng.normal(0, 0.01, 4).astype("<f2").view("<u2")
        for k in range(4):
            raw[:, 49 + 2 * k] = raw[:, 49 + 2 * k] & 15 | (d >> 4 * k & 15) << 4
    if name in ("q1_0", "q2_0"):
        values = by_ggml(name, raw, block)
    else:
        values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(kind)).astype("<f4")
    assert values.shape == (4, block) and np.isfinite(values).all()
    with open(os.path.join(out, name + ".bin"), "wb") as f:
        f.write(raw.tobytes() + values.tobytes())
