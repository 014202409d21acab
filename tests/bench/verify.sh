# verify against what the machine's own sgemm allows: --shape tiny|100m|1b (default 100m), weights in bf16 and q4_k
shape=${QUIRE_BENCH_SHAPE:-100m}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}   # waiting threads must not count as processor time
T=$(mktemp -d "${TMPDIR:-/tmp}/quire-bench-XXXXXX")
trap 'rm -rf "$T"' EXIT
ctx=512 chunks=2
case $shape in
tiny) h=256 l=2 q=256 kv=128 f=512 v=1024 chunks=8 ;;
100m) h=768 l=12 q=768 kv=256 f=2048 v=16000 chunks=4 ;;
1b) h=2048 l=22 q=2048 kv=256 f=5632 v=32000 ;;
*) echo "unknown shape $shape"; exit 2 ;;
esac
macs=$((l * (2 * h * q + 2 * h * kv + 3 * h * f) + h * v))   # per token, in dense products
"$B"/bench/make_model --dtype bf16 "$shape" "$T/model" examples/demo || exit 1
"$QUIRE" quantize "$T/model" --scheme q4_k --method rtn -o "$T/q4.quire" -q || exit 1
read -r wall cpu <<<"$("$B"/bench/rate_sgemm)"
printf 'shape %s, sgemm %s GFLOP/s, %s a second of processor time: %s tokens/s at most\n' "$shape" "$wall" "$cpu" \
	"$(awk -v g="$wall" -v m=$macs 'BEGIN { printf "%.1f", g * 1e9 / 2 / m }')"
TIMEFORMAT='%R %U %S'
one() { # NAME MODEL
	local t r u s
	t=$( { time "$QUIRE" verify "$2" --data examples/demo.eval.txt --ctx $ctx --chunks $chunks -q >/dev/null 2>"$T/err"; } 2>&1 ) || { cat "$T/err"; exit 1; }
	read -r r u s <<<"$t"
	awk -v n="$1" -v t=$((ctx * chunks)) -v r="$r" -v c="$u" -v s="$s" -v w="$wall" -v p="$cpu" -v m=$macs 'BEGIN {
		printf "verify %-6s %8.1f tokens/s  %.2f of sgemm by the clock, %.2f by processor time\n", n, t / r,
			2e-9 * m * t / r / w, 2e-9 * m * t / (c + s) / p }'
}
one bf16 "$T/model"
one q4_k "$T/q4.quire"
