#!/usr/bin/env python3
"""Golden vectors of tokenizers: tests/golden/tokenizer/NAME.json, and NAME.tsv with, per text,
the text as hex, its ids without special tokens, with them, and the decoded text as hex.
Needs the packages tokenizers and (for shared tokenizers) the folder ../shared. Run from the repository's root."""
import json, os, random, sys
from tokenizers import Tokenizer, Regex, models, trainers, pre_tokenizers as P, normalizers as N, decoders as D, processors as X, AddedToken

OUT = "tests/golden/tokenizer"
TEXTS = ["", " ", "Hello world", "  two  spaces ", "Hello, World's don't 1234567 x2", "tab\tnl\n\nr\r\nend", "é e\u0301 ﬁ İ ẞ ǅ",
         "日本語のテキスト 中文", "👨‍👩‍👧‍👦 👍🏽 🇩🇪", "<s>a</s> <tok> b<tok>c  <tok>  d", "<0x0A> ▁ Ġ", "a" * 70, " " * 40 + "x", "\x00\x01\x7f\x85\u00a0\u2003\u180e",
         "if (x[i] != 0) { return -1; } // ok", "A-b--c.d", "ПРИВЕТ мир", "\U0001e4d0\U00031350\u1c89", "foo bar foobar barfoo", "WORDword word", "\ufffd \u200b"]
BYTES = [b"\xff\xfeab", b"\xe2\x96", b"ok\xc3(\xa9", b"\xf0\x9f\x91 \xed\xa0\x80", b"\x80\x80"]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CORPUS = open("examples/demo.calib.txt", encoding="utf8").read()[:60000].splitlines() + ["don't 123 foo bar 日本語 é ﬁ"] * 3


def bpe(size, pre=None, norm=None, byte=False, alphabet=None, **kw):
    t = Tokenizer(models.BPE(**kw))
    if pre: t.pre_tokenizer = pre
    if norm: t.normalizer = norm
    special = ["<unk>", "<s>", "</s>"] + (["<0x%02X>" % b for b in range(256)] if kw.get("byte_fallback") else [])
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False, limit_alphabet=80,
        initial_alphabet=sorted(P.ByteLevel.alphabet()) if byte else [], continuing_subword_prefix=kw.get("continuing_subword_prefix") or "", end_of_word_suffix=kw.get("end_of_word_suffix") or ""))
    return t


def save(name, t, edit=None):
    j = json.loads(t.to_str())
    if edit:
        edit(j)
    if isinstance(j["model"]["merges"], list) and name in ("spm",):
        j["model"]["merges"] = [" ".join(m) for m in j["model"]["merges"]]
    # the byte tokens are vocabulary, not added tokens
    j["added_tokens"] = [a for a in j["added_tokens"] if not a["content"].startswith("<0x")]
    path = f"{OUT}/{name}.json"
    with open(path, "w", encoding="utf8") as f:
        json.dump(j, f, ensure_ascii=False, separators=(",", ":"))
    vectors(name, path)


def vectors(name, path, texts=None):
    t = Tokenizer.from_file(path)
    with open(f"{OUT}/{name}.tsv", "w") as f:
        for b in texts or [s.encode() for s in TEXTS] + BYTES:
            s = b.decode("utf8", "replace")
            ids = t.encode(s, add_special_tokens=False).ids
            full = t.encode(s, add_special_tokens=True).ids
            f.write("\t".join([b.hex(), " ".join(map(str, ids)), " ".join(map(str, full)), t.decode(ids, skip_special_tokens=True).encode().hex()]) + "\n")


def main():
    os.makedirs(OUT, exist_ok=True)
    t = bpe(340, pre=P.ByteLevel(add_prefix_space=False), byte=True)
    t.decoder = D.ByteLevel(); t.post_processor = X.ByteLevel(trim_offsets=False)
    save("gpt2", t)
    t = bpe(340, pre=P.Sequence([P.Split(Regex(LLAMA3), "isolated"), P.ByteLevel(add_prefix_space=False, use_regex=False)]), byte=True, ignore_merges=True)
    t.decoder = D.ByteLevel(); t.post_processor = X.Sequence([X.ByteLevel(), X.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])])
    t.add_tokens([AddedToken("<tok>", lstrip=True, rstrip=True, normalized=False, special=False), AddedToken("word", single_word=True, normalized=True)])
    save("llama3", t)
    t = bpe(330, pre=P.Sequence([P.Punctuation("contiguous"), P.ByteLevel(add_prefix_space=True), P.Digits(individual_digits=False), P.Split(Regex("[0-9][0-9][0-9]"), "isolated")]), byte=True)
    t.decoder = D.ByteLevel()
    save("falcon", t)
    t = bpe(330, pre=P.Sequence([P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False)]), norm=N.NFC(), byte=True)
    t.decoder = D.ByteLevel()
    save("smollm", t)
    t = bpe(420, pre=P.Metaspace(prepend_scheme="always"), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    t.pre_tokenizer = None
    t.normalizer = N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")])
    t.decoder = D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])
    t.post_processor = X.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    save("spm", t)
    for scheme in ("always", "first", "never"):
        t = bpe(150, pre=P.Metaspace(prepend_scheme=scheme, split=scheme != "never"), unk_token="<unk>", fuse_unk=scheme == "first")
        t.decoder = D.Metaspace(prepend_scheme=scheme)
        t.add_special_tokens([AddedToken("<tok>", rstrip=True)])
        save("metaspace-" + scheme, t)
    t = bpe(200, pre=P.Whitespace(), norm=N.Sequence([N.NFKD(), N.StripAccents(), N.Lowercase(), N.Strip()]), unk_token="<unk>", continuing_subword_prefix="##")
    save("subword", t)
    t = bpe(200, pre=P.WhitespaceSplit(), norm=N.NFKC(), unk_token="<unk>", end_of_word_suffix="</w>")
    t.decoder = D.BPEDecoder("</w>"); t.post_processor = X.RobertaProcessing(("</s>", 2), ("<s>", 1))
    save("suffix", t)
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        t = bpe(120, pre=P.Split(Regex(r"[\s\-]|\d+|(?=W)"), behavior, invert=behavior == "removed"), norm=N.Replace(Regex(r"\h{2,}\b"), "#"), unk_token="<unk>")
        save("split-" + behavior.replace("_", "-"), t)
    t = bpe(120, pre=P.BertPreTokenizer(), norm=N.BertNormalizer(), unk_token="<unk>")
    save("bert", t)
    vectors("demo", "examples/demo/tokenizer.json")
    shared = os.environ.get("SHARED", "../shared") + "/tokenizers"
    for name in ("gpt-2", "falcon", "phi-3"):
        if os.path.exists(f"{shared}/{name}/tokenizer.json"):
            inputs = open(f"{shared}/{name}/inputs.txt", "rb").read().split(b"\n__ggml_vocab_test__\n")
            vectors("shared-" + name, f"{shared}/{name}/tokenizer.json", inputs)


main()
