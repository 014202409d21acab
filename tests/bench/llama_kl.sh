#!/usr/bin/env bash
# KL to the original by llama.cpp's own tool: our file against what llama-quantize makes of the same model, type by type.
# usage: LLAMA=FOLDER tests/bench/llama_kl.sh [MODEL CALIB EVAL [TYPE...]]   (FOLDER has llama-perplexity, -quantize, -imatrix)
# METHOD=best CTX=256 CHUNKS=40 (0: all) SAMPLES=128 select what is run. Every matrix has the type, embedding and head q8_0.
# Columns: bytes and KL of llama.cpp without and with an importance matrix from CALIB; bytes and KL of ours; KL of our weights
# decoded to f32, where llama.cpp does not round activations to 8 bits as it does for quantized ones, and what quire verify says.
set -eu
cd "$(dirname "$0")/../.."
QUIRE=${QUIRE:-build/bin/quire} LLAMA=${LLAMA:-}
if [ ! -x "$LLAMA/llama-perplexity" ]; then
	echo "skipped: LLAMA does not name a folder with llama.cpp's programs"
	exit 0
fi
MODEL=${1:-examples/demo} CALIB=${2:-examples/demo.calib.txt} EVAL=${3:-examples/demo.eval.txt}
shift $(($# < 3 ? $# : 3))
[ $# -gt 0 ] || set -- q4_0 q4_k iq4_xs q3_k
METHOD=${METHOD:-best} CTX=${CTX:-256} CHUNKS=${CHUNKS:-40} SAMPLES=${SAMPLES:-128}
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT

quiet() { # COMMAND...: its output only when it fails
	"$@" >"$T/log" 2>"$T/err" || { tail -n 20 "$T/err" >&2; exit 1; }
}
text="-f $EVAL -c $CTX --chunks $([ "$CHUNKS" -gt 0 ] && echo "$CHUNKS" || echo -1) --kl-divergence-base $T/base"
kl() { # FILE: mean and error
	local try
	for try in 1 2 3 4 5; do # its log now and then ends before the figures
		# shellcheck disable=SC2086
		quiet "$LLAMA/llama-perplexity" -m "$1" $text --kl-divergence
		! grep -qa 'Mean *KLD' "$T/log" || break
	done
	sed -n 's/.*Mean *KLD: *\([0-9.e+-]*\)[^0-9]*\([0-9.e+-]*\).*/\1 \2/p' "$T/log" | awk '{ printf "%.6f ± %.6f", $1, $2 }'
}
name_of() { case $1 in q[345]_k) echo "${1}_s" ;; *) echo "$1" ;; esac | tr a-z A-Z; } # with --pure, K_S is all of one type

"$QUIRE" convert "$MODEL" --dtype f32 -o "$T/f32.gguf" -q
"$QUIRE" calibrate "$MODEL" --data "$CALIB" --collect full --samples "$SAMPLES" --ctx "$CTX" -o "$T/stats" -q >/dev/null
quiet "$LLAMA/llama-imatrix" -m "$T/f32.gguf" -f "$CALIB" -c "$CTX" --chunks "$SAMPLES" -o "$T/imatrix.gguf"
# shellcheck disable=SC2086
quiet "$LLAMA/llama-perplexity" -m "$T/f32.gguf" $text
echo "$MODEL: $METHOD, $SAMPLES windows of $CTX tokens of $CALIB; judged on $([ "$CHUNKS" -gt 0 ] && echo "$CHUNKS chunks" || echo "all") of $EVAL"
echo
echo "| type | llama.cpp: bytes | KL | KL with importance matrix | quire: bytes | KL | decoded to f32 | by quire verify |"
echo "|---|---|---|---|---|---|---|---|"
for t; do
	llama() { quiet "$LLAMA/llama-quantize" "$@" --pure --token-embedding-type q8_0 --output-tensor-type q8_0 "$T/f32.gguf" "$T/l.gguf" "$(name_of "$t")"; }
	llama
	plain=$(kl "$T/l.gguf") bytes=$(stat -c %s "$T/l.gguf")
	llama --imatrix "$T/imatrix.gguf"
	weighted=$(kl "$T/l.gguf")
	"$QUIRE" quantize "$MODEL" -s "pure-$t" -m "$METHOD" --stats "$T/stats" -o "$T/q.gguf" -f -q
	"$QUIRE" convert "$T/q.gguf" --dtype f32 -o "$T/decoded.gguf" -f -q
	ours=$(kl "$T/q.gguf") decoded=$(kl "$T/decoded.gguf")
	"$QUIRE" verify "$T/q.gguf" --against "$MODEL" --data "$EVAL" --ctx "$CTX" --chunks "$CHUNKS" --json -q >"$T/v"
	own=$(sed -n 's/.*"kl_mean": *\([0-9.e+-]*\),.*/\1/p' "$T/v" | head -n 1) error=$(sed -n 's/.*"kl_mean_error": *\([0-9.e+-]*\),.*/\1/p' "$T/v" | head -n 1)
	printf '| %s | %s | %s | %s | %s | %s | %s | %.6f ± %.6f |\n' "$t" "$bytes" "$plain" "$weighted" "$(stat -c %s "$T/q.gguf")" "$ours" \
		"$decoded" "$own" "$error"
done
