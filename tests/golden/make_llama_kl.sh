#!/usr/bin/env bash
# What llama.cpp's own program says of files that quire makes of examples/demo: tests/golden/llama_kl.txt.
# usage: LLAMA=FOLDER tests/golden/make_llama_kl.sh   (FOLDER has llama-perplexity; made with llama.cpp of November 2026 on AVX-512)
set -eu
cd "$(dirname "$0")/../.."
QUIRE=${QUIRE:-build/bin/quire}
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
text="-f examples/demo.eval.txt -c 256 --chunks 8 --no-repack --kl-divergence-base $T/base"
"$QUIRE" convert examples/demo --dtype bf16 -o "$T/bf16.gguf" -q
# shellcheck disable=SC2086
"$LLAMA/llama-perplexity" -m "$T/bf16.gguf" $text >"$T/log" 2>&1
echo "# type, perplexity and mean KL to the bf16 file by llama-perplexity: 8 chunks of 256 tokens of examples/demo.eval.txt"
for t in q2_k q6_k q8_0 q4_0; do
	"$QUIRE" quantize examples/demo -s "pure-$t" -m rtn -o "$T/q.gguf" -f -q 2>"$T/err" || "$QUIRE" quantize examples/demo -s "$t" -m rtn -o "$T/q.gguf" -f -q
	until grep -qa 'Maximum KLD' "$T/log"; do # its log now and then ends before the figures
		# shellcheck disable=SC2086
		"$LLAMA/llama-perplexity" -m "$T/q.gguf" $text --kl-divergence >"$T/log" 2>/dev/null
	done
	echo "$t $(sed -n 's/^Mean PPL(Q) *: *\([0-9.]*\).*/\1/p' "$T/log") $(sed -n 's/^Mean *KLD: *\([0-9.]*\).*/\1/p' "$T/log")"
	: >"$T/log"
done
