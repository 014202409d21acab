#!/usr/bin/env python3
"""How many parameters transformers makes of each config.json in tests/golden/config, for tests/unit/test_config.c.

usage: make_config.py     needs torch and transformers; no memory is taken for weights

The files have the keys that published models have. parameters.txt: name and count, weights that are tied counted once.
"""
import json
import os

import torch
import transformers

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "config")


def count(path):
    with open(path) as f:
        text = json.load(f)
    cls = getattr(transformers, text["architectures"][0])
    with torch.device("meta"):
        model = cls(cls.config_class.from_dict(text))
    model.tie_weights()
    return sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    names = sorted(n[:-5] for n in os.listdir(HERE) if n.endswith(".json"))
    with open(os.path.join(HERE, "parameters.txt"), "w") as f:
        for name in names:
            print(name, count(os.path.join(HERE, name + ".json")), file=f)
