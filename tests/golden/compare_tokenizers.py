#!/usr/bin/env python3
"""Random texts through quire's tokenizer and Hugging Face's (tokenizer.json) or SentencePiece's (tokenizer.model).
usage: compare_tokenizers.py [-n COUNT] [-s SEED] FILE...      exits 1 when anything differs
Needs the packages tokenizers and sentencepiece, and a built build/libquire.a. Run from the repository's root."""
import argparse, os, random, struct, subprocess, sys, tempfile

DRIVER_LIBS = ["-lopenblas", "-lz", "-lcjson", "-lpcre2-8", "-lutf8proc", "-lm", "-lpthread", "-fopenmp"]
MARKS = ["'s", "'S", "'ll", "don't", "▁", "<s>", "</s>", "<unk>", "<tok>", "word", "<|endoftext|>", "<0x0A>", "Ġ", "é", "e\u0301", "ﬁ", "ẞ", "İ", "ǅ", "123", "1234567"]


def driver(folder):
    out = os.path.join(folder, "driver")
    subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-O2", "-Ilibquant", "-I.", "tests/golden/tokenizer_driver.c", "build/libquire.a", *DRIVER_LIBS, "-o", out], check=True)
    return out


def texts(seed, count):
    r = random.Random(seed)
    prose = open("examples/demo.eval.txt", encoding="utf8").read()[:200000] + open("libquant/text/regex.c").read()
    pools = [lambda: chr(r.randrange(32, 127)), lambda: chr(r.randrange(0x250)), lambda: r.choice(" \t\n\r\u00a0\u2003\u3000\u200b\u0085\u180e"),
             lambda: chr(r.choice([r.randrange(0x300, 0x3400), r.randrange(0xA000, 0xD800), r.randrange(0xE000, 0x10000)])),
             lambda: chr(r.randrange(0x10000, 0x110000)), lambda: chr(r.randrange(0x1F300, 0x1FB00)), lambda: r.choice("0123456789"), lambda: r.choice(MARKS),
             lambda: r.choice(["👨‍👩‍👧‍👦", "🇩🇪", "👍🏽", "각", "กำ", "क्षि"]), lambda: chr(r.randrange(32)), lambda: chr(r.randrange(0x4E00, 0xA000))]
    for _ in range(count):
        kind = r.random()
        if kind < .3:
            at = r.randrange(len(prose))
            s = prose[at:at + r.randrange(1, 300)]
        elif kind < .4:
            s = r.choice(pools)() * r.randrange(1, 400)
        else:
            some = r.sample(pools, r.randrange(1, 5))
            s = "".join(r.choice(some)() for _ in range(r.randrange(1, 120)))
        b = bytearray(s.encode())
        if r.random() < .05:
            for _ in range(r.randrange(1, 6)):
                b[r.randrange(len(b))] = r.randrange(256)
        yield bytes(b)


def reference(path):
    if path.endswith(".model"):
        import sentencepiece
        sp = sentencepiece.SentencePieceProcessor(model_file=path)
        return sp.encode, sp.decode
    from tokenizers import Tokenizer
    t = Tokenizer.from_file(path)
    return (lambda s: t.encode(s, add_special_tokens=False).ids), (lambda ids: t.decode(ids, skip_special_tokens=False))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("-n", type=int, default=3000)
    a.add_argument("-s", type=int, default=1)
    a.add_argument("files", nargs="+")
    o = a.parse_args()
    data = list(texts(o.s, o.n))
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        exe = driver(folder)
        for path in o.files:
            encode, decode = reference(path)
            args = ["-", "-", path] if path.endswith(".model") else [path, "-", "-"]
            run = subprocess.run([exe, *args], input=b"".join(struct.pack("<I", len(b)) + b for b in data), stdout=subprocess.PIPE, check=True)
            lines = run.stdout.decode().split("\n")
            bad = 0
            for i, b in enumerate(data):
                s = b.decode("utf8", "replace")
                ids = encode(s)
                try:
                    text = decode(ids).encode().hex()
                except BaseException:  # the reference panics on some pieces
                    text = lines[2 * i + 1]
                if " ".join(map(str, ids)) != lines[2 * i] or text != lines[2 * i + 1]:
                    bad += 1
                    if bad <= 3:
                        print("differs:", repr(s)[:300], "\n want", ids[:60], "\n got ", lines[2 * i][:300])
            print(f"{path}: {len(data)} texts, {sum(map(len, data))} bytes, {bad} differences")
            total += bad
    sys.exit(total > 0)


main()
