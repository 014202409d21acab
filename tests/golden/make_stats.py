"""Writes tests/golden/stats: a statistics file by the reference safetensors writer, importance matrices by the gguf package
and by hand. usage: python make_stats.py OUT_FOLDER"""
import json
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save

out = Path(sys.argv[1])
ctx, n = 4, 3
rows = np.arange(2 * ctx * n, dtype=np.float64).reshape(2 * ctx, n) / 8 - 1
moment = rows.T @ rows
tensors = {
    "tokens": np.arange(2 * ctx, dtype=np.int32).reshape(2, ctx),
    "windows": np.array([[0, 0], [0, 2]], dtype=np.int32),
}
for key in ["layers.0.attn_q", "head"]:
    tensors |= {
        f"{key}.sum_squares": (rows**2).sum(0),
        f"{key}.abs_sum": abs(rows).sum(0),
        f"{key}.abs_max": abs(rows).max(0).astype(np.float32),
        f"{key}.count": np.array([2 * ctx], dtype=np.int64),
        f"{key}.moment": moment[np.tril_indices(n)].astype(np.float64),
    }
meta = {
    "format": "quire-statistics", "format_version": "1", "tool": "quire 0.1.0", "collect": "full", "model": "01" * 32,
    "tokenizer": "23" * 32, "ctx": str(ctx), "tokens": str(2 * ctx),
    "sources": json.dumps([{"data": "45" * 32, "seed": 7, "windows": 3}]),
}
(out / "tiny.stats").write_bytes(save(tensors, meta))

w = gguf.GGUFWriter(out / "tiny.gguf", "")
w.kv_data[0].pop("general.architecture", None)
w.add_type("imatrix")
w.add_array("imatrix.datasets", ["a.txt", "b.txt"])
w.add_uint32("imatrix.chunk_count", 2)
w.add_uint32("imatrix.chunk_size", 4)
for name, mats in [("blk.0.attn_q.weight", 1), ("blk.0.ffn_down.weight", 2)]:
    w.add_tensor(f"{name}.counts", np.full((mats, 1), 8, dtype=np.float32))
    w.add_tensor(f"{name}.in_sum2", np.arange(mats * n, dtype=np.float32).reshape(mats, n))
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()


def dat(entries, tail):
    b = struct.pack("<i", len(entries))
    for name, calls, values in entries:
        b += struct.pack("<i", len(name)) + name + struct.pack("<ii", calls, len(values)) + struct.pack(f"<{len(values)}f", *values)
    return b + tail


(out / "tiny.dat").write_bytes(dat([(b"blk.0.attn_q.weight", 2, [0, 2, 4]), (b"output.weight", 0, [1, 2, 3])],
                                   struct.pack("<ii", 2, 5) + b"a.txt"))
