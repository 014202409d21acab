#!/usr/bin/env python3
"""A tokenizer of single characters for the models of make_model.py, whose vocabulary is 72, so that commands can run them on text.

usage: make_characters.py [OUTFILE]
"""
import json
import os
import sys

SPECIAL = ["<unk>", "<s>", "</s>"]
TOKENS = SPECIAL + list("\n !\"',-.:?ABCDEFGHIJLMNOPRSTUVWY0123456789abcdefghijklmnopqrstuvwxyz")
TOKENS += ["<%d>" % i for i in range(72 - len(TOKENS))]
added = [dict(id=i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True) for i, t in enumerate(SPECIAL)]
model = dict(type="BPE", dropout=None, unk_token="<unk>", continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False,
             byte_fallback=False, vocab={t: i for i, t in enumerate(TOKENS)}, merges=[])
here = os.path.dirname(os.path.abspath(__file__))
with open(sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "characters", "tokenizer.json"), "w") as f:
    json.dump(dict(version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=None, pre_tokenizer=None,
                   post_processor=None, decoder=None, model=model), f, separators=(",", ":"))
    f.write("\n")
