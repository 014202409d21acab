#!/usr/bin/env python3
"""Golden vectors of named pre-tokenizers: pre/base.json, a small vocabulary whose pieces reach over every cut that some
pre-tokenizer makes, pre/text.txt, and pre/names.tsv: who says so, names, ids of the text.
usage: make_pre.py LLAMA-TOKENIZE NAME...     the program of llama.cpp, and all names (tokenizer.ggml.pre)
Where llama.cpp approximates a family's own tokenizer.json, HF has the family's and the ids are those of `tokenizers`.
Needs the packages tokenizers, gguf and numpy. Run from the repository's root."""
import json, os, random, subprocess, sys, tempfile
import gguf, numpy as np
from tokenizers import Tokenizer, Regex, models, trainers, decoders as D, pre_tokenizers as P

OUT = "tests/golden/pre"
TEXT = ("I'll don't WE'VE it'S 1234567 x2 ٣٤٥٦ camelCase HTTPServer — «été» e\u0301 ﬁ\t\tnl\n\n  r\r\n日本語のテキスト中文abc漢字def アー 한국어 नमस्ते। "
        "กข 🙂👍🏽 if(a!=b){return [1,22,333];} // `x`^~$+<=>| \"q\"...\\ foo_bar--baz…,،۔。、 a\u00a0b\u3000c         end   \n")
UP, LOW, C = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
AHEAD, TAIL = r"[^\r\n\p{L}\p{N}]?", r"\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = C + "|" + AHEAD + r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL


def cased(contraction, digits, up=UP, low=LOW, slash="/"):
    return AHEAD + up + "*" + low + "+" + contraction + "|" + AHEAD + up + "+" + low + "*" + contraction + "|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n" + slash + "]*|" + TAIL


def split(*patterns):
    return [P.Split(Regex(p), "isolated") for p in patterns]


BYTES, WORDS, DIGITS = P.ByteLevel(False, use_regex=False), P.ByteLevel(False), P.Digits(True)
O200K = split(cased(C + "?", r"\p{N}{1,3}")) + [BYTES]
KIMI = split(r"[\p{Han}]+|" + cased(C + "?", r"\p{N}{1,3}", UP[:-1] + r"&&[^\p{Han}]]", LOW[:-1] + r"&&[^\p{Han}]]", "")) + [BYTES]
LETTERS = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
STOPS = r"\s?[!-/:-~！-／：-～‘-‟　-。]+"
HAN = "[一-龥ࠀ-一가-\ud7ff]+"
HF = {"deepseek-llm": split("[\r\n]", LETTERS, STOPS, r"\s+$", HAN) + [DIGITS, BYTES],
      "deepseek-coder": split("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN) + [DIGITS, BYTES], "tekken": split(cased("", r"\p{N}")) + [BYTES], "kimi-k2": KIMI,
      "youtu": split("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+", cased(C + "?", r"\p{N}")) + [BYTES],
      "superbpe": split(r"\p{N}+", r"(?=(\d{3})+(?!\d))") + [BYTES],
      "falcon": [P.Punctuation("contiguous"), WORDS, P.Digits(False)] + split("[0-9][0-9][0-9]"),
      "falcon3": [P.Punctuation("contiguous"), WORDS, DIGITS],
      "laguna": [P.Split(Regex(r"(?:\r?\n)+(?!\r?\n)"), "merged_with_next")] + split(QWEN2) + [BYTES]}
HF.update({n: O200K for n in ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "granite-embed-multi-97m")})
HF.update({n: split(r"\d{1,3}(?=(?:\d{3})*\b)") + O200K for n in ("tiny_aya", "cohere2moe")})


def write_gguf(path, name, tokens, merges):
    w = gguf.GGUFWriter(path, "llama")
    w.add_vocab_size(len(tokens)); w.add_context_length(64); w.add_embedding_length(16); w.add_block_count(1); w.add_feed_forward_length(16)
    w.add_head_count(2); w.add_layer_norm_rms_eps(1e-5); w.add_tokenizer_model("gpt2"); w.add_tokenizer_pre(name); w.add_token_list(tokens)
    w.add_token_types([1] * len(tokens)); w.add_token_merges(merges); w.add_add_bos_token(False)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def main():
    os.makedirs(OUT, exist_ok=True)
    r = random.Random(1)
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = BYTES
    corpus = [TEXT] + [TEXT[(k := r.randrange(len(TEXT))):k + r.randrange(2, 12)] for _ in range(300)]
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=640, min_frequency=2, show_progress=False, initial_alphabet=sorted(P.ByteLevel.alphabet())))
    t.decoder = D.ByteLevel()
    base = json.loads(t.to_str())
    base.pop("pre_tokenizer")
    base["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in base["model"]["merges"]]
    open(f"{OUT}/text.txt", "w", encoding="utf8", newline="").write(TEXT)
    json.dump(base, open(f"{OUT}/base.json", "w", encoding="utf8"), ensure_ascii=False, separators=(",", ":"))
    tokens = [k for k, _ in sorted(base["model"]["vocab"].items(), key=lambda x: x[1])]
    groups = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[2:]:
            if name in HF:
                t.pre_tokenizer = P.Sequence(HF[name])
                ids, who = t.encode(TEXT).ids, "tokenizers"
            else:
                path = folder + "/x.gguf"
                write_gguf(path, name, tokens, base["model"]["merges"])
                out = subprocess.run([sys.argv[1], "-m", path, "-f", f"{OUT}/text.txt", "--ids", "--no-bos", "--log-disable"], capture_output=True, text=True, check=True).stdout
                ids, who = json.loads(out[out.index("["):]), "llama.cpp"
            groups.setdefault((who, tuple(ids)), []).append(name)
    with open(f"{OUT}/names.tsv", "w") as f:
        for (who, ids), names in groups.items():
            f.write(who + "\t" + " ".join(names) + "\t" + " ".join(map(str, ids)) + "\n")


main()
