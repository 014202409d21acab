"""Writes vocabulary/*.gguf, tiny models whose vocabularies have special tokens in all places and of all types, and vocabulary/*.tsv:
texts (hex) and the ids that llama.cpp gives them. Run in tests/golden with the gguf and tokenizers packages; LLAMA names the folder of
llama.cpp's programs."""
import os
import subprocess

import gguf
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

TEXT = "The lamp in the hall was lit at night, and the cat sat under the lamp. In the morning the cat went to the hall 12 times. " * 4
TEXTS = ["", "the lamp", " the lamp", "the  cat\n\n12", "<s>the</s> cat", "a <s> b </s>c", "[INST] the hall [/INST]", "[INST]the[/INST]", "<unk>x",
         "<|user|>the<|end|>", "two  spaces   here", "[PAD3]", "caf\u00e9 \U0001f600", "</s></s>", "<s", "the [X]cat", "\n</s>\n", "<0x41>"]


def write(name, model, tokens, types, scores, merges, more):
    w = gguf.GGUFWriter(f"vocabulary/{name}.gguf", "llama")
    rng, n = np.random.default_rng(1), len(tokens)
    w.add_name(name)
    w.add_block_count(1), w.add_context_length(64), w.add_embedding_length(32), w.add_feed_forward_length(32)
    w.add_head_count(2), w.add_head_count_kv(1), w.add_layer_norm_rms_eps(1e-5), w.add_rope_dimension_count(16), w.add_vocab_size(n)
    w.add_tokenizer_model(model), w.add_tokenizer_pre("smollm" if merges else "default")
    w.add_token_list(tokens), w.add_token_types(types)
    if scores:
        w.add_token_scores(scores)
    if merges:
        w.add_token_merges(merges)
    for key, value in more.items():
        w.add_key_value("tokenizer.ggml." + key, value, gguf.GGUFValueType.BOOL if isinstance(value, bool) else gguf.GGUFValueType.UINT32)
    t = lambda *s: rng.integers(-4, 5, s).astype(np.float16) / 64
    w.add_tensor("token_embd.weight", t(n, 32)), w.add_tensor("output_norm.weight", np.ones(32, np.float32))
    for k, s in dict(attn_q=(32, 32), attn_k=(16, 32), attn_v=(16, 32), attn_output=(32, 32), ffn_gate=(32, 32), ffn_up=(32, 32), ffn_down=(32, 32)).items():
        w.add_tensor(f"blk.0.{k}.weight", t(*s))
    for k in ("attn_norm", "ffn_norm"):
        w.add_tensor(f"blk.0.{k}.weight", np.ones(32, np.float32))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    with open(f"vocabulary/{name}.tsv", "w") as out:
        for s in TEXTS:
            r = subprocess.run([os.environ["LLAMA"] + "/llama-tokenize", "-m", f"vocabulary/{name}.gguf", "--ids", "--stdin", "--log-disable"],
                               input=s.encode(), capture_output=True, check=True)
            ids = r.stdout.decode().strip().strip("[]").replace(",", "")
            print(s.encode().hex(), ids, sep="\t", file=out)


# byte-level: control tokens first, one of each type in the middle, unused ones between and at the end
t = Tokenizer(models.BPE())
t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
t.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
import json  # noqa: E402
m = json.loads(t.to_str())["model"]
words = sorted(m["vocab"], key=m["vocab"].get)
front = [("<s>", 3), ("</s>", 3), ("<unk>", 2), ("[PAD3]", 5), ("[INST]", 3), ("[/INST]", 3)]
middle, end = [("<|user|>", 4), ("   ", 4), ("[X]", 4), ("nothing", 5)], [("<|end|>", 3), ("[PAD%d]", 5)]
all_ = front + [(x, 1) for x in words[:100]] + middle + [(x, 1) for x in words[100:]] + end
all_ = [(x % i if "%" in x and y == 5 else x, y) for i, (x, y) in enumerate(all_)]
scores = [0.0 if y == 1 else -1000.0 for _, y in all_]
write("bpe", "gpt2", [x for x, _ in all_], [y for _, y in all_], scores, [" ".join(x) if isinstance(x, list) else x for x in m["merges"]],
      dict(bos_token_id=0, eos_token_id=1, unknown_token_id=2, padding_token_id=3, eot_token_id=len(all_) - 2, fim_pre_token_id=4, add_bos_token=True, add_eos_token=True))

# SentencePiece: pieces of two and more characters with falling scores, bytes, special tokens in all places
bytes_ = [(f"<0x{i:02X}>", 6, 0.0) for i in range(256)]
flat = TEXT.replace(" ", "\u2581")
longer, score = [], -1.0
for n in (2, 3, 4, 5):
    seen = {}
    for i in range(len(flat) - n):
        seen[flat[i:i + n]] = seen.get(flat[i:i + n], 0) + 1
    for x in sorted(seen, key=lambda x: (-seen[x], x))[:16]:
        longer.append((x, 1, score))
        score -= 1
chars = [(x, 1, score - i) for i, x in enumerate(sorted(set(flat)))]
pieces = ([("<unk>", 2, 0.0), ("<s>", 3, 0.0), ("</s>", 3, 0.0), ("[INST]", 3, -1000.0)] + bytes_ + longer[:20] + [("<|user|>", 4, -1000.0), ("  ", 4, -1000.0), ("[PAD3]", 5, -10000.0)]
          + longer[20:] + chars + [("[/INST]", 3, -1000.0), ("[X]", 4, -1000.0), ("<|end|>", 3, -1000.0), ("spare", 5, -10000.0)])
for name, prefix in (("spm", True), ("spm-bare", False)):
    write(name, "llama", [x for x, _, _ in pieces], [y for _, y, _ in pieces], [z for _, _, z in pieces], None,
          dict(bos_token_id=1, eos_token_id=2, unknown_token_id=0, padding_token_id=0, eot_token_id=len(pieces) - 2, add_bos_token=True, add_space_prefix=prefix))
