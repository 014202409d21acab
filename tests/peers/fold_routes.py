"""Folds written for llama.cpp and transformers, run by them: perplexity within .1 % of verify's, the cache as large as inspect says.
The models are random ones of real families with the demo's tokenizer, and the demo itself."""
import glob, json, math, os, re, shutil, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO, TEXT = os.path.join(HERE, "../../examples/demo"), os.path.join(HERE, "../../examples/demo.calib.txt")
CTX, CHUNKS = 128, 8
QUIRE, count = os.environ["QUIRE"], 0


def say(good, what, skip=None):
    global count
    count += 1
    print(f"{'ok' if good else 'not ok'} {count} - {what}" + (f" # SKIP {skip}" if skip else ""), flush=True)


def quire(*args, code=0):
    p = subprocess.run([QUIRE, *map(str, args)], capture_output=True, text=True)
    if p.returncode != code:
        print(f"# quire {' '.join(map(str, args))}: {p.returncode}: {p.stderr[-400:]}".replace("\n", " "))
    return p.stdout


def program(name):
    own = os.path.join(os.environ.get("LLAMA", ""), name)
    return own if os.environ.get("LLAMA") and os.path.exists(own) else shutil.which(name)


def verify(model, windows=CHUNKS):
    return json.loads(quire("verify", model, "--data", TEXT, "--ctx", CTX, "--windows", windows, "--json"))["perplexity"]


def cache(model):
    return json.loads(quire("inspect", model, "--json"))["kv_cache"]


def near(what, is_, wanted, least=1e-3):
    good = is_ is not None and abs(is_ / wanted - 1) <= least
    say(good, f"{what}: {is_ if is_ is None else round(is_, 4)}, quire {round(wanted, 4)}")


def llama(name, path):
    """Perplexity, and bytes of the cache per token, without layers that have a window."""
    short = os.path.join(os.path.dirname(path), "short.txt")
    if not os.path.exists(short):
        open(short, "w").write(open(TEXT).read()[:20000])

    def run(chunks, *more):
        p = subprocess.run([program("llama-perplexity"), "-m", path, "-f", short, "-c", str(CTX), "--chunks", str(chunks), "-t", "2",
                            "--no-repack", *more], capture_output=True, text=True)
        return p.stdout + p.stderr
    # after each window that of all up to it; on a busy machine the last lines may be lost
    seen = re.findall(r"\[(\d+)\]([0-9.]+),", run(CHUNKS)) or [(CHUNKS, "0")]
    near(f"{name}: llama.cpp's perplexity of {seen[-1][0]} windows", float(seen[-1][1]), verify(path, seen[-1][0]))
    out = run(1, "-v")
    sizes = re.findall(r"llama_kv_cache: size = +([0-9.]+) MiB \( *(\d+) cells, +(\d+) layers, +\d+/(\d+) seqs", out)
    layers = [l for i, l in enumerate(cache(path)["layer_map"]) if l["kv_source"] == i]
    full = [l for l in layers if not l["window"]]
    if not sizes:
        return say(False, f"{name}: llama.cpp prints no cache")
    mib, cells, n, seqs = sizes[-2] if len(sizes) > 1 and any(l["window"] for l in layers) else sizes[-1]
    say(int(n) == len(full), f"{name}: llama.cpp has {n} layers of full attention with a cache, quire {len(full)}")
    dim = json.loads(quire("inspect", path, "--json"))["head_dim"]
    near(f"{name}: bytes a token of those", float(mib) * 2**20 / int(cells) / int(seqs), sum(4 * l["kv_heads"] * dim for l in full), 0.02)


