#!/usr/bin/env bash
# Excess loss of every method of `fold`, as the tables of docs/fold.md: in nats per token over the original, on a text that
# nothing was fitted to. usage: fold_table.sh [MODEL CALIB EVAL HEADS...], default: the demo and, when there, ../shared's english
# METHODS, CTX and CHUNKS (windows judged; 0: all) may be set.
set -eu
cd "$(dirname "$0")/../.."
Q=${QUIRE:-build/bin/quire} CTX=${CTX:-256} CHUNKS=${CHUNKS:-0}
METHODS=${METHODS:-mean/neighbour weighted/neighbour medoid/neighbour align/neighbour pca/neighbour pca/search refit/search}
TIMEFORMAT=%U # processor time
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT

perplexity() { "$Q" verify "$1" --data "$2" --ctx "$CTX" --chunks "$CHUNKS" --json -q | sed -n 's/.*"perplexity": \([0-9.]*\).*/\1/p'; }

table() { # MODEL CALIB EVAL HEADS...
	local model=$1 calib=$2 eval=$3 base m k ppl row seconds
	shift 3
	base=$(perplexity "$model" "$eval")
	echo "$(basename "$model") (perplexity $base)"
	row="| method | groups |" seconds="|---|---|"
	for k; do row+=" $k heads |" seconds+="---|"; done
	printf '%s CPU s, all |\n%s---|\n' "$row" "$seconds"
	for m in $METHODS; do
		row="| ${m%/*} | ${m#*/} |"
		seconds=$({ time for k; do
			"$Q" fold "$model" -o "$T/$k" -f -q --kv-heads "$k" --method "${m%/*}" --group "${m#*/}" --data "$calib"
		done; } 2>&1)
		for k; do
			ppl=$(perplexity "$T/$k" "$eval")
			row+=$(awk -v a="$ppl" -v b="$base" 'BEGIN { printf " %.4f |", log(a / b) }')
			rm -r "${T:?}/$k"
		done
		echo "$row $seconds |"
	done
	echo
}

if [ $# -gt 3 ]; then
	table "$@"
	exit
fi
table examples/demo examples/demo.calib.txt examples/demo.eval.txt 4 2 1
S=${SHARED:-../shared}
[ ! -d "$S/models/english" ] || table "$S/models/english" "$S/text/english.calib.txt" "$S/text/english.eval.txt" 4 2 1
