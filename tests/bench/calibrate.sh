# calibrate against verify over the same tokens, as ratios; then gptq and best from the statistics: time, and peak memory against
# what --dry-run says; fails when it took more. --shape tiny|100m|1b (default 100m), QUIRE_BENCH_LAYERS=N: so many layers only (times of the
# quantizers are then also given for all layers, by proportion), QUIRE_BENCH_METHODS="gptq best", QUIRE_BENCH_WINDOWS=8 of 512 tokens
# (gptq takes as long whatever the number of tokens; 64 are 32k tokens).
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}   # waiting threads must not count as processor time
shape=${QUIRE_BENCH_SHAPE:-100m} layers=${QUIRE_BENCH_LAYERS:-} windows=${QUIRE_BENCH_WINDOWS:-8}
T=$(mktemp -d "${TMPDIR:-/tmp}/quire-bench-XXXXXX")
trap 'rm -rf "$T"' EXIT
now() { date +%s.%N; }
# shellcheck disable=SC2086
"$B"/bench/make_model ${layers:+--layers $layers} "$shape" "$T/model" examples/demo || exit 1
cat "$T"/model/*.safetensors >/dev/null
case $shape in tiny) whole=2 ;; 100m) whole=12 ;; *) whole=22 ;; esac
took() { # COMMAND...
	local start
	start=$(now)
	"$@" >"$T/out" 2>"$T/err" || { cat "$T/err" >&2; exit 1; }
	awk -v a="$start" -v b="$(now)" 'BEGIN { print b - a }'
}
text="--data examples/demo.calib.txt --ctx 512 -q"
# shellcheck disable=SC2086
verify=$(took "$QUIRE" verify "$T/model" $text --chunks "$windows")
printf 'shape %s, %d of %d layers, %d tokens: verify %.2f s\n' "$shape" "${layers:-$whole}" "$whole" $((windows * 512)) "$verify"
for kind in imatrix full; do
	# shellcheck disable=SC2086
	time=$(took "$QUIRE" calibrate "$T/model" $text --samples "$windows" --collect $kind -o "$T/stats")
	awk -v k=$kind -v v="$verify" -v t="$time" 'BEGIN { printf "calibrate --collect %-8s %7.2f s  %.2f of the speed of verify\n", k, t, v / t }'
done
rc=0
for m in ${QUIRE_BENCH_METHODS:-gptq}; do
	"$QUIRE" quantize "$T/model" -s pure-q4_k -m "$m" --stats "$T/stats" -n --json >"$T/plan" 2>/dev/null || exit 1
	TIMEFORMAT='%U %S'
	used=$( { time "$QUIRE" quantize "$T/model" -s pure-q4_k -m "$m" --stats "$T/stats" -o "$T/x.gguf" -f --json >"$T/json" 2>/dev/null; } 2>&1 ) || exit 1
	seconds=$(sed -n 's/.*"seconds": *\([0-9.e-]*\).*/\1/p' "$T/json") peak=$(sed -n 's/.*"peak_kib": *\([0-9]*\).*/\1/p' "$T/json")
	planned=$(sed -n 's/.*"peak_memory": *\([0-9]*\).*/\1/p' "$T/plan")
	awk -v m="$m" -v s="$seconds" -v n="${layers:-$whole}" -v w="$whole" -v p="$peak" -v d="$planned" -v u="${used/ /+}" 'BEGIN {
		split(u, c, "+")
		printf "%-5s q4_k %8.1f s, %.1f s of processors", m, s, c[1] + c[2]
		if (n < w) printf " (%d layers: about %.0f s, %.0f s)", w, s * w / n, (c[1] + c[2]) * w / n
		over = !(p > 0 && d > 0 && p * 1024 <= d)
		printf ", peak %d MiB, planned %d MiB%s\n", p / 1024, d / 1048576, (over ? ": EXCEEDED" : "")
		exit over }' || rc=1
done
exit $rc
