# quantize and convert against copying the file: --shape tiny|100m|1b (default 100m; 1b takes 2.2 GB twice in TMPDIR)
shape=${QUIRE_BENCH_SHAPE:-100m}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}   # waiting threads must not count as processor time
T=$(mktemp -d "${TMPDIR:-/tmp}/quire-bench-XXXXXX")
trap 'rm -rf "$T"' EXIT
now() { date +%s.%N; }
"$B"/bench/make_model "$shape" "$T/model" || exit 1
cat "$T"/model/*.safetensors >/dev/null
start=$(now)
cat "$T"/model/*.safetensors >"$T/copy" && sync "$T/copy"
copy=$(awk -v a="$start" -v b="$(now)" 'BEGIN { print b - a }')
rm "$T/copy"
printf 'shape %s, copying the file takes %.2f s\n' "$shape" "$copy"
TIMEFORMAT='%U %S'
one() { # NAME ARGUMENTS
	local name=$1 seconds peak used
	shift
	used=$( { time "$QUIRE" "$@" -o "$T/out.gguf" --force --json >"$T/json"; } 2>&1 ) || exit 1
	seconds=$(sed -n 's/.*"seconds": *\([0-9.e-]*\).*/\1/p' "$T/json")
	peak=$(sed -n 's/.*"peak_kib": *\([0-9]*\).*/\1/p' "$T/json")
	awk -v u="${used/ /+}" -v n="$name" -v s="$seconds" -v c="$copy" -v p="$peak" 'BEGIN { printf "%-14s %7.2f s  %6.2f x copy  %s processor s  peak %d MiB\n", n, s, s / c, u, p / 1024 }'
}
one convert convert "$T/model"
for m in rtn search; do
	for s in Q8_0 Q4_0 Q4_K_M; do one "$s $m" quantize "$T/model" --scheme "$s" --method "$m"; done
done