def transformers(name, path):
    import torch
    from transformers import AutoModelForCausalLM
    m = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, trust_remote_code=True).eval()
    # as llama.cpp cuts a text: its first token, where that is one that begins a text, begins every window
    ids = [int(i) for i in quire("tokenize", path, "--file", TEXT).split()]
    begins = ids[0] != int(quire("tokenize", path, "--file", TEXT, "--no-special").split()[0])
    nll = n = 0
    with torch.no_grad():
        for k in range(CHUNKS):
            x = torch.tensor([ids[k * CTX:(k + 1) * CTX]])
            x[0, 0] = ids[0] if begins else x[0, 0]
            out = m(x, use_cache=True)
            lp = torch.log_softmax(out.logits[0], -1)
            nll -= lp[CTX // 2:CTX - 1].gather(1, x[0, CTX // 2 + 1:, None]).sum().item()
            n += CTX - 1 - CTX // 2
        near(f"{name}: transformers' perplexity", math.exp(nll / n), verify(path))
        kept = getattr(out, "cache", None) or out.past_key_values
        layers = [l for l in kept.layers if getattr(l, "keys", None) is not None and l.keys.numel()]
        size = sum(l.keys.numel() + l.values.numel() for l in layers) * 2
        near(f"{name}: bytes of transformers' cache in f16", size,
             sum(4 * min(CTX, l["window"] - 1 or CTX if l["window"] else CTX) * l["kv_heads"] * m.config.head_dim
                 for i, l in enumerate(cache(path)["layer_map"]) if l["kv_source"] == i), 0.02)
        first = m(x[:, :CTX - 8], use_cache=True)
        c, key = (first.cache, "cache") if getattr(first, "cache", None) is not None else (first.past_key_values, "past_key_values")
        worst = 0
        for j in range(CTX - 8, CTX):
            worst = max(worst, (m(x[:, j:j + 1], use_cache=True, **{key: c}).logits[0, -1] - out.logits[0, j]).abs().max().item())
        say(worst < 1e-2, f"{name}: transformers' decoding agrees with its prefill to {worst:.1e}")


def random_models(folder):
    import torch
    from transformers import (Gemma3TextConfig, Gemma3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)
    base = dict(vocab_size=1024, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
                head_dim=32, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, initializer_range=0.08)
    for name, config, model in (("qwen2", Qwen2Config, Qwen2ForCausalLM), ("qwen3", Qwen3Config, Qwen3ForCausalLM),
                                ("gemma3", Gemma3TextConfig, Gemma3ForCausalLM)):
        torch.manual_seed(1)
        more = dict(layer_types=["sliding_attention"] * 2 + ["full_attention"] * 2, sliding_window=64) if name == "gemma3" else {}
        m = model(config(**base, **more))
        with torch.no_grad():
            for p in m.parameters():
                if p.ndim == 1:
                    p += 0.1 * torch.randn_like(p)
        m.save_pretrained(os.path.join(folder, name))
        for f in glob.glob(os.path.join(DEMO, "token*")) + glob.glob(os.path.join(DEMO, "special*")):
            shutil.copy(f, os.path.join(folder, name))
    shutil.copytree(DEMO, os.path.join(folder, "llama"))


text = ["--data", TEXT, "--ctx", "64", "--windows", "8"]
HEADS = ["--kv-heads", "1", "--layers", "1-2", "--method", "mean"]
SUFFIX = ["--share-layers", "suffix:2", "--share-method", "reuse", *text]
WINDOWS = ["--sliding-window", "24", "--full-every", "2", *text]
PAIRS = ["--share-layers", "pairs", "--share-method", "reuse", *text]
CASES = [
    ("llama", "heads", HEADS, "llama.cpp"), ("llama", "windows", WINDOWS, "llama.cpp"), ("llama", "suffix", SUFFIX, "llama.cpp"),
    ("qwen2", "heads", HEADS, "llama.cpp"), ("qwen3", "heads", HEADS, "llama.cpp"), ("qwen3", "windows", WINDOWS, "llama.cpp"),
    ("gemma3", "suffix", ["--share-layers", "suffix:1", "--share-method", "reuse", *text], "llama.cpp"),
    ("llama", "suffix", SUFFIX, "transformers"), ("llama", "windows", WINDOWS, "transformers"), ("qwen2", "suffix", SUFFIX, "transformers"),
    ("qwen3", "suffix", SUFFIX, "transformers"), ("qwen3", "windows", WINDOWS, "transformers"),
    ("llama", "heads", HEADS, "transformers"), ("qwen3", "heads", HEADS, "transformers"), ("llama", "pairs", PAIRS, "transformers"), ("llama", "heads", HEADS, "vllm"),
    ("qwen2", "pairs", PAIRS, "transformers"),
]


def main():
    try:
        import torch, transformers as t
        has = tuple(map(int, t.__version__.split(".")[:2])) >= (5, 24)
        why = None if has else f"transformers {t.__version__}, from 5.24 it has Gemma4ForCausalLM"
    except ImportError as e:
        return say(True, "folds in other programs", f"{e}; pip install torch transformers")
    with tempfile.TemporaryDirectory() as folder:
        random_models(folder)
        for model, what, options, runtime in CASES:
            name = f"{model}, {what}, {runtime}"
            if runtime == "llama.cpp" and not program("llama-perplexity"):
                say(True, name, "llama-perplexity is neither in LLAMA nor in PATH")
                continue
            if runtime != "llama.cpp" and why:
                say(True, name, why)
                continue
            folded, out = os.path.join(folder, f"{model}-{what}"), os.path.join(folder, "out" + (".gguf" if runtime == "llama.cpp" else ""))
            if not os.path.exists(folded):
                quire("fold", os.path.join(folder, model), "-o", folded, *options)
            more = ["--with-code"] if options is PAIRS or (options is HEADS and runtime == "transformers") else []
            quire("fold", folded, "-o", out, "--for", runtime, *more)
            (llama if runtime == "llama.cpp" else transformers)(name, out)
            shutil.rmtree(out) if os.path.isdir(out) else os.path.exists(out) and os.remove(out)


main()
sys.exit(0)
