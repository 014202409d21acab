"""Writes safetensors/canonical.safetensors with the reference package (safetensors, torch). Run in tests/golden."""
import torch
from safetensors.torch import save_file

shapes = {
    "w": ("float16", [2], 2), "b": ("float32", [1], 4), "model.z": ("bfloat16", [2, 3], 2),
    "model.a": ("bfloat16", [1, 2], 2), "scalar": ("int64", [], 8), "empty": ("float32", [0, 7], 4),
    'q"\\é/': ("uint8", [3], 1), "flag": ("bool", [1], 1),
}
# dtype descending, then name: the order of the buffer, which counts 1, 2, 3 ...
order = ["scalar", "b", "empty", "model.a", "model.z", "w", 'q"\\é/', "flag"]
data, at = {}, 0
for name in order:
    dtype, shape, width = shapes[name]
    n = width
    for d in shape:
        n *= d
    raw = torch.tensor([(at + i + 1) & 255 for i in range(n)], dtype=torch.uint8)
    data[name] = raw.view(getattr(torch, dtype)).reshape(shape)
    at += n
save_file({k: data[k] for k in shapes}, "safetensors/canonical.safetensors", metadata={"format": "pt"})
