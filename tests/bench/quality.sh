#!/usr/bin/env bash
# Table of types and methods: bytes of the file, and mean KL to the original on text that calibration did not see.
# usage: tests/bench/quality.sh [MODEL CALIB EVAL [TYPE...]]   (default: the demo, every 4-bit type)
# METHODS="rtn search imatrix awq gptq best" CTX=256 CHUNKS=0 (all) SAMPLES=128 select what is run; best-N is best with
# --distill N; QUANTIZE="--keep-channels" is given to quantize with every method.
# Every matrix gets the type; embedding and head get 8 bits, as with llama-quantize --pure and both set to q8_0.
set -eu
cd "$(dirname "$0")/../.."
QUIRE=${QUIRE:-build/bin/quire}
MODEL=${1:-examples/demo} CALIB=${2:-examples/demo.calib.txt} EVAL=${3:-examples/demo.eval.txt}
shift $(($# < 3 ? $# : 3))
[ $# -gt 0 ] || set -- q4_0 q4_k iq4_nl iq4_xs int4-g128 int4-g32
METHODS=${METHODS:-rtn search imatrix awq gptq best} CTX=${CTX:-256} CHUNKS=${CHUNKS:-0} SAMPLES=${SAMPLES:-128}
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT

"$QUIRE" calibrate "$MODEL" --data "$CALIB" --collect full --samples "$SAMPLES" --ctx "$CTX" -o "$T/stats" -q >/dev/null
"$QUIRE" verify "$MODEL" --data "$EVAL" --ctx "$CTX" --chunks "$CHUNKS" --json -q >"$T/v"
echo "$MODEL: calibrated on $SAMPLES windows of $CTX tokens of $CALIB, judged on $EVAL"
echo
printf '| type | bytes |'
for m in $METHODS; do printf ' %s |' "$m"; done
printf '\n|---|---|'
for m in $METHODS; do printf -- '---|'; done
printf '\n'
for t; do
	row= bytes=
	for m in $METHODS; do
		case $m in rtn | search) stats= ;; best-*) stats="--stats $T/stats --distill ${m#best-}" ;; *) stats="--stats $T/stats" ;; esac
		case $t in int*) suffix=quire ;; *) suffix=gguf ;; esac
		# shellcheck disable=SC2086
		"$QUIRE" quantize "$MODEL" -s "pure-$t" -m "${m%-*}" $stats ${QUANTIZE:-} -o "$T/x.$suffix" -f -q
		bytes=$(stat -c %s "$T/x.$suffix")
		"$QUIRE" verify "$T/x.$suffix" --against "$MODEL" --data "$EVAL" --ctx "$CTX" --chunks "$CHUNKS" --json -q >"$T/v"
		row="$row $(sed -n 's/.*"kl_mean": *\([0-9.e+-]*\),.*/\1/p' "$T/v" | head -n 1 | awk '{ printf "%.6f", $1 }') |"
	done
	printf '| %s | %s |%s\n' "$t" "$bytes" "$row"
done
