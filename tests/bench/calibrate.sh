# calibrate against verify over the same tokens, as ratios: --shape tiny|100m|1b (default 100m)
shape=${QUIRE_BENCH_SHAPE:-100m}
T=$(mktemp -d "${TMPDIR:-/tmp}/quire-bench-XXXXXX")
trap 'rm -rf "$T"' EXIT
now() { date +%s.%N; }
"$B"/bench/make_model "$shape" "$T/model" examples/demo || exit 1
cat "$T"/model/*.safetensors >/dev/null
took() { # COMMAND...
	local start
	start=$(now)
	"$@" >"$T/out" || exit 1
	awk -v a="$start" -v b="$(now)" 'BEGIN { print b - a }'
}
text="--data examples/demo.calib.txt --ctx 512 -q"
verify=$(took "$QUIRE" verify "$T/model" $text --chunks 8)
printf 'shape %s, 4096 tokens: verify %.2f s\n' "$shape" "$verify"
for kind in imatrix full; do
	time=$(took "$QUIRE" calibrate "$T/model" $text --samples 8 --collect $kind -o "$T/stats")
	awk -v k=$kind -v v="$verify" -v t="$time" 'BEGIN { printf "calibrate --collect %-8s %7.2f s  %.2f of the speed of verify\n", k, t, v / t }'
done
