#!/usr/bin/env bash
# Excess loss of layers that share a KV cache, as the tables of docs/fold.md: in nats per token over the original, on a text
# that nothing was fitted to. usage: share_table.sh [MODEL CALIB EVAL MAP...], default: the demo and, when there, ../shared's
# english. METHODS, SAMPLES and CTX (calibration), CHUNKS (windows judged; 0: all) may be set.
set -eu
cd "$(dirname "$0")/../.."
Q=${QUIRE:-build/bin/quire} CTX=${CTX:-256} CHUNKS=${CHUNKS:-0} SAMPLES=${SAMPLES:-256}
METHODS=${METHODS:-reuse match refit joint}
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT

perplexity() { "$Q" verify "$1" --data "$2" --ctx "$CTX" --chunks "$CHUNKS" --json -q | sed -n 's/^ *"perplexity": *\([0-9][0-9.]*\).*/\1/p' | head -n 1; }

table() { # MODEL CALIB EVAL MAP...
	local model=$1 calib=$2 eval=$3 base map m row
	shift 3
	base=$(perplexity "$model" "$eval")
	echo "$(basename "$model") (perplexity $base)"
	row="| map | KV cache |"
	for m in $METHODS; do row+=" $m |"; done
	printf '%s\n|---|---|%s\n' "$row" "$(for m in $METHODS; do printf -- '---|'; done)"
	for map; do
		row=
		for m in $METHODS; do
			"$Q" fold "$model" -o "$T/m.quire" -f -q --share-layers "$map" --share-method "$m" --data "$calib" --ctx "$CTX" --samples "$SAMPLES" --json >"$T/json"
			row+=$(awk -v a="$(perplexity "$T/m.quire" "$eval")" -v b="$base" 'BEGIN { printf " %.4f |", log(a / b) }')
		done
		awk -v map="$map" -v row="$row" '/"kv_bytes_4k_before"/ { sub(/.*: */, ""); b = $0 + 0 } /"kv_bytes_4k"/ { sub(/.*: */, ""); a = $0 + 0 }
			END { printf "| %s | %.0f %% |%s\n", map, 100 * a / b, row }' "$T/json"
	done
	echo
}

if [ $# -gt 3 ]; then
	table "$@"
	exit
fi
table examples/demo examples/demo.calib.txt examples/demo.eval.txt suffix:1 suffix:2 suffix:3 pairs auto:2
S=${SHARED:-../shared}
[ ! -d "$S/models/english" ] ||
	table "$S/models/english" "$S/text/english.calib.txt" "$S/text/english.eval.txt" suffix:1 suffix:2 suffix:3 pairs auto:3
