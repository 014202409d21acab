# Decoding, one thread: tokens a second of `generate` per storage type, against reading the file once, and
# with LLAMA=folder of llama.cpp's programs against llama-bench on the same file. By processor time, so that other work matters less.
shape=${QUIRE_BENCH_SHAPE:-100m} tokens=${TOKENS:-32}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
T=$(mktemp -d "${TMPDIR:-/tmp}/quire-bench-XXXXXX")
trap 'rm -rf "$T"' EXIT
"$B"/bench/make_model --dtype bf16 "$shape" "$T/model" examples/demo || exit 1
TIMEFORMAT='%U %S'
# seconds of processor time of a command; what it says is in $T/err
cpu() { { time "$@" >"$T/out" 2>"$T/err"; } 2>&1 | awk 'NF { print $1 + $2 }'; }
# tokens a second, from two lengths: their difference leaves out starting and loading
ours() {
	local t n
	for n in 4 $((tokens + 4)); do
		t=$(cpu "$QUIRE" generate "$1" One -v --threads 1 --tokens $n)
		echo "$t $(sed -n 's/.* new \([0-9]*\) tokens.*/\1/p' "$T/err")"
	done | rate
}
theirs() {
	local n
	for n in 4 $((tokens + 4)); do
		echo "$(cpu "$LLAMA/llama-bench" -m "$1" --repack "$2" -t 1 -p 0 -r 1 --no-warmup -n $n) $n"
	done | rate
}
rate() { awk 'NR == 1 { t = $1; n = $2 } END { printf "%.2f", ($1 > t) ? ($2 - n) / ($1 - t) : 0 }'; }
read=$("$B"/bench/rate_read)
for type in bf16 f16 q8_0 q6_k q5_k q4_k q3_k q2_k q4_0 q4_1 q5_0 q5_1 iq4_nl iq4_xs mxfp4 int8-g64 int4-g64 int3-g64; do
	f=$T/m.gguf
	case $type in int*) f=$T/m.quire ;; esac
	"$QUIRE" quantize "$T/model" -s "$type" --method rtn -o "$f" -q -f 2>"$T/err" || "$QUIRE" convert "$T/model" --dtype "$type" -o "$f" -q -f 2>"$T/err" ||
		{ cat "$T/err"; exit 1; }
	q=$(ours "$f") l="" p=""
	case ${LLAMA:+$f} in *.gguf) l=$(theirs "$f" 0) p=$(theirs "$f" 1) ;; esac
	awk -v n="$type" -v o="$q" -v t="$l" -v p="$p" -v b="$(stat -c %s "$f")" -v c="$read" 'BEGIN {
		printf "generate %-9s %7.2f tokens/s, %.2f of what reading the file once at %.1f GB/s allows", n, o, o * b / c / 1e9, c
		if (t > 0 && p > 0) printf ", %.2f of llama.cpp, %.2f of it with repacked weights", o / t, o / p
		print "" }'
	rm -f "$f"
done
