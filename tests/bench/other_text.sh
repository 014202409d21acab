#!/usr/bin/env bash
# Does calibration fit the model or the text? Mean KL to the original on held-out text of the same source and on text of another
# source, by method, with few calibration tokens.
# usage: tests/bench/other_text.sh MODEL CALIB EVAL OTHER [TYPE...]; TOKENS="4096 16384" CTX=256 CHUNKS=24 METHODS="imatrix best"
set -eu
cd "$(dirname "$0")/../.."
if [ $# -lt 4 ]; then
	echo "skipped: needs MODEL CALIB EVAL OTHER"
	exit 0
fi
QUIRE=${QUIRE:-build/bin/quire}
MODEL=$1 CALIB=$2 EVAL=$3 OTHER=$4
shift 4
[ $# -gt 0 ] || set -- q4_0
TOKENS=${TOKENS:-4096 16384} CTX=${CTX:-256} CHUNKS=${CHUNKS:-24} METHODS=${METHODS:-imatrix best}
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT

kl() { # TEXT
	"$QUIRE" verify "$T/x.quire" --against "$MODEL" --data "$1" --ctx "$CTX" --chunks "$CHUNKS" --json -q >"$T/v"
	sed -n 's/.*"kl_mean": *\([0-9.e+-]*\),.*/\1/p' "$T/v" | head -n 1 | awk '{ printf "%.6f", $1 }'
}
echo "${MODEL##*/}, calibrated on ${CALIB##*/}, $CHUNKS chunks of $CTX tokens judged"
echo
echo "| type | method | tokens | ${EVAL##*/} | ${OTHER##*/} |"
echo "|---|---|---|---|---|"
for t; do
	"$QUIRE" quantize "$MODEL" -s "pure-$t" -m search -o "$T/x.quire" -f -q
	echo "| $t | search | - | $(kl "$EVAL") | $(kl "$OTHER") |"
	for n in $TOKENS; do
		"$QUIRE" calibrate "$MODEL" --data "$CALIB" --collect full --tokens "$n" --ctx "$CTX" -o "$T/stats" -q >/dev/null 2>&1
		for m in $METHODS; do
			"$QUIRE" quantize "$MODEL" -s "pure-$t" -m "$m" --stats "$T/stats" -o "$T/x.quire" -f -q
			echo "| $t | $m | $n | $(kl "$EVAL") | $(kl "$OTHER") |"
		done
	done
done
